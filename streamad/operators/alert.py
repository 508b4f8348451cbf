"""Alert: findings in the order of their log become alerts with a life-cycle.

Pure, like detect: state comes in as an argument, the only clock is the times the log holds, so a
replay of the log decides the same. An alert is ``opened``, perhaps ``updated``, then ``resolved``,
each of them once and under one id, however often its findings are delivered.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from typing import Any, Final

from streamad.config import PipelineConfig
from streamad.errors import StateError
from streamad.operators.wording import ADOPTED, Event, is_over, resumed, summarise
from streamad.operators.wording import clock as clock_text
from streamad.records import Alert, Explanation, Finding

MAX_SEVERITY: Final = 10.0
"""Severity is capped: beyond, a smaller p-value says more of the tail's fit than of the world."""
RAISED: Final = 1.25
"""An alert is updated at once when its peak severity has grown by this factor."""
ERROR_QUIET_MS: Final = 600_000
"""An error has no end of its own: its alert resolves when the log is this far past the last one."""
STALE_MS: Final = 7 * 86_400_000
"""Open alerts without a finding for this long (and twice ``series.ttl``) are closed: detect started
over, or its key moved, and the end of the episode will never come."""
MAX_OPEN: Final = 100_000
MAX_CLOSED: Final = 10_000
"""How many alerts are held, open and (against findings delivered again) resolved."""
RECORD_VERSION: Final = 2
"""Of the records of `AlertState`. It rises when an older streamad can no longer read them; a field
with a default may be added under the same version. Records without a version are of version 1."""


def severity(p_value: float, *, level: float) -> float:
    """Return how far beyond the boundary a p-value lies: 1.0 at ``level``, 2.0 at its square.

    It grows as ``p_value`` falls, lies in 0 .. `MAX_SEVERITY`, and is 0 for NaN: what nobody knows
    pages nobody.

    Examples
    --------
    >>> [round(severity(p, level=1e-4), 6) for p in (1.0, 1e-2, 1e-4, 1e-8, 0.0)]
    [0.0, 0.5, 1.0, 2.0, 10.0]
    """
    if math.isnan(p_value) or p_value >= 1.0:
        return 0.0
    if p_value <= 0.0:
        return MAX_SEVERITY
    return min(MAX_SEVERITY, math.log(p_value) / math.log(level))


@dataclass(slots=True)
class _Life:
    """An open alert: its last record, and what the findings since have changed.

    sequence : of the last finding taken; began_ms, until_ms : of the event; peak : greatest
    severity so far; reported_peak, reported_ms : of the last alert sent; touched_ms : the log's
    clock at the last finding; n_errors : windows an error alert stands for; strongest : explanation
    of the strongest finding, finite values only; strength : that finding's severity and score.
    """

    last: Alert
    sequence: int
    began_ms: int
    peak: float
    reported_peak: float
    reported_ms: int
    touched_ms: int
    n_errors: int = 0
    until_ms: int = -(2**63)
    strongest: Explanation | None = None
    strength: tuple[float, float] = (-1.0, 0.0)

    def take(self, finding: Finding, value: float) -> None:
        """Keep the times of the event and the values at its worst.

        value : severity of the finding's own window
        """
        self.began_ms = min(self.began_ms, finding.began_ms)
        self.until_ms = max(self.until_ms, finding.until_ms)
        strength = (value, _number(finding.score))
        # The window that ends an episode is ordinary: its values are not of the event.
        inside = finding.state != "ended" and finding.explanation is not None
        if inside and strength > self.strength:
            self.strongest, self.strength = _finite(finding.explanation), strength


