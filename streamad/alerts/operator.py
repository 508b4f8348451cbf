"""Alert: findings in the order of their log become alerts with a life-cycle.

Pure, like detect: state comes in as an argument, the only clock is the times the log holds, so a
replay of the log decides the same. An alert is ``opened``, perhaps ``updated``, then ``resolved``,
each of them once and under one id, however often its findings are delivered.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any, Final

from streamad.alerting.config import AlertingConfig
from streamad.alerts.limits import EXEMPT, flood
from streamad.alerts.severity import (
    NOTHING_BESIDE,
    Beside,
    evidence_of,
    opens,
    severity_of,
)
from streamad.alerts.state import ENDLESS, AlertState, Life, finite
from streamad.config import PipelineConfig
from streamad.links import fill, span_of
from streamad.records import Alert, Explanation, Finding
from streamad.wording import ADOPTED, Event, is_over, not_sent, resumed, summarise
from streamad.wording import clock as clock_text

RAISED: Final = 1.25
"""An alert is updated at once when its peak severity has grown by this factor."""
EVIDENT: Final = ("anomaly", "no_data")
"""Kinds whose severity is made of evidence; others stand at the boundary."""


class AlertOperator:
    """Turn findings into alerts by the settings of ``alerts``.

    Examples
    --------
    >>> from streamad.config import PipelineConfig
    >>> operator = AlertOperator(PipelineConfig(name="hosts"))
    >>> operator.process(operator.new_state(), [])
    []
    """

    def __init__(self, config: AlertingConfig | PipelineConfig) -> None:
        config = AlertingConfig.of(config) if isinstance(config, PipelineConfig) else config
        self.config = config
        self._update_ms = config.alerts.update_every
        self._stale_ms = config.stale_after
        self._limit = config.alerts.limit
        runbook = config.alerts.runbook
        self._runbook = {"runbook": runbook} if runbook else {}

    def new_state(self) -> AlertState:
        """Return a state without alerts."""
        return AlertState()

    def process(
        self,
        state: AlertState,
        findings: Sequence[tuple[Finding, int]],
        *,
        beside: Beside = NOTHING_BESIDE,
    ) -> list[Alert]:
        """Take findings in the order of their log; return the alerts to send, in order.

        findings : each with the time in ms its record was written to the log; beside : what else
        is evidence. An open alert keeps what it opened with.
        """
        return [alert for finding, recorded_ms in findings
                for alert in self._step(state, finding, recorded_ms, beside)]  # fmt: skip

    def tick(self, state: AlertState, now_ms: int) -> list[Alert]:
        """Let time pass where no finding comes; a runtime that calls this logs ``now_ms``."""
        state.clock_ms = max(state.clock_ms, now_ms)
        return self._give_up(state)

    def discard(self, state: AlertState) -> list[Alert]:
        """Resolve every open alert, because the state its end would come from was discarded."""
        alerts = [
            self._closed(
                one,
                state.clock_ms,
                reason="the job started with other settings and empty state",
                text=f"{one.key}: alert closed without a known end",
            )
            for one in state.open_alerts
        ]
        for alert in alerts:
            state.close(alert.id)
            state.counts["alerts_resolved"] += 1
        return alerts

    def _step(
        self, state: AlertState, finding: Finding, recorded_ms: int, beside: Beside
    ) -> Iterable[Alert]:
        state.counts[f"findings_{finding.kind}_{finding.state}"] += 1
        state.clock_ms = max(state.clock_ms, recorded_ms)
        yield from self._give_up(state)
        if finding.kind in ENDLESS:
            alert = self._take_error(state, finding, recorded_ms)
        else:
            alert = self._take(state, finding, recorded_ms, beside)
        if alert is not None:
            state.counts[f"alerts_{alert.state}"] += 1
            yield alert

    # ------------------------------------------------------------------ one finding

    def _take(
        self, state: AlertState, finding: Finding, recorded_ms: int, beside: Beside
    ) -> Alert | None:
        life = state.life(finding.id)
        if life is None:
            if finding.state == "ended":
                state.release(finding.id, over=True)
            late = finding.state == "ended" or state.is_closed(finding.id)
            if late or not opens(finding, beside):
                return None
            return self._open_within_limits(state, finding, recorded_ms, finding.id, beside)
        if finding.sequence <= life.sequence:
            return None
        life.sequence = finding.sequence
        life.peak = max(life.peak, _severity(life, finding))
        life.take(finding, _own(finding, Beside.of_record(life.last.evidence)))
        if finding.state == "ended":
            state.close(finding.id)
            return self._following(life, finding, resolved=True)
        return self._maybe_update(state, finding.id, life, finding)

    def _take_error(self, state: AlertState, finding: Finding, recorded_ms: int) -> Alert | None:
        alert_id = state.error_of(finding)
        life = state.life(alert_id)
        if life is None:
            if finding.state == "ended" or state.is_closed(alert_id):
                return None
            # The errors of a key have ids of their own, and would be one alert.
            name = f"{finding.kind}/{finding.detector}/{finding.key}"
            return self._open_within_limits(state, finding, recorded_ms, name, NOTHING_BESIDE)
        # Errors of a key come in the order of its windows: an older one was delivered before.
        if finding.window_end_ms <= life.sequence:
            return None
        life.sequence = finding.window_end_ms
        life.take(finding, 1.0)
        if finding.state == "ended":
            state.close(alert_id)
            return self._following(life, finding, resolved=True)
        life.n_errors += 1
        return self._maybe_update(state, alert_id, life, finding)

    def _open_within_limits(
        self, state: AlertState, finding: Finding, recorded_ms: int, name: str, beside: Beside
    ) -> Alert | None:
        """Open an alert; over the limit count it, and report that in the group's flood alert.

        name : under which it is remembered that the alert was not sent
        """
        if finding.kind in EXEMPT:
            return self._open(state, finding, recorded_ms, beside)
        opened = state.opened(finding.group, state.clock_ms // self._limit.within)
        if opened.admits(finding.key, self._limit):
            state.count(finding.group, opened, finding.key)
            state.release(name, over=False)
            return self._open(state, finding, recorded_ms, beside)
        if state.is_withheld(name):
            return None
        state.withhold(name)
        state.counts["alerts_withheld"] += 1
        life, at_ms = state.flood_of(finding.group), state.clock_ms
        told = flood(
            finding,
            limit=self._limit,
            at_ms=at_ms,
            of=life.last.id if life else None,
            n=life.n_errors + 1 if life else 1,
        )
        if life is None:
            return self._open(state, told, at_ms, NOTHING_BESIDE)
        life.n_errors += 1
        life.sequence = told.sequence
        life.take(told, 1.0)
        return self._maybe_update(state, told.id, life, told)

    def _open(self, state: AlertState, finding: Finding, recorded_ms: int, beside: Beside) -> Alert:
        past = recorded_ms - finding.window_end_ms > self.config.alerts.max_age
        evidence = evidence_of(finding, beside)
        # It is an alert, so it is not below the boundary by a rounding error.
        value = max(1.0, severity_of(finding, evidence))
        is_error = finding.kind in ENDLESS
        alert = Alert(
            id=finding.id, sequence=0, state="opened", kind=finding.kind,
            pipeline=finding.pipeline, detector=finding.detector, artifact=finding.artifact,
            tenant=finding.tenant, group=finding.group, key=finding.key, entity=finding.entity,
            opened_ms=finding.window_end_ms, resolved_ms=None, severity=value, peak_severity=value,
            threshold_p=finding.alert_p, summary="", past=past,
            began_ms=finding.began_ms, until_ms=finding.until_ms, observed={}, expected={},
            explanation={}, evidence=evidence.record() if finding.kind in EVIDENT else {},
            **_of_window(finding),
        )  # fmt: skip
        life = Life(
            last=alert,
            sequence=finding.window_end_ms if is_error else finding.sequence,
            began_ms=finding.began_ms,
            peak=value,
            reported_peak=value,
            reported_ms=finding.window_end_ms,
            touched_ms=state.clock_ms,
            n_errors=int(is_error or finding.kind == "flood"),
        )
        life.take(finding, _own(finding, beside))
        life.last = alert = replace(alert, **self._of_event(life, finding, resolved=False))
        state.touch(alert.id, life)
        return alert

    def _maybe_update(
        self, state: AlertState, alert_id: str, life: Life, finding: Finding
    ) -> Alert | None:
        """Keep what the finding changed; send it when it is due or much worse."""
        due = finding.window_end_ms - life.reported_ms >= self._update_ms
        alert = None
        if due or life.peak >= life.reported_peak * RAISED:
            alert = self._following(life, finding, resolved=False)
            life.last, life.reported_peak = alert, life.peak
            life.reported_ms = finding.window_end_ms
        state.touch(alert_id, life)
        return alert

    def _following(self, life: Life, finding: Finding, *, resolved: bool) -> Alert:
        return replace(
            life.last,
            sequence=life.last.sequence + 1,
            state="resolved" if resolved else "updated",
            resolved_ms=finding.window_end_ms if resolved else None,
            severity=_severity(life, finding),
            peak_severity=life.peak,
            evidence=_evidence(life, finding),
            artifact=finding.artifact,
            **_of_window(finding),
            **self._of_event(life, finding, resolved=resolved),
        )

    def _of_event(self, life: Life, finding: Finding, *, resolved: bool) -> dict[str, Any]:
        """Return the fields that speak of the event: its times, values, and the line."""
        shown, over = self._shown(life, finding)
        event = Event(
            began_ms=life.began_ms,
            until_ms=life.until_ms,
            peak_severity=life.peak,
            shown=shown,
            over=over,
            past=life.last.past,
            n_errors=life.n_errors,
        )
        return {
            "began_ms": life.began_ms,
            "until_ms": life.until_ms,
            "observed": shown.observed if shown is not None else {},
            "expected": shown.expected if shown is not None else {},
            "explanation": shown.variates if shown is not None else {},
            "summary": summarise(finding, event, resolved=resolved),
            "links": self._links(life, finding),
        }

    def _links(self, life: Life, finding: Finding) -> dict[str, str]:
        """Return where to look: the event with a window's length before it."""
        if not self.config.alerts.links:
            return self._runbook
        span_ms = span_of(
            began_ms=life.began_ms,
            until_ms=life.until_ms,
            window_start_ms=finding.window_start_ms,
            window_end_ms=finding.window_end_ms,
        )
        made = fill(
            self.config.alerts.links,
            entity=finding.entity,
            key=finding.key,
            group=finding.group,
            pipeline=finding.pipeline,
            span_ms=span_ms,
        )
        return {**self._runbook, **made}

    def _shown(self, life: Life, finding: Finding) -> tuple[Explanation | None, bool]:
        """Return values from inside the event, and whether it is over by what is known.

        They are those of the newest window while that is anomalous (of a new level that is adopted,
        too), and else those of the strongest one.
        """
        why = finite(finding.explanation)
        if finding.state == "ended":
            return (why if finding.reason == ADOPTED and why else life.strongest), True
        if finding.kind != "anomaly":
            return why, False
        if finding.calm:
            return life.strongest, True
        return why, is_over(finding, began_ms=life.began_ms, until_ms=life.until_ms)

    # ------------------------------------------------------------------ no finding

    def _give_up(self, state: AlertState) -> list[Alert]:
        alerts = [self._abandon(life, state.clock_ms)
                  for life in state.abandoned(
                      stale_ms=self._stale_ms, flood_ms=self._limit.within)]  # fmt: skip
        for alert in alerts:
            state.close(alert.id)
            state.counts["alerts_resolved"] += 1
        state.forget_opened(state.clock_ms // self._limit.within)
        return alerts

    def _abandon(self, life: Life, clock_ms: int) -> Alert:
        since = f"{clock_text(life.touched_ms, dated=True)} UTC"
        last = life.last
        reason, text = f"no finding since {since}", f"{last.key}: alert closed without a known end"
        if last.kind == "error":
            reason = f"no error since {since}"
            text = resumed(last.key, last.detector, life.n_errors)
        elif last.kind == "clock":
            reason = f"none reported since {since}"
            text = f"{last.key}: event times were ahead"
        elif last.kind == "flood":
            reason = f"none since {since}"
            text = not_sent(last.key, life.n_errors)
        return self._closed(last, clock_ms, reason=reason, text=text)

    @staticmethod
    def _closed(last: Alert, clock_ms: int, *, reason: str, text: str) -> Alert:
        return replace(
            last,
            sequence=last.sequence + 1,
            state="resolved",
            time_ms=clock_ms,
            resolved_ms=clock_ms,
            reason=reason,
            summary=f"{text} ({reason})",
        )


def _severity(life: Life, finding: Finding) -> float:
    """Return the severity of an open alert by its newest finding."""
    return severity_of(finding, evidence_of(finding, Beside.of_record(life.last.evidence)))


def _evidence(life: Life, finding: Finding) -> dict[str, float]:
    if finding.kind not in EVIDENT:
        return {}
    return evidence_of(finding, Beside.of_record(life.last.evidence)).record()


def _own(finding: Finding, beside: Beside) -> float:
    """Return the severity of a finding's own window."""
    return evidence_of(finding, beside, p_value=finding.p_value).over(finding.alert_p)


def _of_window(finding: Finding) -> dict[str, Any]:
    """Return the fields of an alert that speak of the newest window."""
    return {
        "time_ms": finding.window_end_ms,
        "window_start_ms": finding.window_start_ms,
        "window_end_ms": finding.window_end_ms,
        "score": finding.score,
        "p_value": finding.p_value,
        "degraded": finding.degraded,
        "reason": finding.reason,
    }
