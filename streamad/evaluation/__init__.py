"""Measures of a detector's quality: how well its scores find labelled anomalies."""
