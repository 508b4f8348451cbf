"""The detect operator: rows in, scores and findings out."""

from dataclasses import replace

import numpy as np
import polars as pl
import pytest

from streamad.config import parse_pipeline
from streamad.detectors.knn import FusedKNN
from streamad.detectors.robust_z import RobustZ
from streamad.errors import StateError
from streamad.operators.detect import DetectOperator, Position
from streamad.records import FLAG_ERROR, FLAG_INCOMPLETE, FLAG_SUPPRESSED
from streamad.testing.batches import make_columns

BASE = """
name: test
detector: robust_z
windows: {size: 16}
"""


def operator(text="", detector=None, **kwargs):
    config = parse_pipeline(BASE + text)
    return DetectOperator(config, detector or RobustZ(size=16), **kwargs)


def noise(n, seed=0):
    return np.random.default_rng(seed).normal(10, 1, n)


def feed(op, state, values, *, key="a", start=1_000, step=1_000, **kwargs):
    n = len(values)
    batch = make_columns([key] * n, start + step * np.arange(n), values)
    return op.process(state, batch, **kwargs)


def test_a_spike_becomes_one_episode_with_what_was_expected():
    op = operator()
    state = op.new_state()
    values = noise(200)
    values[150] = 60
    out = feed(op, state, values, at=Position(topic="m", partition=3))
    assert [f.state for f in out.findings] == ["began", "ended"]
    first = out.findings[0]
    assert first.explanation.observed["value"] == 60
    assert first.explanation.expected["value"] == pytest.approx(10, abs=2)
    assert first.window_end_ms == 151_000
    assert first.input == {"topic": "m", "partition": 3, "offset": 150}
    assert first.p_value < 1e-3
    assert len({f.id for f in out.findings}) == 1


def test_scores_are_logged_for_every_closed_window():
    op = operator()
    out = feed(op, op.new_state(), noise(100))
    log = out.scores[0]
    assert len(log) == 100 - 16 + 1
    assert np.isfinite(log.score).all()
    assert log.end_ms[0] == 16_000


def test_save_and_restore_change_nothing():
    op = operator()
    values = np.concatenate([noise(150), [60.0, 61.0], noise(60, seed=1)])
    whole = feed(op, op.new_state(), values)
    state = op.new_state()
    first = feed(op, state, values[:151])
    again = op.new_state()
    again.restore(*state.save(op.identity), identity=op.identity)
    second = feed(op, again, values[151:], start=1_000 + 151_000)
    assert [(f.id, f.sequence, f.score) for f in first.findings + second.findings] == [
        (f.id, f.sequence, f.score) for f in whole.findings
    ]


def test_a_snapshot_of_another_configuration_is_refused():
    op = operator()
    state = op.new_state()
    feed(op, state, noise(50))
    other = operator("scoring: {first_day: 9h}")
    with pytest.raises(StateError, match=r"scoring.first_day: 1d -> 9h") as refused:
        op.new_state().restore(*state.save(op.identity), identity=other.identity)
    assert "on_state_mismatch: fresh" in str(refused.value)
    refitted = replace(op.identity, artifact="another")
    with pytest.raises(StateError, match="artifact id: none -> another"):
        op.new_state().restore(*state.save(op.identity), identity=refitted)
    longer = replace(op.identity, size=32)
    with pytest.raises(StateError, match="samples of a window: 16 -> 32"):
        op.new_state().restore(*state.save(op.identity), identity=longer)


def test_state_of_before_partial_windows_is_of_keys_that_began_with_full_ones():
    op = operator()
    state = op.new_state()
    feed(op, state, noise(50))
    header, names, arrays = state.save(op.identity)
    header = {name: header[name] for name in header if name not in {"size", "begins"}}
    again = op.new_state()
    again.restore(header, names, arrays, identity=op.identity)
    assert again.n_keys == 1
    early = replace(op.identity, begins=8)
    with pytest.raises(StateError, match="samples with which a key is first judged: 16 -> 8"):
        op.new_state().restore(header, names, arrays, identity=early)


