"""Pretraining networks on synthetic series, and a look at these series."""
