"""The plain alert job: findings in, alerts and incidents out, in the order of the findings' log.

One transaction holds the alerts, the incidents, what changed of the open ones, and the findings'
offsets; so an alert is opened once and resolved once, however often the process dies in between.

Findings of several pipelines meet at one *desk* per partition number: a tenant's findings have the
same partition number in every topic, so one desk sees all that a budget or an incident spans.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

from streamad.alerting.config import AlertingConfig
from streamad.alerts.scale import Scale
from streamad.config import PipelineConfig
from streamad.operators.findings import set_aside
from streamad.paging.desk import Desk, DeskOutput
from streamad.paging.state import DeskState
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
from streamad.records import Rejected
from streamad.runtime.loop import Loop
from streamad.runtime.placing import Clock
from streamad.runtime.recovery import read_note, settings_number
from streamad.triage.recognise import Recogniser

logger = logging.getLogger(__name__)

_TICK_S = 60.0


@dataclass(slots=True, kw_only=True)
class _Table:
    """The state of one desk, shared by the partitions of equal number."""

    source: Source
    state: DeskState
    records: list[Outgoing] = field(default_factory=list)
    tick_due_s: float = 0.0


@dataclass(slots=True, kw_only=True)
class _Part:
    """One partition of findings at work."""

    source: Source
    table: _Table
    position: int
    dirty: bool = False


class Staged(Protocol):
    """Loads a new file of triage beside the job."""

    def take(self) -> Recogniser | None:
        """Return one that was loaded and not taken yet; at once."""
        ...


class AlertLoop(Loop[_Part]):
    """Make alerts and incidents of the findings a member is given; see `Loop`.

    staged : brings new names of groups; None: those of the start stay
    """

    def __init__(  # noqa: PLR0913 - ports, all by keyword
        self,
        config: AlertingConfig | PipelineConfig,
        desk: Desk,
        *,
        member: Member,
        records: AlertRecords,
        clock: Clock,
        telemetry: Telemetry | None = None,
        fault: Fault = no_fault,
        staged: Staged | None = None,
    ) -> None:
        config = AlertingConfig.of(config) if isinstance(config, PipelineConfig) else config
        super().__init__(
            config.delivery, member=member, clock=clock, telemetry=telemetry, fault=fault
        )
        self._config, self._desk, self._records = config, desk, records
        self._staged = staged
        self._tables: dict[int, _Table] = {}
        self._renew = False
        self._from_first: set[str] = set()
        self._settings = settings_number(config.state_checksum())

    def _take(self, polled: Sequence[Messages]) -> None:
        for messages in polled:
            part = self.parts[messages.source]
            rejected, out = self._decide(part, messages)
            part.table.records += self._records.rejected(messages, rejected)
            self._keep(part, out)
            part.position = int(messages.offsets[-1]) + 1
            self._ends.heard(part.source, self._clock.seconds())

    def _decide(self, part: _Part, messages: Messages) -> tuple[list[Rejected], DeskOutput]:
        if part.source.topic not in self._config.findings:
            answers, rejected = self._records.answers(messages)
            return rejected, self._desk.answer(part.table.state, answers)
        findings, rejected = self._records.findings(messages)
        for finding, _ in findings:
            self._telemetry.count("alert_findings_total", state=finding.state)
        return rejected, self._desk.process(part.table.state, findings)

    def _set_aside(self, message: Messages, why: str) -> list[Outgoing]:
        """Open an alert on a record that is no use; return its dead letter."""
        part, now_ms = self.parts[message.source], self._clock.wall_ms()
        at = (*message.source, int(message.offsets[0]))
        told = set_aside(self._config.name, at=at, now_ms=now_ms, reason=why)
        self._keep(part, self._desk.process(part.table.state, [(told, now_ms)]))
        letter = Rejected(message=0, reason="quarantined", detail=why, payload=None)
        return self._records.rejected(message, [letter])

    @property
    def desk(self) -> Desk:
        """Return the desk that decides now."""
        return self._desk

    def reword(self, config: AlertingConfig, scale: Scale | None) -> None:
        """Decide as before, with other links and words from now on; see `Loop.stage`."""
        self._desk.reword(config, scale)
        self._config = config
        self.pace(config.delivery)

    def renewed(self, topic: str) -> None:
        """Note, from any thread, that a topic was deleted and made anew; see `turn`."""
        if topic in self._config.read:
            # Set first: `turn` may run in between.
            self._from_first.add(topic)
        self._renew = True

    def _prepare(self) -> None:
        """Have all that is known of alerts written again: its topic may be a new one."""
        new = None if self._staged is None else self._staged.take()
        if new is not None:
            self._desk.name_by(new)
        if self._renew:
            self._renew = False
            for part in self.parts.values():
                part.table.state.change_all()
                part.dirty = True
        while self._from_first:
            # Offsets are of the topic that was: where the new one is longer by now, all before
            # them would be passed over. What is read twice changes nothing.
            topic = self._from_first.pop()
            for source, part in self.parts.items():
                if source.topic == topic:
                    part.position, part.dirty = 0, True
                    self._member.place(source, 0)

    def _keep(self, part: _Part, out: DeskOutput) -> None:
        state, records = part.table.state, self._records
        part.table.records += records.alerts(out.alerts)
        part.table.records += records.incidents(out.incidents, out.digests)
        part.dirty = True
        if withheld := state.alerts.counts.pop("alerts_withheld", 0):
            self._telemetry.count("alert_withheld_total", withheld)
        for alert in out.alerts:
            self._telemetry.count("alert_alerts_total", state=alert.state)
            if alert.past and alert.state == "opened":
                self._telemetry.count("alert_past_total")
        for incident in out.incidents:
            self._telemetry.count("incident_records_total", state=incident.state)
        self._count_pages(state)

    def _count_pages(self, state: DeskState) -> None:
        """Report what the desk counted since the last time."""
        names = ("pages", "withheld_", "answers_")
        for name in [name for name in state.counts if name.startswith(names)]:
            n, (what, _, label) = state.counts.pop(name), name.partition("_")
            if what == "answers":
                self._telemetry.count("feedback_answers_total", n, verdict=label)
            elif what == "withheld":
                self._telemetry.count("page_withheld_total", n, reason=label)
            else:
                self._telemetry.count("page_pages_total", n)
            if label == "overdrawn":
                self._telemetry.count("page_overdrawn_total", n)

    def _pass_time(self, now_s: float) -> None:
        """Resolve what nobody will: its outcome is committed like that of any finding."""
        for part in self.parts.values():
            self._pass_over(part, now_s)
        for number, table in self._tables.items():
            if now_s < table.tick_due_s:
                continue
            table.tick_due_s = now_s + _TICK_S
            parts = [part for part in self.parts.values() if part.source.partition == number]
            ends = [self._member.end_reached(part.source) for part in parts]
            # Findings that wait in any of its topics come first: they are older than now.
            state = table.state
            # Incidents outlast their alerts, and digests are due although nothing is open.
            waits = len(state) or state.incidents or state.budgets
            if parts and waits and None not in ends:
                out = self._desk.tick(table.state, self._clock.wall_ms())
                if out.alerts or out.incidents or out.digests:
                    self._keep(parts[0], out)

    def _commit(self, dirty: Sequence[_Part]) -> tuple[str, int]:
        tables = {part.source.partition: part.table for part in dirty}
        # What a desk knows follows from all its topics, so their offsets belong to it.
        parts = [part for part in self.parts.values() if part.source.partition in tables]
        parts += [part for part in dirty if part.source not in self.parts]
        for table in tables.values():
            changes = table.state.drain_changes()
            if changes:
                table.records += self._records.state(table.source, changes, table.state.clock_ms)
        records = [record for table in tables.values() for record in table.records]
        note = json.dumps({"settings": self._settings})
        self._member.commit(
            records, {part.source: Progress(offset=part.position, note=note) for part in parts}
        )
        self._fault("after_commit")
        for table in tables.values():
            table.records = []
        for part in parts:
            part.dirty = False
        states = [table.state for table in self._tables.values()]
        self._telemetry.gauge("alert_open", sum(map(len, states)))
        self._telemetry.gauge("incident_open", sum(len(state.incidents) for state in states))
        return "alert", len(records)

    def _forget(self, sources: Sequence[Source]) -> None:
        super()._forget(sources)
        held = {source.partition for source in self.parts}
        for number in [number for number in self._tables if number not in held]:
            del self._tables[number]

    def _discard(self, part: _Part, settings: int) -> None:
        """Resolve what was opened under other settings: those findings will never have an end.

        settings : of whoever committed last
        """
        if settings == self._settings or self._config.delivery.on_state_mismatch != "fresh":
            return
        part.dirty = True
        out = self._desk.discard(part.table.state)
        if out.alerts:
            logger.warning(
                "%s: %d alerts were opened under other settings; resolved, since "
                "delivery.on_state_mismatch: fresh discards what they wait for",
                part.source,
                len(out.alerts),
            )
            self._keep(part, out)

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
        known = self._tables.get(source.partition)
        table = known or self._load(source.partition)
        part = _Part(source=source, table=table, position=position, dirty=done is None)
        if done is not None and source.topic in self._config.findings:
            self._discard(part, read_note(done.note).get("settings", self._settings))
        now_s = self._clock.seconds()
        if known is None:
            self._catch_up(part)
        self._ends.heard(source, now_s)
        self._tables[source.partition] = table
        self.parts[source] = part
        self._member.place(source, position)
        if done is None:
            self._commit_softly([part])
        logger.info(
            "%s resumes at offset %d with %d open alerts", source, position, len(table.state)
        )

    def _catch_up(self, part: _Part) -> None:
        """Take the answers given while nobody was at work, before the findings of that time.

        A silence must not come after what it was given for. They are read once more in their turn,
        which changes nothing: answers are known by their id.
        """
        source = Source(self._config.topic("feedback"), part.source.partition)
        log = self._member.log
        if source not in (bounds := log.bounds(source.topic)):
            return
        first, after = bounds[source]
        done = self._member.committed(source)
        for messages in log.read(source, max(first, done.offset if done else first), after):
            answers, _ = self._records.answers(messages)
            self._keep(part, self._desk.answer(part.table.state, answers))

    def _load(self, partition: int) -> _Table:
        """Return the desk of a partition number as its last owner left it."""
        source = Source(self._config.findings[0], partition)
        # The last owner's transaction may be open, and be of some of its topics only: asking for
        # each waits until it has ended, and what it wrote of the desk is there to be read.
        for topic in self._config.read:
            self._member.committed(Source(topic, partition))
        state = self._desk.new_state()
        # Even without an offset, as after a group was deleted: findings that are read again must
        # not open again what is open, or was resolved.
        records, clock_ms = self._records.load(source)
        if damaged := state.load(records):
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
            state.clock_ms = max(state.clock_ms, clock_ms)
        return _Table(source=source, state=state, tick_due_s=self._clock.seconds() + _TICK_S)
