{{/* All objects of one role of a plain job. Takes root, key, job, role. */}}
{{- define "streamad.role" -}}
{{- $name := include "streamad.roleName" . -}}
{{- $role := get (.job.roles | default dict) .role | default dict -}}
{{- $scaled := dig "autoscaling" "enabled" false $role -}}
{{- $meta := dict "root" .root "name" $name "component" .role "labels" (dict "streamad.io/pipeline" .key) -}}
---
apiVersion: v1
kind: Service
metadata:
  {{- include "streamad.metadata" $meta | nindent 2 }}
spec:
  clusterIP: None
  publishNotReadyAddresses: true
  selector:
    {{- include "streamad.roleSelector" . | nindent 4 }}
  ports:
    - {name: health, port: 8080, targetPort: health, protocol: TCP}
---
apiVersion: apps/v1
kind: StatefulSet
metadata:
  {{- include "streamad.metadata" $meta | nindent 2 }}
spec:
  {{- if not $scaled }}
  replicas: {{ hasKey $role "replicas" | ternary $role.replicas 1 | int }}
  {{- end }}
  serviceName: {{ $name }}
  # Members recover their partitions independently of each other.
  podManagementPolicy: Parallel
  updateStrategy: {type: RollingUpdate}
  revisionHistoryLimit: 5
  selector:
    matchLabels:
      {{- include "streamad.roleSelector" . | nindent 6 }}
  template:
    {{- include "streamad.podTemplate" . | nindent 4 }}
{{- if .root.Values.podDisruptionBudget.enabled }}
---
apiVersion: policy/v1
kind: PodDisruptionBudget
metadata:
  {{- include "streamad.metadata" $meta | nindent 2 }}
spec:
  # Never minAvailable: with one replica it would block every drain.
  maxUnavailable: {{ .root.Values.podDisruptionBudget.maxUnavailable }}
  selector:
    matchLabels:
      {{- include "streamad.roleSelector" . | nindent 6 }}
{{- end }}
{{- if $scaled }}
{{ include "streamad.scaledObject" (merge (dict "name" $name "scale" $role.autoscaling) .) }}
{{- end }}
{{ end -}}

{{/* KEDA: members by consumer lag, never more than partitions, and slowly down. */}}
{{- define "streamad.scaledObject" -}}
{{- $scale := .scale -}}
{{- $topics := $scale.topics | default (include "streamad.inputTopics" . | fromJsonArray) -}}
{{- $name := $scale.name | default (dig "config" "name" "" .job) -}}
{{- if dig "config" "input" "repartition" false .job -}}
{{- $topics = list (printf "streamad.%s.rekeyed" $name) -}}
{{- end -}}
{{- if not (and $topics $name) -}}
{{- fail (printf "pipelines.%s.roles.%s.autoscaling: the pipeline file is in a ConfigMap that the chart does not read; set autoscaling.name (the pipeline's name) and autoscaling.topics" .key .role) -}}
{{- end -}}
{{- $auth := or (hasPrefix "SASL" .root.Values.kafka.securityProtocol) (hasSuffix "SSL" .root.Values.kafka.securityProtocol) -}}
---
apiVersion: keda.sh/v1alpha1
kind: ScaledObject
metadata:
  {{- include "streamad.metadata" (dict "root" .root "name" .name "component" .role "labels" (dict "streamad.io/pipeline" .key)) | nindent 2 }}
spec:
  scaleTargetRef:
    apiVersion: apps/v1
    kind: StatefulSet
    name: {{ .name }}
  pollingInterval: {{ $scale.pollingInterval | default 30 | int }}
  minReplicaCount: {{ $scale.minReplicas | default 1 | int }}
  # A member without a partition is idle.
  maxReplicaCount: {{ min ($scale.maxReplicas | default .job.partitions) .job.partitions | int }}
  fallback:
    # The broker does not answer: keep what is there, a rebalance would not help.
    failureThreshold: 5
    replicas: {{ $scale.minReplicas | default 1 | int }}
    behavior: currentReplicasIfHigher
  advanced:
    horizontalPodAutoscalerConfig:
      behavior:
        scaleUp:
          stabilizationWindowSeconds: {{ $scale.scaleUpAfterSeconds | default 60 | int }}
          policies: [{type: Percent, value: 100, periodSeconds: 120}]
        scaleDown:
          # Each step is a rebalance, and a recovery of the partitions that move.
          stabilizationWindowSeconds: {{ $scale.scaleDownAfterSeconds | default 1800 | int }}
          policies: [{type: Pods, value: 1, periodSeconds: 600}]
  triggers:
    {{- range $topics }}
    - type: kafka
      metadata:
        bootstrapServers: {{ $.root.Values.kafka.bootstrapServers | quote }}
        consumerGroup: streamad.{{ $name }}.{{ $.role }}
        topic: {{ . }}
        lagThreshold: {{ $scale.lagPerReplica | default 10000 | int | quote }}
        offsetResetPolicy: latest
        scaleToZeroOnInvalidOffset: "false"
        allowIdleConsumers: "false"
        {{- if $auth }}
        {{- with dict "PLAIN" "plaintext" "SCRAM-SHA-256" "scram_sha256" "SCRAM-SHA-512" "scram_sha512" }}
        {{- if hasPrefix "SASL" $.root.Values.kafka.securityProtocol }}
        sasl: {{ get . ($.root.Values.kafka.strimzi.user | ternary "SCRAM-SHA-512" $.root.Values.kafka.sasl.mechanism) }}
        {{- end }}
        {{- end }}
        {{- if hasSuffix "SSL" $.root.Values.kafka.securityProtocol }}
        tls: enable
        {{- end }}
        {{- end }}
      {{- if $auth }}
      authenticationRef:
        name: {{ include "streamad.fullname" $.root }}
      {{- end }}
    {{- end }}
{{- end -}}
