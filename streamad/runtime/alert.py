"""The plain alert job: findings in, alerts out, in the order of the findings' log.

One transaction holds the alerts, what changed of the open ones, and the findings' offsets; so an
alert is opened once and resolved once, however often the process dies in between.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from dataclasses import dataclass, field

from streamad.alerts.operator import AlertOperator
from streamad.alerts.state import AlertState
from streamad.config import PipelineConfig
from streamad.operators.findings import quarantine
from streamad.ports import (
    AlertRecords,
    Fault,
    Member,
    Messages,
    Outgoing,
    Progress,
    Source,
    Telemetry,
    no_fault,
)
from streamad.records import Alert, Rejected
from streamad.runtime.loop import Loop
from streamad.runtime.placing import Clock
from streamad.runtime.recovery import read_note, settings_number

logger = logging.getLogger(__name__)

_TICK_S = 60.0


@dataclass(slots=True, kw_only=True)
class _Part:
    """One partition of the findings at work."""

    source: Source
    state: AlertState
    position: int
    records: list[Outgoing] = field(default_factory=list)
    dirty: bool = False
    tick_due_s: float = 0.0


class AlertLoop(Loop[_Part]):
    """Make alerts of the findings a member is given; see `Loop` for what all stages share."""

    def __init__(  # noqa: PLR0913 - ports, all by keyword
        self,
        config: PipelineConfig,
        operator: AlertOperator,
        *,
        member: Member,
        records: AlertRecords,
        clock: Clock,
        telemetry: Telemetry | None = None,
        fault: Fault = no_fault,
    ) -> None:
        super().__init__(config, member=member, clock=clock, telemetry=telemetry, fault=fault)
        self._operator, self._records = operator, records
        self._renew = self._from_first = False
        self._settings = settings_number(config.state_checksum())

    def _take(self, polled: Sequence[Messages]) -> None:
        for messages in polled:
            part = self.parts[messages.source]
            findings, rejected = self._records.findings(messages)
            alerts = self._operator.process(part.state, findings)
            part.records += self._records.rejected(messages, rejected)
            self._keep(part, alerts)
            part.position = int(messages.offsets[-1]) + 1
            self._ends.heard(part.source, self._clock.seconds())
            for finding, _ in findings:
                self._telemetry.count("alert_findings_total", state=finding.state)

    def _set_aside(self, message: Messages, why: str) -> list[Outgoing]:
        """Open an alert on a record that is no use; return its dead letter."""
        part, now_ms = self.parts[message.source], self._clock.wall_ms()
        at = (*message.source, int(message.offsets[0]))
        told = quarantine(self._config, at=at, now_ms=now_ms, reason=why)
        self._keep(part, self._operator.process(part.state, [(told, now_ms)]))
        letter = Rejected(message=0, reason="quarantined", detail=why, payload=None)
        return self._records.rejected(message, [letter])

    def renewed(self, topic: str) -> None:
        """Note, from any thread, that a topic was deleted and made anew; see `turn`."""
        if topic == self._config.topic("findings"):
            # Set first: `turn` may run in between.
            self._from_first = True
        self._renew = True

    def _prepare(self) -> None:
        """Have all that is known of alerts written again: its topic may be a new one."""
        if self._renew:
            self._renew = False
            for part in self.parts.values():
                part.state.change_all()
                part.dirty = True
        if self._from_first:
            # Offsets are of the topic that was: where the new one is longer by now, all before
            # them would be passed over. What is read twice changes nothing.
            self._from_first = False
            for source, part in self.parts.items():
                part.position, part.dirty = 0, True
                self._member.place(source, 0)

    def _keep(self, part: _Part, alerts: Sequence[Alert]) -> None:
        part.records += self._records.alerts(alerts)
        part.dirty = True
        if withheld := part.state.counts.pop("alerts_withheld", 0):
            self._telemetry.count("alert_withheld_total", withheld)
        for alert in alerts:
            self._telemetry.count("alert_alerts_total", state=alert.state)
            if alert.past and alert.state == "opened":
                self._telemetry.count("alert_past_total")

    def _pass_time(self, now_s: float) -> None:
        """Resolve what nobody will: its outcome is committed like that of any finding."""
        for part in self.parts.values():
            self._pass_over(part, now_s)
            if now_s < part.tick_due_s:
                continue
            part.tick_due_s = now_s + _TICK_S
            if len(part.state) and self._member.end_reached(part.source) is not None:
                alerts = self._operator.tick(part.state, self._clock.wall_ms())
                if alerts:
                    self._keep(part, alerts)

    def _commit(self, dirty: Sequence[_Part]) -> tuple[str, int]:
        for part in dirty:
            changes = part.state.drain_changes()
            if changes:
                part.records += self._records.state(part.source, changes, part.state.clock_ms)
        records = [record for part in dirty for record in part.records]
        note = json.dumps({"settings": self._settings})
        self._member.commit(
            records, {part.source: Progress(offset=part.position, note=note) for part in dirty}
        )
        self._fault("after_commit")
        for part in dirty:
            part.records, part.dirty = [], False
        self._telemetry.gauge("alert_open", sum(len(part.state) for part in self.parts.values()))
        return "alert", len(records)

    def _discard(self, part: _Part, settings: int) -> None:
        """Resolve what was opened under other settings: those findings will never have an end.

        settings : of whoever committed last
        """
        if settings == self._settings or self._config.delivery.on_state_mismatch != "fresh":
            return
        part.dirty = True
        if alerts := self._operator.discard(part.state):
            logger.warning(
                "%s: %d alerts were opened under other settings; resolved, since "
                "delivery.on_state_mismatch: fresh discards what they wait for",
                part.source,
                len(alerts),
            )
            self._keep(part, alerts)

    def _place(self, source: Source) -> None:
        first, after = self._member.log.bounds(source.topic)[source]
        done = self._member.committed(source)
        position = first if done is None else done.offset
        if not first <= position <= after:
            logger.error(
                "findings of %s from %d on are gone; continuing at %d", source, position, first
            )
            self._telemetry.count("input_offset_out_of_range_total", topic=source.topic)
            position = first
        part = _Part(source=source, state=self._operator.new_state(), position=position)
        # Even without an offset, as after a group was deleted: findings that are read again must
        # not open again what is open, or was resolved.
        records, clock_ms = self._records.load(source)
        if damaged := part.state.load(records):
            name, why = next(iter(damaged.items()))
            logger.error(
                "%s: the state of %d alerts cannot be read, they will not be resolved; the first "
                "is %r: %s",
                source,
                len(damaged),
                name,
                why,
            )
        if clock_ms is not None:
            part.state.clock_ms = max(part.state.clock_ms, clock_ms)
        part.dirty = done is None
        if done is not None:
            self._discard(part, read_note(done.note).get("settings", self._settings))
        now_s = self._clock.seconds()
        part.tick_due_s = now_s + _TICK_S
        self._ends.heard(source, now_s)
        self.parts[source] = part
        self._member.place(source, position)
        if done is None:
            self._commit_softly([part])
        logger.info(
            "%s resumes at offset %d with %d open alerts", source, position, len(part.state)
        )