def test_arrays_of_another_shape_are_refused_by_name():
    op = operator()
    state = op.new_state()
    feed(op, state, noise(50))
    header, names, arrays = state.save(op.identity)
    arrays["windows.ring"] = arrays["windows.ring"][:, :5]
    with pytest.raises(StateError, match=r"state array windows\.ring"):
        op.new_state().restore(header, names, arrays, identity=op.identity)


def test_another_alert_level_is_another_configuration():
    one, other = operator(), operator("alerts: {level: 30d}")
    assert one.identity.checksum != other.identity.checksum


def test_rows_from_the_future_are_rejected_and_do_not_move_clocks():
    op = operator("series: {max_ahead: 1h}")
    state = op.new_state()
    year = 365 * 86_400_000
    batch = make_columns(["a", "a", "a"], [1_000, 1_000 + year, 2_000], [1, 2, 3], broker_ms=2_000)
    out = op.process(state, batch)
    assert [(r.message, r.reason) for r in out.rejected] == [(1, "time_ahead")]
    assert "series.max_ahead allows 3600000 ms" in out.rejected[0].detail
    assert out.late.tolist() == []
    assert state.partition_ms == 2_000


def test_late_rows_are_named():
    op = operator()
    batch = make_columns(["a", "a", "a"], [3_000, 1_000, 4_000], [1, 2, 3])
    assert op.process(op.new_state(), batch).late.tolist() == [1]


def test_keys_over_the_bound_are_rejected_and_the_others_go_on():
    op = operator("series: {max_keys: 2}")
    state = op.new_state()
    out = op.process(state, make_columns(list("abcab"), range(5), np.ones(5)))
    assert [(r.message, r.reason) for r in out.rejected] == [(2, "key_limit")]
    assert state.n_keys == 2


def test_series_are_selected_by_name_and_tag():
    op = operator("series: {select: {include: ['cpu*'], exclude: ['*.idle'], tags: {env: prod}}}")
    state = op.new_state()
    keys = ["cpu.user", "cpu.idle", "disk", "cpu.sys"]
    tags = {"env": ["prod", "prod", "prod", "test"]}
    out = op.process(state, make_columns(keys, range(4), np.ones(4), tags=tags))
    assert out.counts["deselected"] == 3
    assert state.waiting.state["selected"][:4].tolist() == [True, False, False, False]


def test_a_silent_key_is_a_finding_and_so_is_its_return():
    op = operator("series: {silence: 8s}")
    state = op.new_state()
    rows = [("a", 1_000), ("b", 1_000)] + [("b", t * 1_000) for t in range(2, 20)]
    rows += [("a", 20_000), ("b", 24_000)]
    batch = make_columns([r[0] for r in rows], [r[1] for r in rows], np.ones(len(rows)))
    out = op.process(state, batch)
    told = [(f.kind, f.state, f.key) for f in out.findings]
    assert told == [("no_data", "began", "a"), ("no_data", "ended", "a")]
    assert out.findings[0].id == out.findings[1].id
    assert "no data for" in out.findings[0].reason


def test_a_whole_partition_falls_silent_by_the_clock():
    op = operator("series: {silence: 8s}")
    state = op.new_state()
    feed(op, state, noise(5))
    assert op.tick(state, 6_000).findings == []
    assert [f.key for f in op.tick(state, 60_000).findings] == ["a"]
    assert op.tick(state, 70_000).findings == []


def test_forgotten_keys_make_room():
    op = operator("series: {ttl: 1h, max_keys: 2}")
    state = op.new_state()
    op.process(state, make_columns(["a", "b"], [1_000, 1_000], [1, 1]))
    out = op.process(state, make_columns(["b"] * 2, [3_601_000, 7_100_000], [1] * 2))
    assert out.counts["forgotten"] >= 1
    out = op.process(state, make_columns(["c"], [7_200_001], [1]))
    assert out.rejected == []


