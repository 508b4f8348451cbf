"""Rows judged one by one go through the operator that windows of signals go through."""

from __future__ import annotations

from typing import Self

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streamad.config import parse_pipeline
from streamad.detectors.contract import (
    Arrays,
    DetectorInfo,
    Floats,
    Ints,
    ItemDetector,
    Memory,
    SharedMemory,
)  # fmt: skip
from streamad.errors import ConfigError
from streamad.events.rows import EventRows
from streamad.operators.detect import DetectOperator
from streamad.records import Explanation
from streamad.runtime import snapshots
from streamad.testing.batches import cut, make_events

HOUR_MS = 3_600_000


class Lengths(ItemDetector[EventRows]):
    """A tenth of how long a name is, as decades: enough to follow a row through the operator."""

    info = DetectorInfo(
        name="lengths", summary="length of a name", modality="events",
        tail=(1.0, 2.0, 3.0, 4.0),
    )  # fmt: skip

    def fit(self, items: EventRows, /, *, groups: Ints | None = None) -> Self:
        return self

    def score(
        self, items: EventRows, /, *, memory: Memory | None = None, slots: Ints | None = None
    ) -> Floats:
        lengths = items.fields["process"].str.len_bytes().fill_null(0).to_numpy()
        return lengths.astype(np.float32) / np.float32(10)

    def explain(
        self, items: EventRows, /, *, memory: Memory | None = None, slots: Ints | None = None
    ) -> list[Explanation]:
        return [
            Explanation(
                observed={"process": name or ""}, expected={}, variates={"process": 1.0},
                time_ms=int(at), text=f"long name: process={name}", entities=("process:" + name,),
            )
            for at, name in zip(items.time_ms, items.fields["process"], strict=True)
        ]  # fmt: skip


class Population(SharedMemory):
    """How often each length came, of all keys."""

    def __init__(self) -> None:
        self.counts = np.zeros(128, np.float64)

    def state(self) -> Arrays:
        return {"counts": self.counts.copy()}

    def load(self, state: Arrays) -> None:
        self.counts[:] = state["counts"]

    @property
    def n_bytes(self) -> int:
        return self.counts.nbytes


class Rarity(Lengths):
    """Lengths that came seldom in the whole partition."""

    info = DetectorInfo(
        name="rarity", summary="seldom lengths", modality="events", scope="partition",
        tail=(0.8, 1.0, 1.5, 2.0),
    )  # fmt: skip

    def new_shared(self) -> Population:
        return Population()

    def watch(self, shared: SharedMemory, items: EventRows, /) -> _Seen:
        assert isinstance(shared, Population)
        looks = np.empty((len(items), 1), np.float32)
        for i, length in enumerate((10 * self.score(items)).round().astype(int).tolist()):
            looks[i] = np.log10((shared.counts.sum() + 1) / (shared.counts[length] + 1)) ** 1.5
            shared.counts[length] += 1
        return _Seen(looks, self.explain(items))


class _Seen:
    def __init__(self, looks: Floats, why: list[Explanation]) -> None:
        self.looks, self._why = looks, why

    def explain(self, places):
        return [self._why[i] for i in places.tolist()]


def config(**changes):
    text = """
name: audit
input: {records: events, fields: {key: user, categories: [process]}}
scoring: {min_windows: 20}
detector: lengths
"""
    made = parse_pipeline(text)
    return made.model_copy(update=changes)


def events(n: int = 400, *, strange: tuple[int, ...] = (300, 301), seed: int = 0):
    draw = np.random.default_rng(seed)
    names = ["cat", "ls", "bash", "nginx"]
    rows = [(f"user-{i % 3}", i * 60_000, {"process": names[draw.integers(4)]}) for i in range(n)]
    for at in strange:
        rows[at] = (*rows[at][:2], {"process": "x" * 90})
    return make_events(rows)


def run(operator, parts):
    state = operator.new_state()
    outs = [operator.process(state, part) for part in parts]
    scores = [
        (*row,)
        for out in outs
        for one in out.scores
        for row in zip(
            one.keys.to_list(), one.end_ms.tolist(), one.ordinal.tolist(), one.score.tolist(),
            one.p_value.tolist(), one.flags.tolist(), strict=True,
        )
    ]  # fmt: skip
    return sorted(scores), sorted((f for out in outs for f in out.findings), key=lambda f: f.id)


@pytest.mark.parametrize("detector", [Lengths, Rarity])
def test_a_strange_event_is_a_finding_with_its_own_time_and_words(detector):
    operator = DetectOperator(config(), detector())
    scores, findings = run(operator, [events()])
    assert len(scores) == 400
    began = [one for one in findings if one.state == "began"]
    assert {one.key for one in began} == {"user-0", "user-1"}
    assert {one.began_ms for one in began} == {300 * 60_000, 301 * 60_000}
    assert began[0].explanation.text.startswith("long name: process=xxx")
    assert began[0].explanation.entities
    assert {one.entity["user"] for one in began} == {"user-0", "user-1"}
    assert {f.state for f in findings} >= {"began", "ended"}


