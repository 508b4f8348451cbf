"""Units do not matter: a series and the same one in another unit get the same verdicts.

Values lie on a grid, and where multiples are powers of two every ``a * x + b`` is exact in float32:
whatever differs then was decided by the unit. Other multiples leave what rounding leaves.
"""

from dataclasses import dataclass
from functools import cache

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jobs.build import make
from streamad.config import parse_pipeline
from streamad.detectors import DETECTORS
from streamad.operators.detect import DetectOperator
from streamad.testing.batches import make_columns
from tests.contract.inputs import QUICK

SIGNALS = [name for name in DETECTORS if DETECTORS.load(name).info.modality == "signals"]
SIZE, N, N_TRAINING = 32, 900, 400
STEP_MS = 60_000
COLUMNS = ("score", "level", "p_value", "newest", "newest_level", "newest_p", "severity")

NEAR = {("robust_z", "mostly constant"): 9, ("robust_z", "first departure"): 9}
"""How many units off zero a series may lie, where it is not 1,000. `robust_z` says that its scale
is at least a ten-thousandth of ``|median|``, which decides where more than half of a window stands
still."""

TRAINED = {"hypad": 9}
"""The same where values are rounded, of what is trained here: hundreds of steps of descent make
more of a rounding than any score does."""


def make_series():
    rng = np.random.default_rng(5)
    noise = np.round(rng.normal(0, 1, N) * 64) / 64
    wave = np.round((3 * np.sin(np.arange(N) / 5) + rng.normal(0, 0.5, N)) * 64) / 64
    flat, first, spike, shift, frozen = np.zeros(N), np.zeros(N), *(noise.copy() for _ in range(3))
    flat[rng.integers(0, N, 12)] = 1
    first[600:] = 1
    spike[700] += 12
    shift[650:] += 8
    frozen[700:] = 0.5
    return {
        "noise": noise,
        "wave": wave,
        "mostly constant": flat,
        "first departure": first,
        "spike": spike,
        "level shift": shift,
        "frozen": frozen,
    }


SERIES = make_series()


@dataclass
class Verdict:
    events: list[tuple]
    told: np.ndarray
    flags: np.ndarray
    columns: dict[str, np.ndarray]


def watch(name, values, direction="both"):
    """Run the operator; what needs training is fitted on the begin of the same series."""
    size = max(SIZE, DETECTORS.load(name).info.min_size)
    config = parse_pipeline(
        f"name: t\ndetector: {name}\nwindows: {{size: {size}}}\nseries: {{step: 60s}}\n"
        f"scoring: {{first_day: 2h, direction: {direction}}}"
    )
    detector = make(name, size=size, params=QUICK.get(name))
    if detector.info.needs_training:
        training = values[:N_TRAINING, None].astype(np.float32)
        windows = np.lib.stride_tricks.sliding_window_view(training, size, axis=0)
        detector.fit(np.ascontiguousarray(windows.transpose(0, 2, 1)))
    op = DetectOperator(config, detector)
    times = STEP_MS * np.arange(1, N + 1)
    out = op.process(op.new_state(), make_columns(["k"] * N, times, values))
    why = [f.explanation for f in out.findings]
    return Verdict(
        events=[
            (
                f.id, f.sequence, f.state, f.kind, f.key, f.window_start_ms, f.window_end_ms,
                f.began_ms, f.until_ms, f.n_windows, f.calm, f.reason,
            )
            for f in out.findings
        ],
        told=np.array([(e.observed["value"], e.expected["value"]) for e in why]).reshape(-1, 2),
        flags=np.concatenate([log.flags for log in out.scores]),
        columns={
            column: np.concatenate([getattr(log, column) for log in out.scores])
            for column in COLUMNS
        },
    )  # fmt: skip


@cache
def usual(name, which, direction="both"):
    return watch(name, SERIES[which], direction)


