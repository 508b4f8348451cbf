{{/* A FlinkDeployment for the Flink Kubernetes operator. Takes root, key, job. */}}
{{- define "streamad.flinkDeployment" -}}
{{- $flink := .job.flink -}}
{{- $pod := include "streamad.podSettings" (merge (dict "role" "flink") .) | fromYaml -}}
{{- $all := merge (dict "pod" $pod) . -}}
{{- $name := include "streamad.roleName" (merge (dict "role" "flink") .) -}}
{{- $state := trimSuffix "/" $flink.stateUrl -}}
{{- $slots := $flink.taskManager.slots | default 1 | int -}}
{{- $parallelism := dig "config" "flink" "parallelism" ($flink.parallelism | default 1) .job | int -}}
{{- $options := dict
  "taskmanager.numberOfTaskSlots" ($slots | toString)
  "execution.checkpointing.dir" (printf "%s/checkpoints" $state)
  "execution.checkpointing.savepoint-dir" (printf "%s/savepoints" $state)
  "execution.checkpointing.externalized-checkpoint-retention" "RETAIN_ON_CANCELLATION"
  "high-availability.type" "kubernetes"
  "high-availability.storageDir" (printf "%s/ha" $state)
  "restart-strategy.type" "exponential-delay"
  "restart-strategy.exponential-delay.initial-backoff" "1 s"
  "restart-strategy.exponential-delay.max-backoff" "30 s"
  "taskmanager.memory.managed.consumer-weights" "STATE_BACKEND:60,PYTHON:40"
  "python.executable" "/opt/streamad/venv/bin/python3"
  "python.client.executable" "/opt/streamad/venv/bin/python3"
  "metrics.reporter.prom.factory.class" "org.apache.flink.metrics.prometheus.PrometheusReporterFactory"
  "metrics.reporter.prom.port" "9249"
  "kubernetes.entry.path" "/opt/streamad/start"
-}}
---
apiVersion: flink.apache.org/v1beta1
kind: FlinkDeployment
metadata:
  {{- include "streamad.metadata" (dict "root" .root "name" $name "component" "flink" "labels" (dict "streamad.io/pipeline" .key)) | nindent 2 }}
spec:
  image: {{ include "streamad.image" (dict "root" .root "image" .root.Values.flinkImage) }}
  imagePullPolicy: {{ .root.Values.flinkImage.pullPolicy }}
  flinkVersion: {{ $flink.version | default "v2_2" }}
  mode: native
  serviceAccount: {{ include "streamad.flinkServiceAccountName" .root }}
  flinkConfiguration:
    {{- toYaml (mergeOverwrite $options ($flink.configuration | default dict)) | nindent 4 }}
  podTemplate:
    apiVersion: v1
    kind: Pod
    metadata:
      labels:
        {{- include "streamad.roleSelector" (merge (dict "role" "flink") .) | nindent 8 }}
        {{- with .root.Values.commonLabels }}
        {{- toYaml . | nindent 8 }}
        {{- end }}
        {{- with $pod.labels }}
        {{- toYaml . | nindent 8 }}
        {{- end }}
      annotations:
        checksum/config: {{ include "streamad.checksum" . }}
        {{- with $pod.annotations }}
        {{- toYaml . | nindent 8 }}
        {{- end }}
    spec:
      {{- include "streamad.pullSecrets" .root | nindent 6 }}
      enableServiceLinks: false
      terminationGracePeriodSeconds: {{ $pod.terminationGracePeriodSeconds | int }}
      securityContext:
        {{- toYaml (mergeOverwrite (deepCopy $pod.podSecurityContext) (dict "runAsUser" 9999 "runAsGroup" 9999 "fsGroup" 9999)) | nindent 8 }}
      {{- with $pod.priorityClassName }}
      priorityClassName: {{ . }}
      {{- end }}
      {{- with $pod.nodeSelector }}
      nodeSelector:
        {{- toYaml . | nindent 8 }}
      {{- end }}
      {{- with $pod.tolerations }}
      tolerations:
        {{- toYaml . | nindent 8 }}
      {{- end }}
      {{- with $pod.affinity }}
      affinity:
        {{- toYaml . | nindent 8 }}
      {{- end }}
      {{- with $pod.initContainers }}
      initContainers:
        {{- toYaml . | nindent 8 }}
      {{- end }}
      containers:
        - name: flink-main-container
          ports:
            - {name: metrics, containerPort: 9249, protocol: TCP}
          env:
            {{- include "streamad.kafkaEnv" .root | nindent 12 }}
            - name: STREAMAD_LOG_LEVEL
              value: {{ $pod.logLevel }}
            {{- with $pod.extraEnv }}
            {{- toYaml . | nindent 12 }}
            {{- end }}
          {{- with $pod.extraEnvFrom }}
          envFrom:
            {{- toYaml . | nindent 12 }}
          {{- end }}
          securityContext:
            {{- toYaml $pod.securityContext | nindent 12 }}
          volumeMounts:
            {{- include "streamad.mounts" $all | nindent 12 }}
            - {name: flink-log, mountPath: /opt/flink/log}
      volumes:
        {{- include "streamad.volumes" $all | nindent 8 }}
        - name: flink-log
          emptyDir: {sizeLimit: 1Gi}
  jobManager:
    replicas: {{ $flink.jobManager.replicas | default 1 | int }}
    resource:
      {{- toYaml $flink.jobManager.resource | nindent 6 }}
  taskManager:
    resource:
      {{- toYaml $flink.taskManager.resource | nindent 6 }}
  job:
    jarURI: {{ $flink.jarUri | default "local:///opt/flink/opt/flink-python-2.2.1.jar" }}
    entryClass: org.apache.flink.client.python.PythonDriver
    args: ["-pyclientexec", "/opt/streamad/venv/bin/python3", "-pym", "jobs.flink.job", "/etc/streamad/pipeline.yaml"]
    parallelism: {{ $parallelism }}
    # A savepoint is taken before each change of this object, and the new job starts from it.
    upgradeMode: {{ $flink.upgradeMode | default "savepoint" }}
    state: {{ $flink.state | default "running" }}
    {{- with $flink.initialSavepointPath }}
    initialSavepointPath: {{ . }}
    {{- end }}
    {{- with $flink.savepointRedeployNonce }}
    savepointRedeployNonce: {{ . | int }}
    {{- end }}
  {{- with $flink.restartNonce }}
  restartNonce: {{ . | int }}
  {{- end }}
{{- end -}}
