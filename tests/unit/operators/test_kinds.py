"""A series is judged as what its records declare; rows of another kind are left out."""

from __future__ import annotations

import numpy as np
import pytest

from streamad.config import parse_pipeline
from streamad.detectors.robust_z import RobustZ
from streamad.operators.detect import DetectOperator
from streamad.records import SignalBatch
from streamad.testing.batches import make_columns
from streamad.training.fit import cut_windows

STEP_MS, N, SIZE = 60_000, 200, 12
KEYS = ["gauge", "counter", "delta"]


def operator(kind: str = "auto", form: str = "json", fill: str = "") -> DetectOperator:
    config = parse_pipeline(
        f"{{name: t, detector: robust_z, windows: {{size: {SIZE}}}, input: {{format: {form}}}, "
        f"series: {{step: 1m, kind: {kind}}}, scoring: {{min_windows: 4}}}}"
    )
    return DetectOperator(config, RobustZ(size=SIZE))


def of_kind(kind: str, said: str | None = "") -> SignalBatch:
    """Return what a counter, a delta or a gauge shows of the same events."""
    rng = np.random.default_rng(3)
    values = rng.poisson(50, N).astype(float)
    values[150:153] = 0
    times = STEP_MS * np.arange(1, N + 1)
    if kind == "counter":
        values = np.cumsum(values)
    if kind == "delta":
        here = values > 0
        values, times = values[here], times[here]
    tags = {} if said is None else {"kind": [said or kind] * len(values)}
    return make_columns([kind] * len(values), times, values, tags=tags)


def scores(op: DetectOperator, *batches: SignalBatch) -> dict[str, list[tuple[int, float]]]:
    state, found = op.new_state(), {}
    for batch in batches:
        out = op.process(state, batch)
        for one in out.scores:
            for key, end, score in zip(one.keys, one.end_ms, one.score, strict=True):
                found.setdefault(key, []).append((int(end), round(float(score), 4)))
    return found


@pytest.mark.parametrize("kind", KEYS)
def test_series_of_a_pipeline_are_judged_by_their_own_kinds(kind: str):
    together = scores(operator(), *map(of_kind, KEYS))
    alone = scores(operator(kind), of_kind(kind, said=None))
    assert together[kind] == alone[kind]
    assert len(alone[kind]) > 150


def test_what_does_not_declare_a_kind_is_a_gauge():
    other = scores(operator(), of_kind("gauge", said="web"))
    assert other == scores(operator(), of_kind("gauge", said=None))
    assert other == scores(operator("gauge"), of_kind("gauge"))


def test_zeros_that_were_not_sent_are_seen_as_zeros():
    found = dict(scores(operator(), of_kind("delta"))["delta"])
    assert {153 * STEP_MS, 154 * STEP_MS} <= found.keys()


@pytest.mark.parametrize("form", ["otlp_json", "otlp_proto"])
def test_declared_kinds_that_a_pipeline_does_not_ask_for_are_left_out(form: str):
    op = operator("counter", form)
    state = op.new_state()
    out = op.process(state, of_kind("gauge"))
    assert sum(one.counts["other_kind"] for one in out.rejected) == N
    assert state.n_keys == 0
    assert not op.process(state, of_kind("counter")).rejected


def test_a_kind_that_is_read_off_a_name_gives_way_to_the_pipelines():
    op = operator("gauge", "prometheus")
    assert not op.process(op.new_state(), of_kind("gauge", said="counter")).rejected


@pytest.mark.parametrize("batch", [1, 17, 1_000])
def test_rows_of_another_kind_than_their_series_are_left_out(batch: int):
    own = of_kind("gauge")
    mixed = make_columns(
        ["gauge"] * (2 * N),
        np.repeat(own.time_ms, 2),
        np.stack([own.values[:, 0], np.arange(N) * 1e6], axis=1).ravel(),
        tags={"kind": ["gauge", "counter"] * N},
    )
    op = operator()
    state, n_left_out = op.new_state(), 0
    parts = [mixed.take(at, min(at + batch, 2 * N)) for at in range(0, 2 * N, batch)]
    for part in parts:
        out = op.process(state, part)
        n_left_out += sum(one.counts.get("other_kind", 0) for one in out.rejected)
    assert n_left_out == N
    assert scores(operator(), *parts) == scores(operator(), own)


def test_training_cuts_windows_as_they_are_cut_live():
    op = operator()
    for kind in KEYS:
        cut = cut_windows(op.config, op.detector, of_kind(kind)).values
        alone = cut_windows(operator(kind).config, op.detector, of_kind(kind, said=None)).values
        np.testing.assert_array_equal(cut, alone)


def test_rows_that_a_key_throws_together_are_counted():
    op = operator()
    twice = make_columns(["a"] * 6, [60_000] * 2 + [120_000] * 4, np.ones(6), per_message=3)
    out = op.process(op.new_state(), twice)
    assert out.merged.tolist() == [1, 4, 5]
    assert out.counts["merged"] == 3
    nan = np.nan
    lined_up = make_columns(["a"] * 2, [60_000] * 2, [[1.0, nan], [nan, 2.0]], per_message=2)
    config = parse_pipeline("{name: t, input: {fields: {values: [x, y]}}, series: {step: 1m}}")
    two = DetectOperator(config, RobustZ(size=SIZE))
    assert two.process(two.new_state(), lined_up).counts["merged"] == 0
