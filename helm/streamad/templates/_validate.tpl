{{/* What a schema cannot state; every message names the value, and what to write instead. */}}
{{- define "streamad.validate" -}}
{{- include "streamad.deprecations" . -}}
{{- $kafka := .Values.kafka -}}
{{- if not $kafka.bootstrapServers -}}
{{- fail "kafka.bootstrapServers is empty; set the brokers as host:port,host:port" -}}
{{- end -}}
{{- if and (hasPrefix "SASL" $kafka.securityProtocol) (not $kafka.strimzi.user) -}}
{{- if not $kafka.sasl.mechanism -}}
{{- fail (printf "kafka.securityProtocol is %s and kafka.sasl.mechanism is empty; set PLAIN, SCRAM-SHA-256, SCRAM-SHA-512 or OAUTHBEARER" $kafka.securityProtocol) -}}
{{- end -}}
{{- if and (ne $kafka.sasl.mechanism "OAUTHBEARER") (not $kafka.sasl.existingSecret) -}}
{{- fail "kafka.sasl.existingSecret is empty; name a Secret with the user and the password" -}}
{{- end -}}
{{- if and (eq $kafka.sasl.mechanism "OAUTHBEARER") (not $kafka.sasl.tokenFile) -}}
{{- fail "kafka.sasl.tokenFile is empty; OAUTHBEARER needs the path of a file with the token (defaults.extraVolumes mounts it)" -}}
{{- end -}}
{{- end -}}
{{- if and (or $kafka.strimzi.topics $kafka.strimzi.user) (not $kafka.strimzi.cluster) -}}
{{- fail "kafka.strimzi.cluster is empty; name the Strimzi Kafka resource that topics and the user belong to" -}}
{{- end -}}
{{- if $kafka.strimzi.user -}}
{{- if and $kafka.strimzi.namespace (ne $kafka.strimzi.namespace .Release.Namespace) -}}
{{- fail (printf "kafka.strimzi.user makes a Secret in namespace %s, and pods of namespace %s cannot read it; install the release there, or set kafka.strimzi.user to false and kafka.sasl.existingSecret to a copy" $kafka.strimzi.namespace .Release.Namespace) -}}
{{- end -}}
{{- $wanted := ternary "SSL" "SASL_SSL or SASL_PLAINTEXT" (eq $kafka.strimzi.authentication "tls") -}}
{{- if ne (hasPrefix "SASL" $kafka.securityProtocol) (ne $kafka.strimzi.authentication "tls") -}}
{{- fail (printf "kafka.strimzi.authentication is %s and kafka.securityProtocol is %s; set it to %s" $kafka.strimzi.authentication $kafka.securityProtocol $wanted) -}}
{{- end -}}
{{- end -}}
{{- if and .Values.monitoring.podMonitor.enabled .Values.monitoring.serviceMonitor.enabled -}}
{{- fail "monitoring.podMonitor and monitoring.serviceMonitor are both enabled, which counts everything twice; enable one of them" -}}
{{- end -}}
{{- range $key, $job := .Values.pipelines -}}
{{- if eq (empty $job.config) (empty $job.existingConfigMap) -}}
{{- fail (printf "pipelines.%s: expected config (the file's content) or existingConfigMap, one of them" $key) -}}
{{- end -}}
{{- $replicas := dig "roles" "detect" "replicas" 1 $job | int -}}
{{- $scaled := dig "roles" "detect" "autoscaling" "enabled" false $job -}}
{{- if and $job.snapshots (eq (dig "accessMode" "ReadWriteMany" ($job.snapshots | default dict)) "ReadWriteOnce") (or $scaled (gt $replicas 1)) -}}
{{- fail (printf "pipelines.%s.snapshots.accessMode is ReadWriteOnce and there is more than one member; use ReadWriteMany, or keep snapshots on the topic" $key) -}}
{{- end -}}
{{- if and (or $scaled $kafka.strimzi.topics) (not $job.partitions) -}}
{{- fail (printf "pipelines.%s.partitions is not set; set the partitions of the input (of the findings, for an alerting file): autoscaling and Strimzi topics need it" $key) -}}
{{- end -}}
{{- if and $kafka.strimzi.topics $job.existingConfigMap -}}
{{- fail (printf "pipelines.%s: kafka.strimzi.topics makes topics from the pipeline file, and the chart does not read the ConfigMap %s; use config, or set kafka.strimzi.topics to false" $key $job.existingConfigMap.name) -}}
{{- end -}}
{{- if and $scaled (hasKey (dig "roles" "detect" dict $job) "replicas") -}}
{{- fail (printf "pipelines.%s.roles.detect has both replicas and autoscaling; leave replicas out, KEDA sets it" $key) -}}
{{- end -}}
{{- if and (eq $job.kind "flink") $job.config -}}
{{- $parallelism := dig "flink" "parallelism" 1 $job.config | int -}}
{{- if and $job.flink.parallelism (ne ($job.flink.parallelism | int) $parallelism) -}}
{{- fail (printf "pipelines.%s.flink.parallelism is %d and config.flink.parallelism is %d; set config.flink.parallelism alone" $key ($job.flink.parallelism | int) $parallelism) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{/* Keys that have another name, and those that other charts use: the schema lets them through to here. */}}
{{- define "streamad.deprecations" -}}
{{- range $old, $new := .Files.Get "files/moved.yaml" | fromYaml -}}
{{- $node := $.Values -}}
{{- $found := true -}}
{{- range splitList "." $old -}}
{{- if and $found (kindIs "map" $node) (hasKey $node .) -}}
{{- $node = get $node . -}}
{{- else -}}
{{- $found = false -}}
{{- end -}}
{{- end -}}
{{- if $found -}}
{{- fail (printf "%s is not a key of this chart; use %s" $old $new) -}}
{{- end -}}
{{- end -}}
{{- end -}}
