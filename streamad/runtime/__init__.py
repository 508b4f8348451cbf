"""How the two stages are driven: in one process, by Kafka, by Flink; none of it decides."""