@pytest.mark.parametrize("batch", [1, 3, 5])
def test_ticks_do_not_depend_on_batches(batch):
    op = operator("series: {silence: 8s, ttl: 60s}")
    rng = np.random.default_rng(3)
    times = 1_000 + np.cumsum(rng.integers(0, 4_000, 300))
    keys = [str(k) for k in rng.integers(0, 6, 300)]
    whole = op.process(op.new_state(), make_columns(keys, times, np.ones(300)))
    state, parts = op.new_state(), []
    for s in range(0, 300, batch):
        cut = slice(s, s + batch)
        parts += op.process(
            state, make_columns(keys[cut], times[cut], np.ones(len(keys[cut])))
        ).findings
    assert len(whole.findings) > 5
    assert {(f.id, f.sequence, f.window_end_ms) for f in parts} == {
        (f.id, f.sequence, f.window_end_ms) for f in whole.findings
    }


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ("direction: above", ["began", "ended"]),
        ("direction: below", []),
        ("min_effect: {absolute: 45}", ["began", "ended"]),
        ("min_effect: {absolute: 55}", []),
        ("min_effect: {relative: 4}", ["began", "ended"]),
        ("min_effect: {relative: 6}", []),
    ],
)
def test_what_does_not_matter_is_no_finding(settings, expected):
    op = operator(f"scoring: {{{settings}}}")
    values = noise(200)
    values[150] = 60
    out = feed(op, op.new_state(), values)
    assert [f.state for f in out.findings if f.peak_score > 20] == expected
    if not expected:
        assert any((log.flags & FLAG_SUPPRESSED).any() for log in out.scores)


def test_gappy_windows_are_incomplete_and_not_scored():
    op = operator("series: {step: 1s, gaps: {fill: none, max_share: 0.1}}")
    times = [1_000 * t for t in range(60) if t % 3 or t < 20]
    out = op.process(op.new_state(), make_columns(["a"] * len(times), times, noise(len(times))))
    flags = np.concatenate([log.flags for log in out.scores])
    scores = np.concatenate([log.score for log in out.scores])
    assert (flags & FLAG_INCOMPLETE).any()
    assert np.isnan(scores[(flags & FLAG_INCOMPLETE) > 0]).all()
    assert out.counts["incomplete"] == int(((flags & FLAG_INCOMPLETE) > 0).sum())


class Brittle(RobustZ):
    """Fails on windows that hold a seven."""

    info = replace(RobustZ.info, name="brittle")

    def score(self, windows, *, memory=None, slots=None):
        if (windows == 7).any():
            msg = "I do not like sevens"
            raise RuntimeError(msg)
        return super().score(windows, memory=memory, slots=slots)


@pytest.mark.parametrize("batch", [1, 7, 1_000])
@pytest.mark.parametrize("detector", [RobustZ, FusedKNN])
def test_an_open_episode_does_not_hang_on_windows_that_are_not_judged(detector, batch):
    op = operator("series: {step: 1s, gaps: {max_share: 0.2}}", detector(size=16))
    state, values = op.new_state(), noise(560)
    values[400:] += 60
    times = 1_000 * np.arange(1, 561)
    # From here on a reading is there in every third step only.
    sparse = np.arange(560) < 405
    sparse[405::3] = True
    columns = make_columns(["a"] * int(sparse.sum()), times[sparse], values[sparse])
    findings = []
    for start in range(0, len(columns), batch):
        findings += op.process(state, columns.take(start, start + batch)).findings
    last = findings[-1]
    assert findings[-2].state in {"began", "continues"}
    assert (last.state, last.kind) == ("ended", "anomaly")
    assert "not watched" in last.reason
    assert last.id == findings[-2].id
    assert last.sequence == findings[-2].sequence + 1
    # After two windows' lengths that were not judged, and once.
    assert 440_000 < last.window_end_ms < 455_000
    assert not state.episodes.is_open(np.array([0]))[0]


