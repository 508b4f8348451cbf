{{/*
The topics that a job writes, as jobs/plain/topics.py and jobs/plain/page.py make them; a test
compares the two. Returns a JSON list of topic, partitions, config. Takes root, key, job.
*/}}
{{- define "streamad.topics" -}}
{{- $day := 86400000 -}}
{{- $week := dict "retention.ms" (mul 7 $day | toString) -}}
{{- $month := dict "retention.ms" (mul 35 $day | toString) -}}
{{- $both := dict "cleanup.policy" "compact,delete" -}}
{{- $compacted := dict "cleanup.policy" "compact" "segment.ms" "600000" "segment.bytes" (mul 64 1048576 | toString) "min.cleanable.dirty.ratio" "0.1" "delete.retention.ms" "3600000" -}}
{{- $config := .job.config -}}
{{- $name := $config.name -}}
{{- $n := .job.partitions | int -}}
{{- $desk := eq .job.kind "alerting" | ternary $n 1 -}}
{{- $dead := dig "output" "dead_letters" "{topic}.dlq" $config -}}
{{- $named := printf "streamad.%s.%%s" $name -}}
{{- $topics := list -}}
{{- $findings := list -}}
{{- if eq .job.kind "alerting" -}}
{{- $findings = kindIs "string" $config.findings | ternary (list $config.findings) $config.findings -}}
{{- else -}}
{{- $own := dig "output" "findings" (printf $named "findings") $config -}}
{{- $findings = list $own -}}
{{- $topics = append $topics (dict "topic" $own "partitions" 1 "config" $week) -}}
{{- $topics = append $topics (dict "topic" (dig "output" "scores" (printf $named "scores") $config) "partitions" $n "config" $week) -}}
{{- if eq (include "streamad.config" . | fromYaml | dig "delivery" "snapshot_store" "topic") "topic" -}}
{{- $topics = append $topics (dict "topic" (dig "output" "state" (printf $named "state") $config) "partitions" $n "config" $compacted) -}}
{{- end -}}
{{- $inputs := include "streamad.inputTopics" . | fromJsonArray -}}
{{- if dig "input" "repartition" false $config -}}
{{- $topics = append $topics (dict "topic" (printf $named "rekeyed") "partitions" $n "config" (dict "retention.ms" ($day | toString))) -}}
{{- $inputs = append $inputs (printf $named "rekeyed") -}}
{{- end -}}
{{- range $inputs -}}
{{- $topics = append $topics (dict "topic" (replace "{topic}" . $dead) "partitions" 1 "config" $week) -}}
{{- if eq (dig "series" "late" "drop" $config) "topic" -}}
{{- $topics = append $topics (dict "topic" (replace "{topic}" . (dig "output" "late" "{topic}.late" $config)) "partitions" 1 "config" $week) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- $incidents := dig "output" "incidents" (printf $named "incidents") $config -}}
{{- $feedback := dig "feedback" (printf $named "feedback") $config -}}
{{- $topics = append $topics (dict "topic" (dig "output" "alerts" (printf $named "alerts") $config) "partitions" 1 "config" (merge (dict) $both $week)) -}}
{{- $topics = append $topics (dict "topic" $incidents "partitions" 1 "config" (merge (dict) $both $month)) -}}
{{- $topics = append $topics (dict "topic" $feedback "partitions" $desk "config" $month) -}}
{{- $topics = append $topics (dict "topic" (printf $named "alert-state") "partitions" $desk "config" $compacted) -}}
{{- range append $findings $feedback -}}
{{- $topics = append $topics (dict "topic" (replace "{topic}" . $dead) "partitions" 1 "config" $week) -}}
{{- end -}}
{{- if and (eq .job.kind "alerting") (dig "pagers" list $config) -}}
{{- $topics = append $topics (dict "topic" (printf $named "page-state") "partitions" 1 "config" $compacted) -}}
{{- $topics = append $topics (dict "topic" (replace "{topic}" $incidents $dead) "partitions" 1 "config" $week) -}}
{{- end -}}
{{- $tests := .root.Values.tests -}}
{{- if and $tests.enabled $tests.roundTrip -}}
{{- $topics = append $topics (dict "topic" (printf $named "check") "partitions" 1 "config" (dict "retention.ms" "3600000" "cleanup.policy" "delete")) -}}
{{- end -}}
{{- toJson $topics -}}
{{- end -}}
