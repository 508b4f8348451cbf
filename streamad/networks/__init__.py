"""Torch modules that are forward and nothing else."""
