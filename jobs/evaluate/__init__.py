"""Detectors over many labelled series, beside the simple ones: ``streamad evaluate``."""
