"""A detector that fails makes the same few error findings, however its windows came in batches."""

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streamad.config import parse_pipeline
from streamad.detectors.knn import KNN
from streamad.detectors.robust_z import RobustZ
from streamad.operators.detect import DetectOperator
from streamad.records import FLAG_ERROR
from streamad.testing.batches import make_columns

SIZE, STEP_MS = 8, 5_000
N = 450
KEYS = ("a", "b")
RAISES, BLANK = 77.0, 88.0
CONFIG = parse_pipeline(f"name: t\ndetector: robust_z\nwindows: {{size: {SIZE}}}")


def brittle(kind):
    """Make a detector fail by the newest sample: one value raises, another has no score."""

    class Brittle(kind):
        info = replace(kind.info, name="brittle")

        def looks(self, windows, *, memory=None, slots=None):
            newest = windows[:, -1, 0]
            if (newest == RAISES).any():
                msg = "I do not like this number"
                raise ArithmeticError(msg)
            looks = super().looks(windows, memory=memory, slots=slots)
            looks[newest == BLANK] = np.nan
            return looks

    return Brittle


KINDS = {"robust_z": brittle(RobustZ), "knn": brittle(KNN)}


@st.composite
def failures(draw):
    """Where one key's samples are such that the detector fails: dense runs, sparse ones, gaps."""
    values = np.random.default_rng(draw(st.integers(0, 3))).normal(0, 1, N)
    for _ in range(draw(st.integers(0, 3))):
        start, every = draw(st.integers(0, N - 1)), draw(st.sampled_from([1, 1, 7, 30]))
        stop = start + draw(st.integers(1, 250))
        values[start:stop:every] = draw(st.sampled_from([RAISES, BLANK]))
    return values


def rows_of(columns, seed):
    """Interleave the keys at random, each in its order."""
    turns = np.repeat(np.arange(len(KEYS)), N)
    np.random.default_rng(seed).shuffle(turns)
    at = np.zeros(len(turns), np.int64)
    for k in range(len(KEYS)):
        at[turns == k] = np.arange(N)
    return [KEYS[k] for k in turns], STEP_MS * (1 + at), np.array(columns)[turns, at]


def run(kind, rows, cuts):
    """Feed rows cut at places, with a restart from a snapshot where a cut says so."""
    op = DetectOperator(CONFIG, KINDS[kind](size=SIZE))
    state = op.new_state()
    keys, times, values = rows
    findings, scores, n_failed = [], {}, 0
    stops = sorted({stop: restart for stop, restart in cuts if stop < len(keys)}.items())
    for (start, restart), (stop, _) in pairwise([(0, False), *stops, (len(keys), False)]):
        if restart:
            saved, state = state.save(op.identity), op.new_state()
            state.restore(*saved, identity=op.identity)
        out = op.process(
            state, make_columns(keys[start:stop], times[start:stop], values[start:stop])
        )
        findings += out.findings
        n_failed += out.counts["detector_errors"]
        for log in out.scores:
            for key, end, score, flags in zip(
                log.keys.to_list(), log.end_ms, log.score, log.flags, strict=True
            ):
                scores[key, int(end)] = (score.tobytes(), int(flags))
    return sorted(findings, key=lambda f: (f.id, f.sequence)), scores, n_failed


def told(findings):
    """What is said of failures; where a record came from is no part of it."""
    return [replace(f, input={}) for f in findings if f.kind == "error"]


def due(values, warm_up):
    """Return when a key's failures are told, and how many there were by then: the rule itself.

    The first 3 of a run, every 100th, and one 5 minutes after the last; 10 minutes end a run.
    """
    found, n, failed_ms, told_ms = [], 0, -(10**9), -(10**9)
    for i in range(SIZE - 1 + warm_up, N):
        if values[i] not in {RAISES, BLANK}:
            continue
        now_ms = STEP_MS * (1 + i)
        n = 1 if now_ms - failed_ms >= 600_000 else n + 1
        failed_ms = now_ms
        if n <= 3 or n % 100 == 0 or now_ms - told_ms >= 300_000:
            told_ms = now_ms
            found.append((now_ms, n))
    return found


CUTS = st.lists(st.tuples(st.integers(1, len(KEYS) * N), st.booleans()), max_size=25)


@pytest.mark.parametrize("kind", list(KINDS))
@settings(max_examples=40, deadline=None)
@given(columns=st.tuples(*[failures()] * len(KEYS)), cuts=CUTS, seed=st.integers(0, 3))
def test_cuts_and_restarts_make_no_error_finding_and_lose_none(kind, columns, cuts, seed):
    rows = rows_of(columns, seed)
    whole, whole_scores, whole_failed = run(kind, rows, [])
    parts, part_scores, part_failed = run(kind, rows, cuts)
    assert told(parts) == told(whole)
    assert [f.id for f in parts] == [f.id for f in whole]
    assert part_failed == whole_failed
    assert part_scores == whole_scores


@pytest.mark.parametrize("kind", list(KINDS))
@settings(max_examples=40, deadline=None)
@given(columns=st.tuples(*[failures()] * len(KEYS)), cuts=CUTS, seed=st.integers(0, 3))
def test_error_findings_are_few_and_every_failure_is_counted(kind, columns, cuts, seed):
    findings, scores, n_failed = run(kind, rows_of(columns, seed), cuts)
    errors, warm_up = told(findings), KINDS[kind].info.warm_up
    for key, values in zip(KEYS, columns, strict=True):
        of_key = sorted((f.window_end_ms, f.n_windows) for f in errors if f.key == key)
        assert of_key == due(values, warm_up)
    assert len({f.id for f in errors}) == len(errors)
    bad = np.isin(np.array(columns)[:, SIZE - 1 + warm_up :], [RAISES, BLANK])
    assert n_failed == bad.sum()
    assert sum((flags & FLAG_ERROR) > 0 for _, flags in scores.values()) == n_failed
    reasons = {"ArithmeticError: I do not like this number"}
    reasons.add("the detector returned a score that is not finite")
    assert {f.reason for f in errors} <= reasons


class Alone(RobustZ):
    """Scores one window at a time, and refuses company."""

    info = replace(RobustZ.info, name="alone")

    def looks(self, windows, *, memory=None, slots=None):
        if len(windows) > 1:
            msg = "too many of you"
            raise MemoryError(msg)
        return super().looks(windows, memory=memory, slots=slots)


def test_what_fails_in_a_batch_only_is_no_error_of_a_window():
    values = np.random.default_rng(0).normal(0, 1, N)
    batch = make_columns(["a"] * N, STEP_MS * np.arange(1, N + 1), values)
    seen = []
    for detector in (Alone(size=SIZE), RobustZ(size=SIZE)):
        op = DetectOperator(CONFIG, detector)
        out = op.process(op.new_state(), batch)
        assert out.counts["detector_errors"] == 0
        seen.append([log.score.tobytes() for log in out.scores])
    assert seen[0] == seen[1]
