"""The two stages, pure: detect (one key at a time) and alert (one group at a time)."""
