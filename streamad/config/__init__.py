"""The configuration of a pipeline: its settings, and how they are read from a file."""

from streamad.config.pipeline import (
    DECISION_SETTINGS,
    LIGHT_SETTINGS,
    SERIES_SETTINGS,
    PipelineConfig,
    binds_state,
    changes_decisions,
)
from streamad.config.reading import load_pipeline, parse_config, parse_pipeline, read_config

__all__ = [
    "DECISION_SETTINGS",
    "LIGHT_SETTINGS",
    "SERIES_SETTINGS",
    "PipelineConfig",
    "binds_state",
    "changes_decisions",
    "load_pipeline",
    "parse_config",
    "parse_pipeline",
    "read_config",
]
