"""Findings become alerts."""
