"""Detectors of categorical events."""
