"""The desk: findings in the order of their log become alerts, incidents, and pages.

Pure, as the operators are: state comes in as an argument, and the only clock is the times the log
holds, so a replay of the log decides the same. Three questions, in this order:

1. Is an episode strong enough? `streamad.paging.budget` sets the boundary of its group, and
   `streamad.alerts.operator` gives the alert its life-cycle.
2. What belongs together? `streamad.paging.incidents` makes one incident of alerts that are linked.
3. Does the incident page? Once, if nothing stands against it: a silence, what people answered, the
   soak of a new series, the tokens of its group. What does not page is counted, and reported in a
   digest.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Final, cast

from streamad.alerting.config import AlertingConfig
from streamad.alerting.levels import level_of
from streamad.alerts.operator import AlertOperator
from streamad.alerts.scale import Scale
from streamad.config import PipelineConfig
from streamad.incidents import (
    Affected,
    Digest,
    Feedback,
    Incident,
    IncidentState,
    SeverityWord,
    Silence,
)
from streamad.paging import wording
from streamad.paging.answers import Answers
from streamad.paging.boundary import Boundary
from streamad.paging.budget import strength
from streamad.paging.flapping import Flapping
from streamad.paging.gate import Gate
from streamad.paging.incidents.causes import Suspect, causes, suspects
from streamad.paging.incidents.linking import Linker, Place
from streamad.paging.incidents.members import affected, common, evidence, implicated, worth
from streamad.paging.incidents.topology import Topology
from streamad.paging.likeness import traits_of
from streamad.paging.naming import Naming
from streamad.paging.silences import Silences
from streamad.paging.state import MAX_INCIDENTS, DeskState, Life
from streamad.records import Alert, Finding, stable_id
from streamad.triage.recognise import Recogniser

RAISED: Final = 1.25
"""An incident is updated at once when its peak severity has grown by this factor."""
MAX_SHOWN: Final = 50
"""Members that the record of an incident names."""
SWEEP_MS: Final = 1_000
"""All open incidents are looked at once in this time."""


@dataclass(slots=True)
class DeskOutput:
    """What the desk has to say, each in its order."""

    alerts: list[Alert] = field(default_factory=list)
    incidents: list[Incident] = field(default_factory=list)
    digests: list[Digest] = field(default_factory=list)


class Desk:
    """Turn findings into alerts, incidents and pages by the settings of an alerting file.

    topology : what depends on what, read from ``incidents.topology``
    recogniser : of named groups of alerts, read from ``triage``
    scale : what people call a severity, read from ``severities``

    Examples
    --------
    >>> desk = Desk(PipelineConfig(name="hosts"))
    >>> desk.process(desk.new_state(), [])
    DeskOutput(alerts=[], incidents=[], digests=[])
    """

    def __init__(
        self,
        config: AlertingConfig | PipelineConfig,
        topology: Topology | None = None,
        recogniser: Recogniser | None = None,
        scale: Scale | None = None,
    ) -> None:
        self.config = AlertingConfig.of(config) if isinstance(config, PipelineConfig) else config
        self._alerts = AlertOperator(self.config)
        self._scale = scale
        self._linker = Linker(self.config.incidents, topology)
        self._flapping = Flapping(self.config.incidents)
        self._boundary = Boundary(self.config)
        self._answers = Answers(self._boundary.enter)
        self._naming = Naming(recogniser)
        self._gate = Gate(
            self.config,
            boundary=self._boundary,
            silences=Silences(self.config.silences),
            answers=self._answers,
            lead=lambda life: self._lead(life, self._ranked(life)),
        )

    def name_by(self, recogniser: Recogniser | None) -> None:
        """Name alerts by other groups from now on, None: by none; those open keep their name."""
        self._naming = Naming(recogniser)

    def reword(self, config: AlertingConfig, scale: Scale | None) -> None:
        """Decide as before, with other links and words of severity from now on.

        config : differs in live settings only, see `streamad.config.live`
        """
        self.config, self._scale = config, scale
        self._alerts = AlertOperator(config)

    def new_state(self) -> DeskState:
        """Return a state without alerts."""
        return DeskState(alerts=self._alerts.new_state(), index=self._linker.new_index())

    def process(self, state: DeskState, findings: Sequence[tuple[Finding, int]]) -> DeskOutput:
        """Take findings in the order of their log.

        findings : each with the time in ms its record was written to the log
        """
        out = DeskOutput()
        for finding, recorded_ms in findings:
            before_ms, state.clock_ms = state.clock_ms, max(state.clock_ms, recorded_ms)
            judged, beside = self._boundary.judge(state, finding)
            judged = self._answers.judge(state, judged, beside)
            alerts = self._alerts.process(state.alerts, [(judged, recorded_ms)], beside=beside)
            alerts = self._naming.named(state.alerts, alerts)
            out.alerts += alerts
            for alert in alerts:
                self._attach(state, alert, judged, out)
            # By the log's clock alone, so that the size of batches changes nothing.
            if before_ms // SWEEP_MS != state.clock_ms // SWEEP_MS:
                self._pass_time(state, out)
        return out

    def answer(
        self, state: DeskState, answers: Sequence[tuple[Feedback | Silence, int]]
    ) -> DeskOutput:
        """Take what people answered, in the order of its log; see `streamad.paging.answers`.

        answers : each with the time in ms its record was written to the log
        """
        out = DeskOutput()
        for answer, recorded_ms in answers:
            state.clock_ms = max(state.clock_ms, recorded_ms)
            life = self._answers.take(state, answer)
            if life is not None:
                self._gate.page(state, life)
                self._send(state, life, "updated", out)
        self._pass_time(state, out)
        return out

    def tick(self, state: DeskState, now_ms: int) -> DeskOutput:
        """Let time pass where no finding comes; a runtime that calls this logs ``now_ms``."""
        alerts = self._alerts.tick(state.alerts, now_ms)
        out = DeskOutput(alerts=self._naming.named(state.alerts, alerts))
        for alert in out.alerts:
            self._attach(state, alert, None, out)
        self._pass_time(state, out)
        return out

    def discard(self, state: DeskState) -> DeskOutput:
        """Resolve every open alert, because the state its end would come from was discarded."""
        alerts = self._alerts.discard(state.alerts)
        out = DeskOutput(alerts=self._naming.named(state.alerts, alerts))
        for alert in out.alerts:
            self._attach(state, alert, None, out)
        for life in list(state.incidents.values()):
            self._resolve(state, life, out)
        return out

    # ------------------------------------------------------------------ what belongs together?

    def _attach(
        self, state: DeskState, alert: Alert, finding: Finding | None, out: DeskOutput
    ) -> None:
        life = state.incident_of(alert.id)
        if life is None:
            if alert.state == "opened":
                self._admit(state, alert, finding, out)
            return
        known = life.members.get(alert.id)
        if known is not None:
            state.put(life, affected(alert, known))
            if alert.id == life.last.leader:
                life.traits = traits_of(alert)
        elif alert.state == "resolved":
            state.leave_out(life, alert.id, is_open=False)
        self._changed(state, life, out)

    def _admit(
        self, state: DeskState, alert: Alert, finding: Finding | None, out: DeskOutput
    ) -> None:
        """Have an alert that opens join the incident it is linked to, or open one of its own."""
        member = implicated(affected(alert, None), finding)
        flapping = self._flapping.came_back(state, alert.tenant, member)
        place = Place(flapping) if flapping else self._linker.find(state, alert.tenant, member)
        self._linker.learn(state.habits, alert.tenant, member)
        if place is None:
            self._open(state, alert, member, finding, out)
            return
        life = place.life
        for other in place.absorbs:
            self._merge(state, other, life, out)
        life.last = replace(life.last, n_members=life.last.n_members + 1)
        life.past &= alert.past
        life.soaking_until_ms = min(life.soaking_until_ms, self._gate.soaks_until(finding))
        self._hold(state, life, member)
        self._changed(state, life, out)

    def _changed(self, state: DeskState, life: Life, out: DeskOutput) -> None:
        life.due, life.quiet_ms = True, 0 if state.n_open(life) else state.clock_ms
        self._renew(state, life, out)

    def _hold(self, state: DeskState, life: Life, member: Affected) -> None:
        """Have an incident hold a member; where it is full, the weakest is counted only."""
        if len(life.members) >= self.config.incidents.max_members:
            tally = state.tally(life)
            others = (one for one in life.members if one != life.last.leader)
            if tally.weakest is None:
                tally.weakest = min(others, key=lambda one: worth(life.members[one]), default=None)
            weakest = life.members.get(tally.weakest or "")
            if weakest is None or worth(member) < worth(weakest):
                state.leave_out(life, member.alert, is_open=member.open)
                return
            state.leave_out(life, weakest.alert, is_open=weakest.open)
        state.put(life, member)

    def _merge(self, state: DeskState, life: Life, into: Life, out: DeskOutput) -> None:
        """Have one incident take the alerts of another, which is resolved with that reason."""
        life.last = replace(life.last, merged_into=into.last.id)
        self._send(state, life, "resolved", out)
        into.last = replace(
            into.last,
            n_members=into.last.n_members + life.last.n_members,
            acknowledged=into.last.acknowledged or life.last.acknowledged,
            verdict=into.last.verdict or life.last.verdict,
        )
        into.past &= life.past
        into.soaking_until_ms = min(into.soaking_until_ms, life.soaking_until_ms)
        into.opened_clock_ms = min(into.opened_clock_ms, life.opened_clock_ms)
        self._flapping.merged(state, life, into)
        state.move_surplus(life, into)
        state.close(life.last.id)
        for member in life.members.values():
            self._hold(state, into, member)

    def _open(
        self,
        state: DeskState,
        alert: Alert,
        member: Affected,
        finding: Finding | None,
        out: DeskOutput,
    ) -> None:
        while len(state.incidents) >= MAX_INCIDENTS:
            self._resolve(state, next(iter(state.incidents.values())), out)
        incident = Incident(
            id=stable_id(self.config.name, "incident", alert.id), sequence=-1, state="opened",
            name=self.config.name, tenant=alert.tenant, group=alert.group, groups=(alert.group,),
            pipelines=(alert.pipeline,), detectors=(alert.detector,), entity=alert.entity,
            began_ms=alert.began_ms, until_ms=alert.until_ms, opened_ms=alert.time_ms,
            time_ms=alert.time_ms, resolved_ms=None, severity=alert.severity,
            strength=evidence(member), threshold=strength(alert.threshold_p), paged_ms=None,
            withheld="", leader=alert.id, members=(), n_members=1, n_open=1, causes=(),
            summary=alert.summary,
        )  # fmt: skip
        life = Life(
            last=incident,
            members={},
            number=state.next_number,
            reported_ms=alert.time_ms,
            reported_peak=0.0,
            opened_clock_ms=state.clock_ms,
            due=True,
            past=alert.past,
            soaking_until_ms=self._gate.soaks_until(finding),
            traits=traits_of(alert),
        )
        state.next_number += 1
        state.put(life, member)
        self._flapping.opened(state, life, member)
        self._renew(state, life, out)

    def _renew(self, state: DeskState, life: Life, out: DeskOutput) -> None:
        """Take into the record what is known by now; send it where it is due."""
        changed = self._gate.page(state, life)
        if not (changed or life.due):
            return
        state.touch(life)
        peak = state.tally(life).peak
        first, paged = life.last.sequence < 0, changed and life.last.paged_ms is not None
        late = state.clock_ms - life.reported_ms >= self.config.incidents.update_every
        if first or paged or late or peak >= life.reported_peak * RAISED:
            self._send(state, life, "opened" if first else "updated", out)

    def _send(self, state: DeskState, life: Life, what: IncidentState, out: DeskOutput) -> None:
        life.last = self._record(state, life, what)
        life.reported_ms, life.reported_peak = state.clock_ms, life.last.severity
        life.due = False
        state.counts[f"incidents_{what}"] += 1
        out.incidents.append(life.last)
        if what != "resolved":
            state.touch(life)

    def _record(self, state: DeskState, life: Life, what: IncidentState) -> Incident:
        ranked = self._ranked(life)
        self._lead(life, ranked)
        members = sorted(life.members.values(), key=lambda m: (-m.strength, m.began_ms, m.alert))
        leader = life.members[life.last.leader]
        shown = [leader, *(m for m in members if m is not leader)][:MAX_SHOWN]
        made = replace(
            life.last,
            sequence=life.last.sequence + 1,
            state=what,
            group=life.last.group if life.last.paged_ms is not None else leader.group,
            groups=tuple(sorted({m.group for m in members})[:MAX_SHOWN]),
            pipelines=tuple(sorted({m.pipeline for m in members})[:MAX_SHOWN]),
            detectors=tuple(sorted({m.detector for m in members})[:MAX_SHOWN]),
            entity=common(members),
            began_ms=min(m.began_ms for m in members),
            until_ms=max(m.until_ms for m in members),
            time_ms=max(state.clock_ms, life.last.time_ms),
            resolved_ms=state.clock_ms if what == "resolved" else None,
            severity=max(m.peak_severity for m in members),
            strength=max(map(evidence, members)),
            members=tuple(shown),
            n_open=state.n_open(life),
            causes=tuple(causes(ranked)),
            links=leader.links,
            alike=self._answers.n_dismissed(state, life),
        )
        named = self._scale.word(made.strength) if self._scale else level_of(made.severity)
        made = replace(made, level=cast("SeverityWord", named))
        scope = wording.scope_of(made, ranked)
        return replace(made, summary=wording.summarise(made, scope, life.flaps_since_ms))

    def _ranked(self, life: Life) -> list[Suspect]:
        return suspects(list(life.members.values()), self._linker.linking)

    @staticmethod
    def _lead(life: Life, ranked: Sequence[Suspect]) -> None:
        """Have the probable cause lead, until somebody was paged: then the page's text stays."""
        lead = next((one.lead for one in ranked if one.lead is not None), None)
        if life.last.paged_ms is None and lead is not None:
            life.last = replace(life.last, leader=lead.alert)

    def _resolve(self, state: DeskState, life: Life, out: DeskOutput) -> None:
        self._send(state, life, "resolved", out)
        self._answers.remember(state, life)
        state.close(life.last.id)

    # ------------------------------------------------------------------ time

    def _pass_time(self, state: DeskState, out: DeskOutput) -> None:
        """Resolve what has been quiet, page what was held back, and send what is due."""
        now_ms = state.clock_ms
        for life in list(state.incidents.values()):
            if life.quiet_ms and now_ms >= life.quiet_ms + self._flapping.quiet_for(life):
                self._resolve(state, life, out)
            elif not life.quiet_ms and (life.due or life.last.paged_ms is None):
                self._renew(state, life, out)
        out.digests += self._boundary.digests(state)
