"""``streamad init``: a first pipeline for data that is there, with the reasons as comments."""

from jobs.init.command import init_pipeline

__all__ = ["init_pipeline"]
