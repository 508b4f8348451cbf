{{/*
A kind of job is one template here, `streamad.kind.<kind>`, and one branch of values.schema.json
(tests/docs/chart.py). It takes root, key and job, and renders all objects of that job.
*/}}

{{- define "streamad.kind.plain" -}}
{{- include "streamad.role" (merge (dict "role" "detect") .) }}
{{- if dig "roles" "alert" "enabled" true .job }}
{{ include "streamad.role" (merge (dict "role" "alert") .) }}
{{- end }}
{{- end -}}

{{- define "streamad.kind.alerting" -}}
{{- include "streamad.role" (merge (dict "role" "alert") .) }}
{{- if dig "roles" "page" "enabled" (not (empty (dig "config" "pagers" list .job))) .job }}
{{ include "streamad.role" (merge (dict "role" "page") .) }}
{{- end }}
{{- end -}}

{{- define "streamad.kind.flink" -}}
{{- include "streamad.flinkDeployment" . }}
{{- if dig "config" "input" "repartition" false .job }}
{{ include "streamad.role" (merge (dict "role" "rekey") .) }}
{{- end }}
{{- if dig "roles" "alert" "enabled" true .job }}
{{ include "streamad.role" (merge (dict "role" "alert") .) }}
{{- end }}
{{- end -}}