class AlertState:
    """Open alerts, and the ids of those resolved lately; bounded.

    It can live in a compacted topic: `drain_changes` gives what changed since it was last asked, by
    alert id (None: forget it), and `load` takes such records back.
    """

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        self.clock_ms = -(2**63)
        # Both in the order of their last touch, oldest first.
        self._open: dict[str, _Life] = {}
        self._closed: dict[str, int] = {}
        self._errors: dict[tuple[str, str], str] = {}
        self._changed: dict[str, None] = {}

    def __len__(self) -> int:
        return len(self._open)

    @property
    def open_alerts(self) -> list[Alert]:
        """Return the open alerts as last sent, the longest untouched first."""
        return [life.last for life in self._open.values()]

    def drain_changes(self) -> dict[str, dict[str, Any] | None]:
        """Return records changed since the last call, JSON-ready; None stands for a tombstone."""
        changed, self._changed = self._changed, {}
        return {alert_id: self._record(alert_id) for alert_id in changed}

    def load(self, records: Mapping[str, Mapping[str, Any] | None]) -> None:
        """Take back what `drain_changes` gave, the newest of each id, into an empty state.

        Raises StateError for a record of a newer version, or one that is not readable.
        """
        present = [(i, record) for i, record in records.items() if record is not None]
        for alert_id, record in present:
            _check_version(alert_id, record)
        for alert_id, record in sorted(present, key=lambda item: (item[1]["touched_ms"], item[0])):
            self.clock_ms = max(self.clock_ms, int(record["touched_ms"]))
            if "closed" in record:
                self._closed[alert_id] = int(record["touched_ms"])
            else:
                self._put(alert_id, _life_of(alert_id, record))
        self._changed.clear()

    def _record(self, alert_id: str) -> dict[str, Any] | None:
        if alert_id in self._open:
            return {"version": RECORD_VERSION, **asdict(self._open[alert_id])}
        if alert_id in self._closed:
            touched_ms = self._closed[alert_id]
            return {"version": RECORD_VERSION, "closed": True, "touched_ms": touched_ms}
        return None

    # ------------------------------------------------------------------ for the operator alone

    def is_closed(self, alert_id: str) -> bool:
        """Say whether the alert was resolved lately."""
        return alert_id in self._closed

    def life(self, alert_id: str) -> _Life | None:
        """Return an open alert."""
        return self._open.get(alert_id)

    def error_of(self, finding: Finding) -> str:
        """Return the id of the one alert the errors of this detector and key share."""
        return self._errors.get((finding.detector, finding.key), finding.id)

    def touch(self, alert_id: str, life: _Life) -> None:
        """Keep an open alert, as the last one touched."""
        self._open.pop(alert_id, None)
        life.touched_ms = self.clock_ms
        self._put(alert_id, life)
        self._changed[alert_id] = None

    def close(self, alert_id: str) -> None:
        """Turn an open alert into one that is remembered as resolved."""
        last = self._open.pop(alert_id).last
        if last.kind == "error":
            self._errors.pop((last.detector, last.key), None)
        self._closed[alert_id] = self.clock_ms
        self._changed[alert_id] = None
        while len(self._closed) > MAX_CLOSED:
            oldest = next(iter(self._closed))
            del self._closed[oldest]
            self._changed[oldest] = None

    def abandoned(self, *, stale_ms: int) -> list[_Life]:
        """Return alerts whose end will not come: quiet errors, stale ones, those over the bound."""
        gone: dict[str, _Life] = {}
        # Both tables are in the order of touch, so nothing is looked at beyond the first fresh one.
        for alert_id in self._errors.values():
            if self._open[alert_id].touched_ms + ERROR_QUIET_MS > self.clock_ms:
                break
            gone[alert_id] = self._open[alert_id]
        surplus = len(self._open) - MAX_OPEN
        for place, (alert_id, life) in enumerate(self._open.items()):
            if life.touched_ms + stale_ms > self.clock_ms and place >= surplus:
                break
            gone[alert_id] = life
        return list(gone.values())

    def _put(self, alert_id: str, life: _Life) -> None:
        self._open[alert_id] = life
        if life.last.kind == "error":
            at = (life.last.detector, life.last.key)
            self._errors.pop(at, None)
            self._errors[at] = alert_id


def _check_version(alert_id: str, record: Mapping[str, Any]) -> None:
    version = record.get("version", 1)
    if not isinstance(version, int) or version > RECORD_VERSION:
        msg = (
            f"the state of alert {alert_id} has format {version!r}, and this streamad reads up to "
            f"{RECORD_VERSION}: a newer one wrote it. Run that version; or, to give up the alerts "
            "that are open, delete the pipeline's alert-state topic"
        )
        raise StateError(msg)
    if not isinstance(record.get("touched_ms"), int):
        raise StateError(_unreadable(alert_id, "touched_ms is missing"))


