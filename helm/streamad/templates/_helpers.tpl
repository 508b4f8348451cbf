{{/* The prefix of all names: unique to the release, so that two releases do not meet. */}}
{{- define "streamad.fullname" -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 30 | trimSuffix "-" -}}
{{- else -}}
{{- $name := default .Chart.Name .Values.nameOverride -}}
{{- if contains $name .Release.Name -}}
{{- .Release.Name | trunc 30 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name $name | trunc 30 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{/* Labels that select: they are immutable in a StatefulSet, so nothing versioned is among them. */}}
{{- define "streamad.selector" -}}
app.kubernetes.io/name: {{ default .Chart.Name .Values.nameOverride }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{- define "streamad.labels" -}}
{{ include "streamad.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
app.kubernetes.io/part-of: streamad
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
{{- with .Values.commonLabels }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{/* Metadata of an object. Takes root, name and, if it has them, component, labels, annotations. */}}
{{- define "streamad.metadata" -}}
name: {{ .name }}
namespace: {{ .namespace | default .root.Release.Namespace }}
labels:
  {{- include "streamad.labels" .root | nindent 2 }}
  {{- with .component }}
  app.kubernetes.io/component: {{ . }}
  {{- end }}
  {{- with .labels }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
{{- with mergeOverwrite dict (deepCopy .root.Values.commonAnnotations) (.annotations | default dict) }}
annotations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end -}}

{{- define "streamad.image" -}}
{{- $image := .image -}}
{{- $registry := .root.Values.global.imageRegistry | default $image.registry -}}
{{- $name := $image.repository -}}
{{- if $registry -}}{{- $name = printf "%s/%s" $registry $name -}}{{- end -}}
{{- if $image.digest -}}
{{- printf "%s@%s" $name $image.digest -}}
{{- else -}}
{{- printf "%s:%s" $name ($image.tag | default .root.Chart.AppVersion) -}}
{{- end -}}
{{- end -}}

{{- define "streamad.pullSecrets" -}}
{{- with .Values.global.imagePullSecrets }}
imagePullSecrets:
  {{- range . }}
  - name: {{ . }}
  {{- end }}
{{- end }}
{{- end -}}

{{- define "streamad.serviceAccountName" -}}
{{- if .Values.serviceAccount.create -}}
{{- .Values.serviceAccount.name | default (include "streamad.fullname" .) -}}
{{- else -}}
{{- .Values.serviceAccount.name | default "default" -}}
{{- end -}}
{{- end -}}

{{- define "streamad.flinkServiceAccountName" -}}
{{- .Values.flink.serviceAccountName | default (printf "%s-flink" (include "streamad.fullname" .)) -}}
{{- end -}}

{{/* Name of the object of a role: `<prefix>-<pipeline>-<role>`. Takes root, key, role. */}}
{{- define "streamad.roleName" -}}
{{- $name := printf "%s-%s-%s" (include "streamad.fullname" .root) .key .role -}}
{{- if gt (len $name) 52 -}}
{{- fail (printf "pipelines.%s: the name %s has %d characters, at most 52 are possible (Kubernetes adds a hash and a number); shorten the pipeline's key, or set fullnameOverride" .key $name (len $name)) -}}
{{- end -}}
{{- $name -}}
{{- end -}}

{{/* The file of a job: "pipeline" or "alerting". */}}
{{- define "streamad.file" -}}
{{- ternary "alerting" "pipeline" (eq .job.kind "alerting") -}}
{{- end -}}

{{- define "streamad.configMapName" -}}
{{- if .job.existingConfigMap -}}
{{- .job.existingConfigMap.name -}}
{{- else -}}
{{- printf "%s-%s" (include "streamad.fullname" .root) .key -}}
{{- end -}}
{{- end -}}

{{/* The configuration as it is rendered: what is inline, and where snapshots lie on a volume. */}}
{{- define "streamad.config" -}}
{{- $config := deepCopy .job.config -}}
{{- if and .job.snapshots (not (dig "delivery" "snapshot_store" "" $config)) -}}
{{- $config = mergeOverwrite $config (dict "delivery" (dict "snapshot_store" "/var/lib/streamad/snapshots")) -}}
{{- end -}}
{{- toYaml $config -}}
{{- end -}}

{{/* What changes when the configuration does, so that pods are replaced. */}}
{{- define "streamad.checksum" -}}
{{- if .job.existingConfigMap -}}
{{- $found := lookup "v1" "ConfigMap" .root.Release.Namespace .job.existingConfigMap.name -}}
{{- $data := dig "data" dict ($found | default dict) -}}
{{- if .job.hotReload -}}
{{- $key := .job.existingConfigMap.key | default (printf "%s.yaml" (include "streamad.file" .)) -}}
{{- $data = merge (dict $key (include "streamad.settled" (dict "root" .root "job" .job "text" (get $data $key)))) $data -}}
{{- end -}}
{{- $data | toJson | sha256sum -}}
{{- else if .job.hotReload -}}
{{- include "streamad.settled" (dict "root" .root "job" .job "text" (include "streamad.config" .)) | sha256sum -}}
{{- else -}}
{{- include "streamad.config" . | sha256sum -}}
{{- end -}}
{{- end -}}

{{/* The text of a file without the settings that a running job takes over. Takes root, job, text. */}}
{{- define "streamad.settled" -}}
{{- $config := fromYaml .text -}}
{{- $live := .root.Files.Get "files/live.yaml" | fromYaml -}}
{{- range $path, $how := get $live (include "streamad.file" .) -}}
{{- include "streamad.leaveOut" (dict "at" $config "parts" (splitList "." $path) "how" $how) -}}
{{- end -}}
{{- toYaml $config -}}
{{- end -}}

{{/* Take a setting out of a tree, or only its value, and sections that are empty then. Takes at, parts, how. */}}
{{- define "streamad.leaveOut" -}}
{{- $at := .at -}}
{{- $how := .how -}}
{{- $name := first .parts -}}
{{- $rest := rest .parts -}}
{{- if and (eq $name "*") (kindIs "slice" $at) -}}
{{- range $at -}}{{- include "streamad.leaveOut" (dict "at" . "parts" $rest "how" $how) -}}{{- end -}}
{{- else if and (kindIs "map" $at) (hasKey $at $name) -}}
{{- if $rest -}}
{{- include "streamad.leaveOut" (dict "at" (get $at $name) "parts" $rest "how" $how) -}}
{{- if and (kindIs "map" (get $at $name)) (not (get $at $name)) -}}{{- $_ := unset $at $name -}}{{- end -}}
{{- else if eq $how "value" -}}
{{- if not (kindIs "invalid" (get $at $name)) -}}{{- $_ := set $at $name "given" -}}{{- end -}}
{{- else -}}
{{- $_ := unset $at $name -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{/* The settings of a role's pods: defaults, then the pipeline's, then the role's. */}}
{{- define "streamad.podSettings" -}}
{{- $role := get (.job.roles | default dict) .role | default dict -}}
{{- mergeOverwrite (deepCopy .root.Values.defaults) (deepCopy (.job.pod | default dict)) (deepCopy ($role.pod | default dict)) | toYaml -}}
{{- end -}}

{{/* The input topics of an inline pipeline file, as a list. */}}
{{- define "streamad.inputTopics" -}}
{{- $topics := dig "config" "input" "topics" list .job -}}
{{- if kindIs "string" $topics -}}{{- $topics = list $topics -}}{{- end -}}
{{- toJson $topics -}}
{{- end -}}
