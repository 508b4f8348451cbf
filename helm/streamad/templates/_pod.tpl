{{/* KAFKA_* of every container. Secrets are references, or files that are mounted. */}}
{{- define "streamad.kafkaEnv" -}}
{{- $kafka := .Values.kafka -}}
{{- $user := and $kafka.strimzi.user (include "streamad.fullname" .) -}}
- name: KAFKA_BOOTSTRAP_SERVERS
  value: {{ $kafka.bootstrapServers | quote }}
- name: KAFKA_SECURITY_PROTOCOL
  value: {{ $kafka.securityProtocol }}
- name: KAFKA_SESSION_TIMEOUT_MS
  value: {{ $kafka.sessionTimeoutMs | int | quote }}
{{- with $kafka.replicationFactor }}
- name: KAFKA_REPLICATION_FACTOR
  value: {{ . | int | quote }}
{{- end }}
{{- if hasPrefix "SASL" $kafka.securityProtocol }}
- name: KAFKA_SASL_MECHANISM
  value: {{ $kafka.strimzi.user | ternary "SCRAM-SHA-512" $kafka.sasl.mechanism }}
{{- if $user }}
- name: KAFKA_SASL_USERNAME
  value: {{ $user }}
- name: KAFKA_SASL_PASSWORD
  valueFrom: {secretKeyRef: {name: {{ $user }}, key: password}}
{{- else if eq $kafka.sasl.mechanism "OAUTHBEARER" }}
- name: KAFKA_SASL_TOKEN_FILE
  value: {{ $kafka.sasl.tokenFile | quote }}
{{- else }}
- name: KAFKA_SASL_USERNAME
  valueFrom: {secretKeyRef: {name: {{ $kafka.sasl.existingSecret }}, key: {{ $kafka.sasl.usernameKey }}}}
- name: KAFKA_SASL_PASSWORD
  valueFrom: {secretKeyRef: {name: {{ $kafka.sasl.existingSecret }}, key: {{ $kafka.sasl.passwordKey }}}}
{{- end }}
{{- end }}
{{- if hasSuffix "SSL" $kafka.securityProtocol }}
{{- if include "streamad.caSecret" . }}
- name: KAFKA_SSL_CAFILE
  value: /etc/kafka/ca/{{ $kafka.tls.caKey }}
{{- end }}
{{- if include "streamad.clientSecret" . }}
- name: KAFKA_SSL_CERTFILE
  value: /etc/kafka/client/{{ $kafka.tls.certKey }}
- name: KAFKA_SSL_KEYFILE
  value: /etc/kafka/client/{{ $kafka.tls.keyKey }}
{{- end }}
- name: KAFKA_SSL_CHECK_HOSTNAME
  value: {{ $kafka.tls.checkHostname | quote }}
{{- end }}
{{- end -}}

{{- define "streamad.caSecret" -}}
{{- if hasSuffix "SSL" .Values.kafka.securityProtocol -}}
{{- $own := and .Values.kafka.strimzi.user (printf "%s-cluster-ca-cert" .Values.kafka.strimzi.cluster) -}}
{{- .Values.kafka.tls.caSecret | default ($own | default "") -}}
{{- end -}}
{{- end -}}

{{- define "streamad.clientSecret" -}}
{{- if hasSuffix "SSL" .Values.kafka.securityProtocol -}}
{{- $strimzi := .Values.kafka.strimzi -}}
{{- $own := and $strimzi.user (eq $strimzi.authentication "tls") (include "streamad.fullname" .) -}}
{{- .Values.kafka.tls.clientSecret | default ($own | default "") -}}
{{- end -}}
{{- end -}}

{{/* Volumes and mounts that every container of a job has. Takes root, key, job, pod. */}}
{{- define "streamad.volumes" -}}
- name: config
  configMap:
    name: {{ include "streamad.configMapName" . }}
    items:
      - key: {{ dig "key" (printf "%s.yaml" (include "streamad.file" .)) (.job.existingConfigMap | default dict) }}
        path: {{ include "streamad.file" . }}.yaml
- name: tmp
  emptyDir: {sizeLimit: {{ .pod.tmpSizeLimit }}}
