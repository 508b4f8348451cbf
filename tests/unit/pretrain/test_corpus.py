"""The synthetic corpus: labels sit where the anomaly is, and a seed says it all."""

from __future__ import annotations

from dataclasses import replace

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
        assert label.mean() <= 0.5 or (lasting and label[-1])


def test_a_level_that_stays_is_labelled_to_the_end_as_published_or_is_the_new_normal():
    published, telemetry = (replace(TELEMETRY, stays=share) for share in (1.0, 0.0))
    n_compared = 0
    for seed in range(20):
        one, other = (
            draw_sample(
                config,
                np.random.default_rng(seed),
                length=400,
                kinds=("increase_after_upward_spike",),
            )
            for config in (published, telemetry)
        )
        if not one.events or not other.events:
            continue
        n_compared += 1
        assert np.array_equal(one.series, other.series)
        assert one.labels[-1]
        event = other.events[0]
        assert event.stop < 400
        assert not other.labels[event.stop :].any()
        assert np.array_equal(other.normal[event.stop :], other.series[event.stop :])
        # The level of the twin is another one than before.
        gone = (other.normal - one.normal)[:, 0]
        assert not gone[: event.stop].any()
        assert np.ptp(gone[event.stop :]) < 1e-4
        assert gone[-1] > 0.1 * one.normal.std()
    assert n_compared >= 10


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


def test_some_series_are_short_and_some_end_amid_an_event():
    whole = replace(PLAN, full=1.0, widths=(1,), width_share=(1.0,))
    open_ends = []
    for cut in (0.0, 1.0):
        batches = [make_batch(replace(whole, cut=cut), i) for i in range(24)]
        open_ends.append(sum(int(batch.labels[:, -1].sum()) for batch in batches))
    # Levels that stay reach the end in either.
    assert open_ends[1] > 1.5 * open_ends[0] > 0

    lengths = []
    for i in range(12):
        batch = make_batch(replace(whole, full=0.0, shortest=64), i)
        lengths += batch.present.sum(axis=1).tolist()
    assert {one % PLAN.patch for one in lengths} == {0}
    assert min(lengths) == 64
    assert max(lengths) <= PLAN.length
    assert np.median(lengths) <= PLAN.length / 2
