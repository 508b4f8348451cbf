"""Replay is live: batch sizes, order within lateness and restarts change no alert."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streamad.config import PipelineConfig, parse_pipeline
from streamad.detectors import DETECTORS
from streamad.operators.detect import DetectOperator
from streamad.records import Alert, ScoreBatch, SignalBatch
from streamad.runtime.embedded import Checkpoint, EmbeddedPipeline, Hooks
from streamad.testing.batches import cut, make_batch

STEP = 1_000
N_TIMES, N_KEYS, LATENESS_STEPS = 700, 3, 4
NOW = 10_000_000
PIPELINE = """
name: replay
detector: {{name: {detector}, params: {params}}}
windows: {{size: 16}}
series: {{step: 1s, lateness: {lateness}s, silence: 30s, ttl: 10m}}
scoring: {{min_windows: 8, update_every: 5}}
alerts: {{level: 0.001, update_every: 5s}}
"""


def pipeline_config(detector: str) -> PipelineConfig:
    params = "{}" if detector == "robust_z" else "{history: 256}"
    return parse_pipeline(
        PIPELINE.format(detector=detector, params=params, lateness=LATENESS_STEPS)
    )


def series() -> list[tuple[str, int, float]]:
    """Three keys with noise, bursts in two of them, and a silence of the third."""
    rng = np.random.default_rng(7)
    values = np.round(10 + rng.normal(size=(N_TIMES, N_KEYS)), 3)
    values[400:430, 0] += 40
    values[500:503, 1] -= 60
    values[600:640, 0] += np.linspace(5, 80, 40)
    rows = [
        (f"k{key}", time * STEP, float(values[time, key]))
        for time in range(N_TIMES)
        for key in range(N_KEYS)
    ]
    return [row for row in rows if not (row[0] == "k2" and 300 <= row[1] // STEP < 380)]


ROWS = series()


def build(detector: str, hooks: Hooks | None = None) -> EmbeddedPipeline:
    config = pipeline_config(detector)
    operator = DetectOperator(config, DETECTORS.load(detector)(size=16, **config.detector.params))
    return EmbeddedPipeline(config, operator, clock=lambda: NOW, hooks=hooks or Hooks())


def by_id(alerts: list[Alert]) -> list[Alert]:
    """Between keys the order may differ: within a batch findings go by time, then key."""
    return sorted(alerts, key=lambda alert: (alert.id, alert.sequence))


def run(detector: str, parts: Iterator[SignalBatch]) -> tuple[list[Alert], dict[tuple, float]]:
    scores: dict[tuple, float] = {}

    def keep(batch: ScoreBatch) -> None:
        names = zip(batch.keys.to_list(), batch.end_ms.tolist(), strict=True)
        pairs = zip(batch.score.tolist(), batch.p_value.tolist(), strict=True)
        scores.update(zip(names, map(repr, pairs), strict=True))

    pipeline = build(detector, Hooks(scores=keep))
    alerts = [alert for part in parts for alert in pipeline.feed(part)]
    return by_id(alerts), scores


DETECTOR_NAMES = ["robust_z", "knn_fused"]
sizes = st.lists(st.one_of(st.integers(1, 5), st.integers(6, 400)), max_size=60)


@pytest.fixture(scope="module")
def calm() -> Callable[[str], tuple[list[Alert], dict[tuple, float]]]:
    done: dict[str, tuple[list[Alert], dict[tuple, float]]] = {}

    def once(detector: str):
        if detector not in done:
            done[detector] = run(detector, iter([make_batch(ROWS)]))
        return done[detector]

    return once


@pytest.mark.parametrize("detector", DETECTOR_NAMES)
def test_the_series_makes_alerts_of_each_kind_at_all(detector: str, calm):
    alerts, scores = calm(detector)
    assert {(alert.key, alert.kind) for alert in alerts} >= {
        ("k0", "anomaly"),
        ("k1", "anomaly"),
        ("k2", "no_data"),
    }
    assert {alert.state for alert in alerts} == {"opened", "updated", "resolved"}
    assert len(scores) > 1_500


@pytest.mark.parametrize("detector", DETECTOR_NAMES)
@settings(max_examples=8, deadline=None)
@given(sizes=sizes)
def test_batch_sizes_change_no_alert_and_no_score(detector: str, sizes: list[int], calm):
    assert run(detector, cut(make_batch(ROWS), sizes)) == calm(detector)


@pytest.mark.parametrize("detector", DETECTOR_NAMES)
@settings(max_examples=8, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), sizes=sizes)
def test_order_within_lateness_changes_no_alert_and_no_score(detector, seed, sizes, calm):
    rng = np.random.default_rng(seed)
    # Delayed by less than the lateness, a row is overtaken by none that closes its sample.
    delay = rng.integers(0, LATENESS_STEPS * STEP - STEP, len(ROWS))
    order = np.argsort([row[1] for row in ROWS] + delay, kind="stable")
    shuffled = make_batch([ROWS[i] for i in order])
    alerts, scores = run(detector, cut(shuffled, sizes))
    wanted_alerts, wanted_scores = calm(detector)
    # The last samples stay open until the clock of their key has passed them by the lateness.
    assert scores == wanted_scores
    assert of_scores(alerts) == of_scores(wanted_alerts)


def of_scores(alerts: list[Alert]) -> list[Alert]:
    """Leave out silence: partition time decides it, not a key's own records."""
    return [alert for alert in alerts if alert.kind != "no_data"]


class Disk:
    """Sink, store and committed offset in one, that dies at a chosen step."""

    def __init__(self) -> None:
        self.alerts: list[Alert] = []
        self.saved: Checkpoint | None = None
        self.committed = 0
        self.steps_left = -1

    def _step(self) -> None:
        if self.steps_left == 0:
            self.steps_left = -1
            raise KeyboardInterrupt
        self.steps_left -= 1

    def write(self, alerts: list[Alert]) -> None:
        self._step()
        self.alerts += alerts

    def flush(self) -> None:
        self._step()

    def save(self, checkpoint: Checkpoint) -> None:
        self._step()
        self.saved = copy.deepcopy(checkpoint)

    def commit(self, offset: int) -> None:
        self._step()
        self.committed = offset


@pytest.mark.parametrize("detector", DETECTOR_NAMES)
@settings(max_examples=6, deadline=None)
@given(kills=st.lists(st.integers(0, 60), min_size=1, max_size=4))
def test_a_process_killed_at_any_step_loses_no_alert_and_makes_no_other(detector, kills, calm):
    disk, batch = Disk(), make_batch(ROWS)
    for kill in [*kills, -1]:
        disk.steps_left = kill
        pipeline = build(detector)
        if disk.saved is not None:
            pipeline.restore(copy.deepcopy(disk.saved))
        start = max(disk.committed, pipeline.offset)
        try:
            for part in cut(batch.take(start, len(batch)), [137] * 99):
                pipeline.deliver(part, sink=disk, store=disk, commit=disk.commit)
        except KeyboardInterrupt:
            continue
    once = {(alert.id, alert.sequence): alert for alert in disk.alerts}
    assert by_id(list(once.values())) == calm(detector)[0]
