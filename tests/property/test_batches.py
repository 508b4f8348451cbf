"""Replay equals live: the same records give the same scores and findings, however they are cut."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streamad.config import parse_pipeline
from streamad.detectors import DETECTORS
from streamad.operators.detect import DetectOperator
from streamad.testing.batches import make_columns

N = 600


def records(seed):
    rng = np.random.default_rng(seed)
    keys = [f"k{k}" for k in rng.integers(0, 3, N)]
    times = 1_000 + 250 * np.arange(N) - rng.integers(0, 900, N)
    values = np.sin(np.arange(N) / 9) + rng.normal(0, 0.1, N)
    values[rng.integers(300, N, 4)] += 8
    return keys, times, values


def run(name, data, cuts):
    config = parse_pipeline(
        f"name: t\ndetector: {name}\nwindows: {{size: 32}}\n"
        "series: {silence: 4s, lateness: 500ms}\nscoring: {min_windows: 8}"
    )
    detector = DETECTORS.load(name)(size=32)
    op = DetectOperator(config, detector)
    state = op.new_state()
    keys, times, values = data
    findings, scores = [], {}
    bounds = [0, *sorted(cuts), N]
    for start, stop in pairwise(bounds):
        out = op.process(
            state, make_columns(keys[start:stop], times[start:stop], values[start:stop])
        )
        findings += [(f.id, f.sequence, f.state, f.score, f.p_value) for f in out.findings]
        for log in out.scores:
            for key, end, score, p in zip(
                log.keys.to_list(), log.end_ms, log.score, log.p_value, strict=True
            ):
                scores[key, int(end)] = (score.tobytes(), p.tobytes())
    return set(findings), scores


@pytest.mark.parametrize("name", ["robust_z", "knn", "auto"])
@settings(max_examples=10, deadline=None)
@given(cuts=st.lists(st.integers(0, N), max_size=20), seed=st.integers(0, 3))
def test_batches_do_not_matter(name, cuts, seed):
    data = records(seed)
    assert run(name, data, cuts) == run(name, data, [])
