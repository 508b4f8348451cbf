"""Pipelines as plain processes."""
