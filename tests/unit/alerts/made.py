"""Findings of made episodes, and the stage that takes them."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from streamad.alerts.operator import AlertOperator
from streamad.config import PipelineConfig
from streamad.config.decisions import AlertsConfig
from streamad.records import Alert, Explanation, Finding, stable_id

NOON = 1_700_049_600_000  # 2023-11-15 12:00:00 UTC
MINUTE = 60_000
HOUR = 60 * MINUTE


def finding(**changes: Any) -> Finding:
    """A finding at 12:00:00 of host-1/cpu, at the alerting level."""
    made = Finding(
        id="e1", sequence=0, state="began", kind="anomaly", pipeline="hosts", detector="robust_z",
        artifact="", tenant="default", group="hosts", key="host-1/cpu", entity={},
        window_start_ms=NOON - 10_000, window_end_ms=NOON, began_ms=NOON, until_ms=NOON,
        score=9.0, p_value=1e-4, peak_score=9.0, peak_p_value=1e-4, level=5.0, n_windows=1,
        explanation=Explanation(
            observed={"value": 97.21}, expected={"value": 12.4}, variates={"value": 1}, time_ms=NOON
        ),
        input={"topic": "m", "partition": 0, "offset": 7},
    )  # fmt: skip
    return replace(made, **changes)


class Stage:
    """The operator with its state; findings are written to the log when their window ends."""

    def __init__(self, **alerts: Any) -> None:
        settings = AlertsConfig.model_validate(alerts)
        self.operator = AlertOperator(PipelineConfig(name="hosts", alerts=settings))
        self.state = self.operator.new_state()

    def take(self, *findings: Finding, delay_ms: int = 0) -> list[Alert]:
        pairs = [(f, f.window_end_ms + delay_ms) for f in findings]
        return self.operator.process(self.state, pairs)


def states(alerts: list[Alert]) -> list[str]:
    return [alert.state for alert in alerts]


def error(n: int, at_ms: int, key: str = "host-1/cpu") -> Finding:
    return finding(
        id=stable_id("error", key, n), kind="error", key=key, window_end_ms=NOON + at_ms,
        began_ms=NOON + at_ms, until_ms=NOON + at_ms, explanation=None,
        reason="ValueError: no\nscore", peak_p_value=0.0,
    )  # fmt: skip


def shown(observed: float, at_ms: int = NOON, expected: float = 12.4) -> Explanation:
    return Explanation(
        observed={"value": observed}, expected={"value": expected}, variates={"value": 1.0},
        time_ms=at_ms,
    )  # fmt: skip


def later(n: int, at_ms: int, *, until_ms: int, **changes: Any) -> Finding:
    """Finding ``n`` of the episode, on the window that ends ``at_ms`` after noon."""
    changes.setdefault("state", "continues")
    return finding(sequence=n, window_end_ms=NOON + at_ms, until_ms=NOON + until_ms, **changes)