def require_same(verdict, base, *, rtol):
    assert verdict.events == base.events
    assert np.array_equal(verdict.flags, base.flags)
    assert np.array_equal(verdict.columns["severity"] >= 1, base.columns["severity"] >= 1)
    for column, expected in base.columns.items():
        np.testing.assert_allclose(
            verdict.columns[column], expected, rtol=rtol, atol=rtol, err_msg=column
        )


def require_told(verdict, base, *, a, b):
    """Check that observed and expected values are told in the unit of the input."""
    np.testing.assert_allclose((verdict.told - b) / a, base.told, rtol=1e-4, atol=1e-3)


def far(name, which):
    return NEAR.get((name, which), 1000)


def test_the_series_show_what_they_are_named_for():
    for which in ("mostly constant", "first departure", "spike", "level shift", "frozen"):
        assert usual("knn_fused", which).events, which
    assert any("has not changed" in event[-1] for event in usual("knn_fused", "frozen").events)


@pytest.mark.parametrize("name", SIGNALS)
@settings(max_examples=15, deadline=None)
@given(data=st.data(), which=st.sampled_from(list(SERIES)), power=st.integers(-20, 20))
def test_the_unit_of_a_series_does_not_matter(name, data, which, power):
    units = data.draw(st.integers(-far(name, which), far(name, which)), label="units off zero")
    a = 2.0**power
    verdict, base = watch(name, a * (SERIES[which] + units)), usual(name, which)
    require_same(verdict, base, rtol=1e-5)
    require_told(verdict, base, a=a, b=a * units)


@pytest.mark.parametrize("name", SIGNALS)
@settings(max_examples=15, deadline=None)
@given(data=st.data(), which=st.sampled_from(list(SERIES)), power=st.floats(-6, 6))
def test_where_values_are_rounded_decisions_stay_the_same(name, data, which, power):
    """Rounding moves scores, and a block's maximum by one step of the 16 bits it is kept in."""
    most = TRAINED.get(name, far(name, which))
    units = data.draw(st.floats(-most, most), label="units off zero")
    verdict = watch(name, 10**power * (SERIES[which] + units))
    require_same(verdict, usual(name, which), rtol=0.02)


MIRRORED = [name for name in SIGNALS if name not in {"themis", "timercd", "hypad"}]
"""Trained networks make of a series upside down something of their own."""
OPPOSITE = {"both": "both", "above": "below", "below": "above"}


@pytest.mark.parametrize("name", MIRRORED)
@settings(max_examples=15, deadline=None)
@given(
    which=st.sampled_from(list(SERIES)),
    direction=st.sampled_from(list(OPPOSITE)),
    power=st.integers(-20, 20),
    units=st.integers(-9, 9),
)
def test_upside_down_what_is_above_is_below(name, which, direction, power, units):
    # Of training windows that are all the same, LOF takes any as the nearest; see its docs.
    if name == "lof" and which == "mostly constant":
        which = "noise"
    # A window that was trained on lies above or below its like by a rounding error.
    if DETECTORS.load(name).info.needs_training:
        direction = "both"
    a = -(2.0**power)
    verdict = watch(name, a * (SERIES[which] + units), OPPOSITE[direction])
    base = usual(name, which, direction)
    require_same(verdict, base, rtol=1e-5)
    require_told(verdict, base, a=a, b=a * units)


@pytest.mark.parametrize(
    ("unit", "level"), [(1, 100), (1, -100), (1, 1000), (2**-20, 0), (2**20, 0), (2**20, 2**30)]
)
@pytest.mark.parametrize("name", SIGNALS)
def test_a_first_departure_is_found_wherever_a_series_stood(name, unit, level):
    """From 0 to 1 or from 100 to 101: a constant series has no unit that makes a change small."""
    base = usual(name, "first departure")
    verdict = watch(name, SERIES["first departure"] * unit + level)
    assert base.events
    assert verdict.events == base.events
    assert np.array_equal(verdict.flags, base.flags)
    if level == 0 or name != "robust_z":  # see `NEAR`: the same findings, less severe
        require_same(verdict, base, rtol=1e-5)
