"""Synthetic series with labelled anomalies and a clean twin each, for pretraining detectors.

The generator of TimeRCD (Lan et al., arXiv 2509.21190), rebuilt from its published taxonomy and
parameter ranges: trend + season + noise, variates joined by a graph of lagged effects, 21 kinds of
local and 20 of seasonal anomalies, labels per sample and variate. `draw_sample` makes one series,
`Batches` streams normalised training batches from background workers; both are functions of their
seeds alone.
"""

from streamad.training.corpus.batches import Batch, Batches, BatchPlan, make_batch
from streamad.training.corpus.config import TELEMETRY, CorpusConfig
from streamad.training.corpus.local import LOCAL
from streamad.training.corpus.sample import KINDS, Event, Sample, draw_sample
from streamad.training.corpus.seasonal import SEASONAL

__all__ = [
    "KINDS",
    "LOCAL",
    "SEASONAL",
    "TELEMETRY",
    "Batch",
    "BatchPlan",
    "Batches",
    "CorpusConfig",
    "Event",
    "Sample",
    "draw_sample",
    "make_batch",
]
