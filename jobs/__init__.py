"""Composition: the one place that reads the environment, builds the parts and runs them."""
