"""Shards on an engine's keyed state: Flink's, or one in memory."""
