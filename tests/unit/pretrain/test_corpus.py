"""The synthetic corpus: labels sit where the anomaly is, and a seed says it all."""

from __future__ import annotations

import numpy as np
import pytest

from streamad.training.corpus import (
    KINDS,
    LOCAL,
    SEASONAL,
    TELEMETRY,
    Batches,
    BatchPlan,
    draw_sample,
    make_batch,
)
from streamad.training.corpus.graph import Graph

PLAN = BatchPlan(samples=4_096, length=256, corpus=TELEMETRY)


def drawn(kind: str, attempt: int):
    rng = np.random.default_rng([KINDS.index(kind), attempt])
    return draw_sample(TELEMETRY, rng, length=400, kinds=(kind,))


def test_all_published_kinds_are_there():
    assert (len(LOCAL), len(SEASONAL)) == (21, 20)


@pytest.mark.parametrize("kind", KINDS)
def test_a_kind_changes_the_series_inside_its_label_and_nowhere_else(kind: str):
    found = [sample for sample in (drawn(kind, i) for i in range(12)) if sample.events]
    assert len(found) >= 4, "hardly ever drawn"
    for sample in found:
        (event,) = sample.events
        assert event.kind == kind
        gap = np.abs(sample.series - sample.normal)[:, 0]
        label = sample.labels[:, 0]
        assert np.isfinite(sample.series).all()
        assert np.array_equal(np.flatnonzero(label), np.arange(event.start, event.stop))
        assert not gap[~label].any()
        # It can be seen, and not at one end of a long label alone.
        assert gap.max() > 0.1 * sample.normal.std()
        lasting = kind in LOCAL and LOCAL[kind].lasting
        changed = np.flatnonzero(gap > 0.04 * gap.max())
        assert changed[0] - event.start <= 1
        assert event.stop - 1 - changed[-1] <= 1 or lasting
        assert (event.stop == 400) if lasting else label.mean() <= 0.5


def test_a_sample_is_a_function_of_its_seed():
    one, same, other = (
        draw_sample(TELEMETRY, np.random.default_rng(s), length=300, n_variates=3)
        for s in (1, 1, 2)
    )
    assert np.array_equal(one.series, same.series)
    assert np.array_equal(one.labels, same.labels)
    assert one.events == same.events
    assert not np.array_equal(one.series, other.series)


def test_effects_reach_descendants_after_their_lag_and_are_labelled_there():
    graph = Graph(
        source=np.array([0, 1]),
        target=np.array([1, 2]),
        lag=np.array([5, 7]),
        gain=np.array([1.0, -2.0]),
        keep=np.zeros(3),
        share=np.array([0.0, 0.5, 0.5]),
    )
    own = np.zeros((40, 3))
    own[10, 0] = 8.0
    joined = graph.joined(own)
    assert [np.flatnonzero(joined[:, v]).tolist() for v in range(3)] == [[10], [15], [22]]
    assert (joined[15, 1], joined[22, 2]) == (4.0, -4.0)

    n_spread = 0
    for seed in range(60):
        sample = draw_sample(TELEMETRY, np.random.default_rng(seed), length=300, n_variates=6)
        gap = np.abs(sample.series - sample.normal)
        scale = sample.normal.std(axis=0) + 1e-6
        assert (np.where(sample.labels, 0, gap).max(axis=0) < 0.9 * scale + 0.1).all()
        named = {event.variate for event in sample.events}
        n_spread += len(set(np.flatnonzero(sample.labels.any(axis=0)).tolist()) - named) > 0
    assert n_spread > 3, "no endogenous anomaly ever reached another variate"


def test_a_batch_is_normalised_padded_and_the_same_whoever_makes_it():
    with Batches(PLAN, first=3, workers=0) as ahead:
        batch, after = ahead.take(), ahead.take()
    again = make_batch(PLAN, 3)
    assert np.array_equal(batch.series, again.series)
    assert not np.array_equal(batch.series.shape, after.series.shape) or not np.array_equal(
        batch.series, after.series
    )
    assert batch.series.dtype == np.float32
    assert np.isfinite(batch.series).all()
    gone = ~batch.present
    assert gone.any()
    assert not batch.series[gone].any()
    assert not batch.labels[gone].any()
    assert np.median(np.abs(batch.series).max(axis=1)) < 10


def test_shares_of_anomalies_are_those_of_the_published_corpus():
    n, share = 0, []
    for i in range(8):
        labels = make_batch(PLAN, i).labels.any(axis=2)
        n += int((~labels.any(axis=1)).sum())
        share += labels.mean(axis=1).tolist()
    # Real samples of its family: 47 % without an anomaly, 7.8 % of samples anomalous.
    assert 0.2 < n / len(share) < 0.55
    assert 0.04 < np.mean(share) < 0.2