- name: kernels
  emptyDir: {sizeLimit: {{ .pod.kernelsSizeLimit }}}
{{- with include "streamad.caSecret" .root }}
- name: kafka-ca
  secret: {secretName: {{ . }}, defaultMode: 0440}
{{- end }}
{{- with include "streamad.clientSecret" .root }}
- name: kafka-client
  secret: {secretName: {{ . }}, defaultMode: 0440}
{{- end }}
{{- range .pod.secretFiles }}
- name: secret-{{ .secretName }}
  secret: {secretName: {{ .secretName }}, defaultMode: 0440}
{{- end }}
{{- with .job.artifact }}
- name: artifact
  {{- if .claimName }}
  persistentVolumeClaim: {claimName: {{ .claimName }}, readOnly: true}
  {{- else if .image }}
  image: {reference: {{ .image | quote }}, pullPolicy: {{ .pullPolicy | default "IfNotPresent" }}}
  {{- else }}
  configMap: {name: {{ .configMap }}}
  {{- end }}
{{- end }}
{{- with .job.snapshots }}
- name: snapshots
  persistentVolumeClaim:
    claimName: {{ .existingClaim | default (printf "%s-%s-snapshots" (include "streamad.fullname" $.root) $.key) }}
{{- end }}
{{- with .pod.extraVolumes }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{- define "streamad.mounts" -}}
- {name: config, mountPath: /etc/streamad, readOnly: true}
- {name: tmp, mountPath: /tmp}
- {name: kernels, mountPath: /var/cache/streamad}
{{- if include "streamad.caSecret" .root }}
- {name: kafka-ca, mountPath: /etc/kafka/ca, readOnly: true}
{{- end }}
{{- if include "streamad.clientSecret" .root }}
- {name: kafka-client, mountPath: /etc/kafka/client, readOnly: true}
{{- end }}
{{- range .pod.secretFiles }}
- {name: secret-{{ .secretName }}, mountPath: {{ .mountPath }}, readOnly: true}
{{- end }}
{{- with .job.artifact }}
- name: artifact
  mountPath: /var/lib/streamad/artifact
  readOnly: true
  {{- with .subPath }}
  subPath: {{ . }}
  {{- end }}
{{- end }}
{{- if .job.snapshots }}
- {name: snapshots, mountPath: /var/lib/streamad/snapshots}
{{- end }}
{{- with .pod.extraVolumeMounts }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{/* The environment of a container of a plain job. */}}
{{- define "streamad.env" -}}
{{ include "streamad.kafkaEnv" .root }}
- name: STREAMAD_MEMBER
  valueFrom: {fieldRef: {fieldPath: metadata.name}}
- name: STREAMAD_LOG_FORMAT
  value: json
- name: STREAMAD_LOG_LEVEL
  value: {{ .pod.logLevel }}
{{- with .pod.extraEnv }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{/* Labels by which a role's pods are selected. */}}
{{- define "streamad.roleSelector" -}}
{{ include "streamad.selector" .root }}
app.kubernetes.io/component: {{ .role }}
streamad.io/pipeline: {{ .key }}
{{- end -}}

{{/* The pod of a plain job. Takes root, key, job, role. */}}
{{- define "streamad.podTemplate" -}}
{{- $pod := include "streamad.podSettings" . | fromYaml -}}
{{- $all := merge (dict "pod" $pod) . -}}
metadata:
  labels:
    {{- include "streamad.roleSelector" . | nindent 4 }}
    {{- with .root.Values.commonLabels }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
    {{- with $pod.labels }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
  annotations:
    kubectl.kubernetes.io/default-container: streamad
    checksum/config: {{ include "streamad.checksum" . }}
    {{- with mergeOverwrite dict .root.Values.commonAnnotations ($pod.annotations | default dict) }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
spec:
  {{- include "streamad.pullSecrets" .root | nindent 2 }}
  serviceAccountName: {{ include "streamad.serviceAccountName" .root }}
  automountServiceAccountToken: {{ .root.Values.serviceAccount.automountToken }}
  enableServiceLinks: false
  terminationGracePeriodSeconds: {{ $pod.terminationGracePeriodSeconds | int }}
  securityContext:
    {{- toYaml $pod.podSecurityContext | nindent 4 }}
  {{- with $pod.priorityClassName }}
  priorityClassName: {{ . }}
  {{- end }}
  {{- with $pod.nodeSelector }}
  nodeSelector:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- with $pod.tolerations }}
  tolerations:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- with $pod.affinity }}
  affinity:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- with $pod.topologySpreadConstraints }}
  topologySpreadConstraints:
    {{- range . }}
    - {{- toYaml . | nindent 6 }}
      {{- if not .labelSelector }}
      labelSelector:
        matchLabels:
          {{- include "streamad.roleSelector" $ | nindent 10 }}
      {{- end }}
    {{- end }}
  {{- end }}
  {{- with $pod.initContainers }}
  initContainers:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  containers:
    - name: streamad
      image: {{ include "streamad.image" (dict "root" .root "image" .root.Values.image) }}
      imagePullPolicy: {{ .root.Values.image.pullPolicy }}
      {{- if .root.Values.diagnosticMode.enabled }}
      command: [sleep, infinity]
      {{- else }}
      args:
        - run
        {{- if eq .job.kind "alerting" }}
        - --alerting
        {{- end }}
        - /etc/streamad/{{ include "streamad.file" . }}.yaml
        - --role
        - {{ .role }}
        - --health-port
        - "8080"
      startupProbe:
        httpGet: {path: /healthz, port: health}
        {{- toYaml $pod.probes.startup | nindent 8 }}
      livenessProbe:
        httpGet: {path: /healthz, port: health}
        {{- toYaml $pod.probes.liveness | nindent 8 }}
      readinessProbe:
        httpGet: {path: /readyz, port: health}
        {{- toYaml $pod.probes.readiness | nindent 8 }}
      {{- end }}
      ports:
        - {name: health, containerPort: 8080, protocol: TCP}
      env:
        {{- include "streamad.env" $all | nindent 8 }}
      {{- with $pod.extraEnvFrom }}
      envFrom:
        {{- toYaml . | nindent 8 }}
      {{- end }}
      resources:
        {{- toYaml $pod.resources | nindent 8 }}
      securityContext:
        {{- toYaml $pod.securityContext | nindent 8 }}
      volumeMounts:
        {{- include "streamad.mounts" $all | nindent 8 }}
  volumes:
    {{- include "streamad.volumes" $all | nindent 4 }}
{{- end -}}
