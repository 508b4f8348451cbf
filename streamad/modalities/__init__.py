"""The table of modalities: everything that differs between kinds of input is behind it."""

from __future__ import annotations

from typing import Any

from streamad.config import PipelineConfig
from streamad.detectors.contract import ItemDetector
from streamad.modalities.base import Modality
from streamad.registry import Registry

__all__ = ["MODALITIES", "Modality", "modality_of"]

MODALITIES = Registry(
    "modality",
    "streamad.modalities",
    {
        "signals": "streamad.modalities.signals:Signals",
        "events": "streamad.modalities.items:Events",
        "edges": "streamad.modalities.items:Edges",
        "graphs": "streamad.modalities.graphs:GraphsOfEdges",
    },
)


def modality_of(config: PipelineConfig, detector: ItemDetector[Any]) -> Modality:
    """Return the modality that a detector judges, for a pipeline."""
    made: Modality = MODALITIES.load(detector.info.modality)(config, detector)
    return made