@pytest.mark.parametrize("detector", [Lengths, Rarity])
@given(sizes=st.lists(st.integers(1, 90), max_size=12), cutting=st.integers(0, 399))
@settings(max_examples=15, deadline=None)
def test_neither_batches_nor_a_restart_change_anything(detector, sizes, cutting):
    operator = DetectOperator(config(), detector())
    whole = run(operator, [events()])
    assert run(operator, list(cut(events(), sizes))) == whole
    state = operator.new_state()
    first, second = events().take(0, cutting), events().take(cutting, 400)
    before = operator.process(state, first) if cutting else None
    taken = operator.new_state()
    chunks = snapshots.encode(state, identity=operator.identity)
    snapshots.restore(taken, chunks, identity=operator.identity)
    after = operator.process(taken, second)
    found = [f for out in (before, after) if out is not None for f in out.findings]
    assert sorted(found, key=lambda f: f.id) == whole[1]


def test_events_of_one_millisecond_are_told_apart():
    rows = [("u", 5, {"process": "ls"})] * 6
    scores, _ = run(DetectOperator(config(), Lengths()), [make_events(rows)])
    assert [ordinal for _, _, ordinal, *_ in scores] == list(range(6))


def test_an_event_out_of_order_is_judged_and_one_of_long_ago_is_late():
    rows = [
        ("u", 9 * HOUR_MS, {"process": "ls"}), ("u", 9 * HOUR_MS - 600_000, {"process": "ls"}),
        ("u", 2 * HOUR_MS, {"process": "ls"}),
    ]  # fmt: skip
    operator = DetectOperator(config(), Lengths())
    out = operator.process(operator.new_state(), make_events(rows))
    assert out.late.tolist() == [2]
    assert sum(map(len, out.scores)) == 2


def test_an_episode_goes_by_time_not_by_rows():
    """A thousand rows a second: neither one alert a row, nor one that ends in between."""
    draw = np.random.default_rng(1)
    calm = [("u", i * 60_000, {"process": "abc"[: draw.integers(1, 4)]}) for i in range(200)]
    storm = [
        ("u", 200 * 60_000 + i, {"process": "x" * 90 if i % 50 == 0 else "ls"})
        for i in range(5_000)
    ]
    after = [("u", 202 * 60_000 + i * 60_000, {"process": "ls"}) for i in range(30)]
    operator = DetectOperator(config(), Lengths())
    _, findings = run(operator, [make_events(calm + storm + after)])
    assert [f.state for f in sorted(findings, key=lambda f: f.sequence)] == ["began", "ended"]
    last = max(findings, key=lambda f: f.sequence)
    assert 4_950 <= last.until_ms - 200 * 60_000 < 5_000
    assert last.window_end_ms - last.until_ms >= 600_000


def test_weak_evidence_adds_up_to_one_episode():
    """No event of the burst is rarer than what comes once an hour; together they never came."""
    draw = np.random.default_rng(2)
    decades = draw.exponential(1 / np.log(10), 6_000)
    decades[4_000:4_040] = 1.6
    rows = [("u", i * 60_000, {"process": "x" * round(10 * d)}) for i, d in enumerate(decades)]
    rows = [
        (key, t - 57_000 * max(0, min(i, 4_040) - 4_000), fields)
        for i, (key, t, fields) in enumerate(rows)
    ]
    operator = DetectOperator(config(), Lengths())
    _, findings = run(operator, [make_events(rows)])
    began = [one for one in findings if one.state == "began"]
    burst_ms = 4_000 * 60_000
    within = [one for one in began if 0 <= one.began_ms - burst_ms <= 120_000]
    assert len(within) == 1
    assert "several events" in within[0].reason
    alerts = [one for one in began if one.peak_p_value <= one.alert_p]
    assert len(alerts) <= 4, "two looks, at once in five days each, in four days"


def test_settings_of_series_are_refused_in_one_line():
    text = "{name: a, input: {records: events, fields: {categories: [x]}}, series: {step: 10s}}"
    with pytest.raises(ConfigError, match=r"series\.step is for series of measured values"):
        parse_pipeline(text)
    with pytest.raises(ConfigError, match=r"needs fields\.categories"):
        parse_pipeline("{name: a, input: {records: events}}")
    with pytest.raises(ConfigError, match=r"fields\.categories is for records: events"):
        parse_pipeline("{name: a, input: {fields: {categories: [x]}}}")
    with pytest.raises(ConfigError, match=r"fields\.source and fields\.target"):
        parse_pipeline("{name: a, input: {records: edges, fields: {source: a}}}")
    with pytest.raises(ConfigError, match="holds series"):
        parse_pipeline(
            "{name: a, input: {records: events, format: prometheus, fields: {categories: [x]}}}"
        )


def test_a_block_of_rows_is_cut_by_index_and_mask():
    rows = events(10, strange=()).values
    assert rows[np.array([3, 1])].time_ms.tolist() == [180_000, 60_000]
    assert len(rows[rows.time_ms > 240_000]) == 5
    assert isinstance(rows[2:4].fields, pl.DataFrame)
