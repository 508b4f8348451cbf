"""Recorded input: files and topic ranges, judged by the live code."""