def test_a_window_the_detector_fails_on_is_an_error_finding_and_the_stream_goes_on():
    op = operator(detector=Brittle(size=16))
    values = noise(100)
    values[50] = 7
    out = feed(op, op.new_state(), values)
    errors = [f for f in out.findings if f.kind == "error"]
    assert len(errors) == 3  # of a run of 16: see `judge.FIRST_FAILURES`
    assert errors[0].reason == "RuntimeError: I do not like sevens"
    flags = np.concatenate([log.flags for log in out.scores])
    assert ((flags & FLAG_ERROR) > 0).sum() == 16
    assert np.isfinite(np.concatenate([log.score for log in out.scores])).sum() == 85 - 16


class Tongue(RobustZ):
    """Scores everything and cannot explain windows that hold the sixty."""

    info = replace(RobustZ.info, name="tongue")

    def explain(self, windows, *, memory=None, slots=None):
        if (windows == 60).any():
            msg = "words fail me"
            raise RuntimeError(msg)
        return super().explain(windows, memory=memory, slots=slots)


@pytest.mark.parametrize("batch", [1, 200])
def test_a_detector_that_cannot_explain_stops_neither_gate_nor_stream(batch):
    op = operator("scoring: {direction: below}", detector=Tongue(size=16))
    state, values = op.new_state(), noise(200)
    values[150] = 60
    findings, unexplained = [], 0
    for s in range(0, 200, batch):
        out = feed(op, state, values[s : s + batch], start=1_000 + 1_000 * s)
        findings += out.findings
        unexplained += out.counts["explain_errors"]
    began = next(f for f in findings if f.peak_score > 20)
    # Upwards, against the direction asked for: told all the same, because nobody could say so.
    assert (began.state, began.explanation) == ("began", None)
    assert unexplained >= 16


class FromLog:
    """Recorded scores of one earlier run."""

    def __init__(self, logs, shift=0.0):
        self._table = {
            (key, int(t)): s + shift
            for log in logs
            for key, t, s in zip(log.keys.to_list(), log.end_ms, log.score, strict=True)
        }

    def lookup(self, keys, end_ms, ordinal):
        scores = np.array(
            [
                self._table.get((key, int(t)), np.nan)
                for key, t in zip(keys.to_list(), end_ms, strict=True)
            ],
            np.float32,
        )
        return np.stack([scores, np.full(len(scores), np.nan, np.float32)], axis=1)


def test_recovery_judges_by_the_logged_scores_not_the_model():
    values = noise(200)
    values[150] = 60
    calm = feed(operator(), operator().new_state(), values)
    broken = operator(detector=Brittle(size=16))
    values[100] = 7  # the model would fail here now; the log knows better
    again = feed(broken, broken.new_state(), values, recorded=FromLog(calm.scores))
    assert [(f.id, f.score) for f in again.findings] == [(f.id, f.score) for f in calm.findings]


def test_composite_keys_and_tags_make_the_entity():
    op = operator("input: {fields: {key: [host, metric], tags: [env]}}\nalerts: {group: host}")
    values = noise(100)
    values[80] = 99
    batch = make_columns(
        ["h1/cpu"] * 100, 1_000 * np.arange(100), values, tags={"env": ["p"] * 100}
    )
    finding = op.process(op.new_state(), batch).findings[0]
    assert finding.entity == {"host": "h1", "metric": "cpu", "env": "p"}
    assert finding.group == "h1"


def test_an_empty_batch_yields_nothing():
    op = operator()
    out = op.process(op.new_state(), make_columns([], [], []))
    assert (out.findings, out.scores, out.rejected, len(out.late)) == ([], [], [], 0)


def test_memory_of_an_idle_key_stays_within_its_bound():
    from streamad.operators.detect import DetectOperator as Operator

    for size in (16, 64, 256):
        config = parse_pipeline(BASE)
        state = Operator(config, RobustZ(size=size)).new_state()
        assert state.bytes_per_key <= size * 4 * 1.5 + 2048 + size * 4


def test_keys_are_decoded_as_strings():
    op = operator()
    out = feed(op, op.new_state(), noise(40), key="ключ/ß")
    assert out.scores[0].keys.dtype == pl.String
    assert set(out.scores[0].keys.to_list()) == {"ключ/ß"}
