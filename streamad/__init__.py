"""Detect anomalies in streams: records, windows, detectors, scoring, operators, runtimes."""
