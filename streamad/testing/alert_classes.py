"""Made alerts of known classes, for tests and benchmarks: troubles as people know them.

Each class is a distribution over what an alert holds, and all have what does not matter: other
hosts, levels of other series, hours of the day, noise. Several differ from another one in a single
thing: the direction, the hour, the reason in words, how many fail at once.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np

from streamad.records import Alert, Part, stable_id

HOUR_MS: Final = 3_600_000
DAY_MS: Final = 24 * HOUR_MS
BEGIN_MS: Final = 1_767_571_200_000
"""Monday, 2026-01-05."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Trouble:
    """A class of alerts.

    metrics : parts with their mean shares; ratio : of observed to expected, log-normal with
    ``spread``; minutes : median duration; hours : of the day between which it happens; together :
    median number of alerts at once; words : reason in words
    """

    name: str
    kind: str = "anomaly"
    detector: str = "knn_fused"
    metrics: tuple[str, ...] = ("value",)
    measured: str = ""
    ratio: float = 1.0
    spread: float = 0.3
    minutes: float = 10.0
    hours: tuple[float, float] = (0.0, 24.0)
    together: float = 1.0
    decades: float = 6.0
    words: str = ""


TROUBLES: Final = (
    Trouble(name="disk full", measured="disk_used_percent", ratio=1.3, spread=0.1, minutes=300),
    Trouble(name="cpu saturated", measured="cpu", ratio=4.0, minutes=15),
    Trouble(name="cpu idle", measured="cpu", ratio=0.2, minutes=15),
    Trouble(name="memory leak", measured="memory_used", ratio=1.7, spread=0.15, minutes=500),
    Trouble(name="nightly backup", measured="disk_io", ratio=6.0, minutes=40, hours=(1.5, 3.5)),
    Trouble(name="disk thrashing", measured="disk_io", ratio=6.0, minutes=40, hours=(8, 20)),
    Trouble(
        name="bad deploy", metrics=("latency_ms", "error_rate"), ratio=5.0, spread=0.6, minutes=12,
        hours=(9, 17), together=12, decades=9,
    ),
    Trouble(name="database locked", metrics=("latency_ms", "queue"), ratio=9.0, minutes=8),
    Trouble(name="traffic spike", measured="requests", ratio=3.0, minutes=25),
    Trouble(name="traffic lost", measured="requests", ratio=0.15, minutes=25, together=4),
    Trouble(name="host down", kind="no_data", minutes=45, decades=4),
    Trouble(name="network split", kind="no_data", minutes=20, together=30, decades=4),
    Trouble(name="detector failing", kind="error", minutes=30, decades=4,
            words="scoring raised an overflow"),
    Trouble(name="password guessing", detector="rare_events", metrics=("user", "outcome"),
            minutes=3, words="user and outcome were never seen together"),
    Trouble(name="new process", detector="rare_events", metrics=("process", "parent"),
            minutes=3, words="process is new under this parent"),
    Trouble(name="port scan", detector="edge_stream", metrics=("source", "target"), minutes=2,
            decades=12, words="source connects far more targets than before"),
    Trouble(name="data moved out", detector="edge_stream", metrics=("source", "target"),
            minutes=60, hours=(0, 6), words="edge carries far more than before"),
)  # fmt: skip


def make_alerts(
    trouble: Trouble, n: int, *, rng: np.random.Generator, weeks: int = 4
) -> list[Alert]:
    """Return ``n`` alerts of a class, resolved, over some weeks."""
    return [_alert(trouble, number, rng, weeks) for number in range(n)]


def _alert(trouble: Trouble, number: int, rng: np.random.Generator, weeks: int) -> Alert:
    day = int(rng.integers(7 * weeks))
    hour = float(rng.uniform(*trouble.hours))
    began_ms = BEGIN_MS + day * DAY_MS + int(hour * HOUR_MS)
    lasted_ms = int(trouble.minutes * 60_000 * float(rng.lognormal(0, 0.5)))
    host = f"{rng.choice(['web', 'db', 'cache', 'batch'])}-{int(rng.integers(40))}"
    entity = {"host": host}
    if trouble.measured:
        entity["metric"] = trouble.measured
    key = "/".join(entity.values())
    observed, expected, shares = _parts(trouble, rng)
    peak = float(np.clip(trouble.decades * rng.lognormal(0, 0.3) / 4, 1.0, 10.0))
    return Alert(
        id=stable_id(trouble.name, number, began_ms, host), sequence=1, state="resolved",
        kind=trouble.kind, pipeline="made", detector=trouble.detector, artifact="",  # type: ignore[arg-type]
        tenant="default", group=host.partition("-")[0], key=key, entity=entity, began_ms=began_ms,
        until_ms=began_ms + lasted_ms, opened_ms=began_ms + 60_000,
        time_ms=began_ms + lasted_ms + 60_000, resolved_ms=began_ms + lasted_ms + 60_000,
        window_start_ms=began_ms, window_end_ms=began_ms + lasted_ms, score=float(rng.gamma(5)),
        p_value=1e-5, severity=peak, peak_severity=peak, threshold_p=1e-4, observed=observed,
        expected=expected, explanation=shares,
        summary=f"{key} is anomalous since 12:25 UTC; severity {peak:.1f} ({trouble.words})",
    )  # fmt: skip


def _parts(
    trouble: Trouble, rng: np.random.Generator
) -> tuple[dict[str, Part], dict[str, Part], dict[str, float]]:
    if trouble.kind != "anomaly":
        return {}, {}, {}
    names = trouble.metrics
    shares = dict(zip(names, rng.dirichlet(np.full(len(names), 8.0)).tolist(), strict=True))
    if trouble.words:
        text: dict[str, Part] = {name: f"{name}-{int(rng.integers(900))}" for name in names}
        return text, {}, shares
    # The level of a series has nothing to do with what is wrong with it.
    usual = {name: float(rng.lognormal(3, 2)) for name in names}
    ratio = trouble.ratio * rng.lognormal(0, trouble.spread, len(names))
    observed = {name: usual[name] * float(r) for name, r in zip(names, ratio, strict=True)}
    return dict(observed), dict(usual), shares


def make_breadths(trouble: Trouble, n: int, *, rng: np.random.Generator) -> list[int]:
    """Return how many alerts of their group began together with each of ``n`` alerts."""
    drawn = trouble.together * rng.lognormal(0, 0.4, n)
    return [max(1, round(float(one))) for one in drawn]
