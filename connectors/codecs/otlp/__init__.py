"""OpenTelemetry metrics as the collector writes them to Kafka: OTLP in protobuf or JSON."""
