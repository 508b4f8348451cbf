"""Loaded once by the server that test processes are forked from: compiled kernels load slowly.

No polars here: its threads would not live on in a fork.
"""

from __future__ import annotations

import logging

import numpy as np

import jobs.plain.run  # noqa: F401 - what the processes will run
from connectors.kafka.columns import Block
from jobs.build import build_detect
from streamad.config import PipelineConfig
from streamad.windows import keys

_CONFIG = {"name": "warm", "detector": "robust_z", "windows": {"size": 16}}


def warm() -> None:
    Block.read(bytes(7), 1, (0, 0), 0, by_broker=False)
    operator = build_detect(PipelineConfig.model_validate(_CONFIG))
    state = operator.new_state()
    hashes = np.arange(4, dtype=np.uint64)
    table = state.keys._slots, state.keys._first, state.keys._second
    codes, missing = keys._probe(hashes, hashes, *table)
    keys._put_missing((hashes, hashes), missing, np.arange(4, dtype=np.int32), codes, table)
    state.waiting.state.reserve(1)
    state.waiting.state["selected"][0] = True
    one = np.zeros(1, np.int32), np.ones(1, np.int64), np.ones((1, 1))
    state.waiting.take(*one, 1)
    state.waiting.leave(one[0])
    n = 100
    state.windows.state.reserve(1)
    state.episodes.state.reserve(1)
    codes, late = np.zeros(n, np.int32), np.zeros(n, np.bool_)
    values = np.random.default_rng(0).normal(size=(n, 1))
    for block in state.windows.ingest(codes, np.arange(n) * 1000, values, late):
        looks = operator.detector.looks(block.values)
        state.episodes.begin([0])
        none = np.zeros(len(block), np.bool_)
        state.episodes.judge(block.codes, looks, block.start_ms, block.end_ms, none)


warm()

# What a failing test shows of its processes: who joined, what was placed, which commit was put off.
logging.basicConfig(format="%(asctime)s %(process)d %(name)s %(levelname)s %(message)s")
for name in ("streamad", "jobs", "connectors", "kafka.coordinator"):
    logging.getLogger(name).setLevel(logging.INFO)
