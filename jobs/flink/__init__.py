"""Pipelines on Apache Flink."""