def _life_of(alert_id: str, record: Mapping[str, Any]) -> _Life:
    """Build an open alert from a record of this version or an earlier one."""
    try:
        last = Alert(**_fields_of(Alert, record["last"]))
        life = _Life(**{**_fields_of(_Life, record), "last": last})
        if isinstance(record.get("strongest"), Mapping):
            life.strongest = Explanation(**_fields_of(Explanation, record["strongest"]))
        life.strength = (float(life.strength[0]), float(life.strength[1]))
    except (KeyError, TypeError, ValueError, AttributeError, IndexError) as error:
        raise StateError(_unreadable(alert_id, f"{type(error).__name__}: {error}")) from error
    if record.get("version", 1) == 1:
        # Version 1 kept neither the event's end nor its worst values: the last record stands in.
        life.until_ms = max(life.began_ms, last.window_end_ms)
        life.last = replace(last, began_ms=life.began_ms, until_ms=life.until_ms)
        if last.explanation:
            life.strongest = Explanation(
                observed=last.observed,
                expected=last.expected,
                variates=last.explanation,
                time_ms=last.window_end_ms,
            )
            life.strength = (life.peak, _number(last.score))
    return life


def _fields_of(kind: type, record: Mapping[str, Any]) -> dict[str, Any]:
    """Leave out what this version does not know; what is missing has the default of its field."""
    return {one.name: record[one.name] for one in fields(kind) if one.name in record}


def _unreadable(alert_id: str, why: str) -> str:
    return (
        f"the state of alert {alert_id} cannot be read ({why}); to give up the alerts that are "
        "open, delete the pipeline's alert-state topic"
    )


