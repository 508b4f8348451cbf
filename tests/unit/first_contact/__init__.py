"""Inputs as people bring them, one test a kind: read and judged, or a line that helps."""
