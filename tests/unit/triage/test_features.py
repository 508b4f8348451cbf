"""The columns of an alert: bounded, never NaN, the same everywhere, and of what matters."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streamad.records import Alert
from streamad.testing.alert_classes import TROUBLES, make_alerts
from streamad.triage.features import (
    BLOCKS,
    CLIP,
    GAP_MS,
    MAX_RATIO,
    N_FEATURES,
    NUMBERS,
    Scaling,
    breadths_of,
    direction_of,
    vector_of,
    vectors_of,
)

AT = {one.name: at for at, one in enumerate(NUMBERS)}
TROUBLE = {one.name: one for one in TROUBLES}


def one_of(name: str, seed: int = 0) -> Alert:
    (alert,) = make_alerts(TROUBLE[name], 1, rng=np.random.default_rng(seed))
    return alert


parts = st.dictionaries(
    st.text(max_size=5), st.one_of(st.floats(allow_nan=True), st.text(max_size=5)), max_size=4
)


@settings(max_examples=200, deadline=None)
@given(
    observed=parts, expected=parts,
    shares=st.dictionaries(st.text(max_size=5), st.floats(allow_nan=True), max_size=4),
    severity=st.floats(allow_nan=True), threshold=st.floats(allow_nan=True),
    began=st.integers(-(2**62), 2**62), until=st.integers(-(2**62), 2**62),
    breadth=st.integers(-5, 2**40), text=st.text(max_size=40),
    entity=st.dictionaries(st.text(max_size=5), st.text(max_size=5), max_size=3),
)  # fmt: skip
def test_no_alert_gives_a_number_out_of_bounds(  # noqa: PLR0913, PLR0917 - drawn fields
    observed, expected, shares, severity, threshold, began, until, breadth, text, entity
):
    odd = replace(
        one_of("cpu saturated"), observed=observed, expected=expected, explanation=shares,
        peak_severity=severity, threshold_p=threshold, began_ms=began, until_ms=until,
        summary=text, entity=entity, key=text,
    )  # fmt: skip
    row = vector_of(odd, breadth=breadth)
    assert row.shape == (N_FEATURES,)
    assert np.isfinite(row).all()
    assert np.abs(row).max() <= 25
    scaled = Scaling.of(row[None]).apply(row[None])
    assert np.abs(scaled).max() <= max(CLIP, *BLOCKS.values())


def test_the_host_does_not_matter_and_the_direction_does():
    alert = one_of("cpu saturated")
    moved = replace(
        alert, entity={**alert.entity, "host": "other-7"}, group="other", key="other-7/cpu",
        summary=alert.summary.replace(alert.key, "other-7/cpu"),
    )  # fmt: skip
    assert (vector_of(alert) == vector_of(moved)).all()
    turned = replace(alert, observed=alert.expected, expected=alert.observed)
    change = vector_of(turned) - vector_of(alert)
    assert set(np.flatnonzero(change)) == {AT["direction"], AT["ratio"]}
    assert vector_of(turned)[AT["ratio"]] == pytest.approx(-vector_of(alert)[AT["ratio"]])


def test_numbers_say_what_they_are_named_for():
    alert = replace(
        one_of("cpu saturated"), observed={"value": 30.0}, expected={"value": 10.0},
        explanation={"value": 1.0}, threshold_p=1e-4, peak_severity=2.0,
        began_ms=4 * 86_400_000 + 6 * 3_600_000, until_ms=4 * 86_400_000 + 6 * 3_600_000 + 99_000,
    )  # fmt: skip
    row = vector_of(alert, breadth=3)
    assert row[AT["direction"]] == 1
    assert row[AT["ratio"]] == pytest.approx(np.log(3), abs=0.01)
    assert row[AT["strength"]] == pytest.approx(np.log1p(8))
    assert row[AT["breadth"]] == pytest.approx(np.log1p(3))
    assert row[AT["duration"]] == pytest.approx(np.log1p(99))
    # Six o'clock of the first Monday.
    assert row[[AT["day_sin"], AT["day_cos"]]] == pytest.approx([1, 0], abs=1e-12)
    assert row[[AT["week_sin"], AT["week_cos"]]] == pytest.approx(
        [np.sin(2 * np.pi / 28), np.cos(2 * np.pi / 28)]
    )
    huge = replace(alert, observed={"value": 1e300}, expected={"value": 0.0})
    assert vector_of(huge)[AT["ratio"]] <= MAX_RATIO


def test_how_far_an_alert_has_come_does_not_show_in_its_words():
    alert = one_of("cpu saturated")
    start = N_FEATURES - 16
    opened = replace(alert, summary=f"{alert.key} is 9, expected about 2, since 12:25 UTC")
    ended = replace(alert, summary=f"{alert.key} is back to normal: was 9 after 12 min, 1 March")
    assert (vector_of(opened)[start:] == vector_of(ended)[start:]).all()
    other = replace(alert, summary=f"{alert.key}: the disk controller was reset")
    assert (vector_of(other)[start:] != vector_of(opened)[start:]).any()


def test_digits_in_names_do_not_count_and_names_are_nearly_at_right_angles():
    alert = one_of("bad deploy")
    one = replace(alert, observed={"disk0": 2.0}, expected={"disk0": 1.0}, explanation={"disk0": 1})
    two = replace(alert, observed={"disk1": 2.0}, expected={"disk1": 1.0}, explanation={"disk1": 1})
    assert (vector_of(one) == vector_of(two)).all()
    made = np.stack([direction_of(f"name {n}") for n in range(200)])
    angles = made @ made.T - np.eye(200)
    assert abs(angles.mean()) < 0.01
    assert np.sqrt((angles**2).mean()) == pytest.approx(0.25, abs=0.02)


def test_breadth_counts_alerts_of_the_same_group_that_began_before():
    alert = one_of("host down")
    at = [0, 1_000, GAP_MS, GAP_MS + 1_001, 0]
    alerts = [replace(alert, began_ms=10**12 + ms, group="a") for ms in at]
    alerts[4] = replace(alerts[4], group="b")
    assert breadths_of(alerts) == [1, 2, 3, 2, 1]
    assert breadths_of([]) == []


def test_vectors_of_nothing_are_of_the_right_shape():
    assert vectors_of([], []).shape == (0, N_FEATURES)
    empty = Scaling.of(np.empty((0, N_FEATURES)))
    assert empty.apply(np.zeros((2, N_FEATURES))).shape == (2, N_FEATURES)
