"""Detectors of edges and of graphs."""
