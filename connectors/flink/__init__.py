"""Flink's REST interface, and its tables."""