class AlertOperator:
    """Turn findings into alerts by the settings of ``alerts``.

    Examples
    --------
    >>> from streamad.config import PipelineConfig
    >>> operator = AlertOperator(PipelineConfig(name="hosts"))
    >>> operator.process(operator.new_state(), [])
    []
    """

    def __init__(self, config: PipelineConfig) -> None:
        self.config = config
        self._update_ms = config.alerts.update_every
        self._stale_ms = max(STALE_MS, 2 * config.series.ttl)
        runbook = config.alerts.runbook
        self._links = {"runbook": runbook} if runbook else {}

    def new_state(self) -> AlertState:
        """Return a state without alerts."""
        return AlertState()

    def process(self, state: AlertState, findings: Sequence[tuple[Finding, int]]) -> list[Alert]:
        """Take findings in the order of their log; return the alerts to send, in order.

        findings : each with the time in ms its record was written to the log
        """
        return [alert for finding, recorded_ms in findings
                for alert in self._step(state, finding, recorded_ms)]  # fmt: skip

    def tick(self, state: AlertState, now_ms: int) -> list[Alert]:
        """Let time pass where no finding comes; a runtime that calls this logs ``now_ms``."""
        state.clock_ms = max(state.clock_ms, now_ms)
        return self._give_up(state)

    def _step(self, state: AlertState, finding: Finding, recorded_ms: int) -> Iterable[Alert]:
        state.counts[f"findings_{finding.kind}_{finding.state}"] += 1
        state.clock_ms = max(state.clock_ms, recorded_ms)
        yield from self._give_up(state)
        take = self._take_error if finding.kind == "error" else self._take
        alert = take(state, finding, recorded_ms)
        if alert is not None:
            state.counts[f"alerts_{alert.state}"] += 1
            yield alert

    # ------------------------------------------------------------------ one finding

    def _take(self, state: AlertState, finding: Finding, recorded_ms: int) -> Alert | None:
        life = state.life(finding.id)
        if life is None:
            late = finding.state == "ended" or state.is_closed(finding.id)
            if late or self._severity(finding) < 1.0:
                return None
            return self._open(state, finding, recorded_ms)
        if finding.sequence <= life.sequence:
            return None
        life.sequence = finding.sequence
        life.peak = max(life.peak, self._severity(finding))
        life.take(finding, self._own(finding))
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
            return self._open(state, finding, recorded_ms)
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

    def _open(self, state: AlertState, finding: Finding, recorded_ms: int) -> Alert:
        past = recorded_ms - finding.window_end_ms > self.config.alerts.max_age
        value = self._severity(finding)
        is_error = finding.kind == "error"
        alert = Alert(
            id=finding.id, sequence=0, state="opened", kind=finding.kind,
            pipeline=finding.pipeline, detector=finding.detector, artifact=finding.artifact,
            tenant=finding.tenant, group=finding.group, key=finding.key, entity=finding.entity,
            opened_ms=finding.window_end_ms, resolved_ms=None, severity=value, peak_severity=value,
            threshold_p=finding.alert_p, summary="", past=past, links=self._links,
            began_ms=finding.began_ms, until_ms=finding.until_ms, observed={}, expected={},
            explanation={}, **_of_window(finding),
        )  # fmt: skip
        life = _Life(
            last=alert,
            sequence=finding.window_end_ms if is_error else finding.sequence,
            began_ms=finding.began_ms,
            peak=value,
            reported_peak=value,
            reported_ms=finding.window_end_ms,
            touched_ms=state.clock_ms,
            n_errors=int(is_error),
        )
        life.take(finding, self._own(finding))
        life.last = alert = replace(alert, **self._of_event(life, finding, resolved=False))
        state.touch(alert.id, life)
        return alert

    def _maybe_update(
        self, state: AlertState, alert_id: str, life: _Life, finding: Finding
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

    def _following(self, life: _Life, finding: Finding, *, resolved: bool) -> Alert:
        return replace(
            life.last,
            sequence=life.last.sequence + 1,
            state="resolved" if resolved else "updated",
            resolved_ms=finding.window_end_ms if resolved else None,
            severity=self._severity(finding),
            peak_severity=life.peak,
            artifact=finding.artifact,
            **_of_window(finding),
            **self._of_event(life, finding, resolved=resolved),
        )

    def _of_event(self, life: _Life, finding: Finding, *, resolved: bool) -> dict[str, Any]:
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
        }

    def _shown(self, life: _Life, finding: Finding) -> tuple[Explanation | None, bool]:
        """Return values from inside the event, and whether it is over by what is known.

        They are those of the newest window while that is anomalous (of a new level that is adopted,
        too), and else those of the strongest one.
        """
        why = _finite(finding.explanation)
        if finding.state == "ended":
            return (why if finding.reason == ADOPTED and why else life.strongest), True
        if finding.kind != "anomaly":
            return why, False
        if finding.calm:
            return life.strongest, True
        return why, is_over(finding, began_ms=life.began_ms, until_ms=life.until_ms)

    def _own(self, finding: Finding) -> float:
        """Return the severity of a finding's own window."""
        return severity(finding.p_value, level=finding.alert_p)

    def _severity(self, finding: Finding) -> float:
        """Silence and errors are known, not guessed: they stand at the boundary by definition."""
        if finding.kind != "anomaly":
            return 1.0
        return severity(finding.peak_p_value, level=finding.alert_p)

    # ------------------------------------------------------------------ no finding

    def _give_up(self, state: AlertState) -> list[Alert]:
        alerts = [self._abandon(life, state.clock_ms)
                  for life in state.abandoned(stale_ms=self._stale_ms)]  # fmt: skip
        for alert in alerts:
            state.close(alert.id)
            state.counts["alerts_resolved"] += 1
        return alerts

    def _abandon(self, life: _Life, clock_ms: int) -> Alert:
        since = f"{clock_text(life.touched_ms, dated=True)} UTC"
        last = life.last
        reason, text = f"no finding since {since}", f"{last.key}: alert closed without a known end"
        if last.kind == "error":
            reason = f"no error since {since}"
            text = resumed(last.key, last.detector, life.n_errors)
        return replace(
            last,
            sequence=last.sequence + 1,
            state="resolved",
            time_ms=clock_ms,
            resolved_ms=clock_ms,
            reason=reason,
            summary=f"{text} ({reason})",
        )


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


def _finite(why: Explanation | None) -> Explanation | None:
    """Leave out of an explanation what is not finite."""
    if why is None:
        return None
    return Explanation(
        observed=_known(why.observed),
        expected=_known(why.expected),
        variates=_known(why.variates),
        time_ms=why.time_ms,
    )


def _number(value: float | None) -> float:
    return value if value is not None and math.isfinite(value) else 0.0


def _known(values: Mapping[str, float]) -> dict[str, float]:
    """Leave out what is not finite: JSON cannot hold it."""
    return {
        name: value for name, value in values.items() if value is not None and math.isfinite(value)
    }
