"""What the desk knows: alerts, open incidents, budgets; bounded, and kept in a compacted topic."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any, Final

from streamad.alerting.config import IncidentsConfig
from streamad.alerts.state import AlertState
from streamad.errors import StateError
from streamad.incidents import Affected, Cause, Incident
from streamad.paging.budget import GroupBudget
from streamad.paging.incidents.habits import Habits
from streamad.paging.incidents.index import OpenIndex, Tally
from streamad.paging.incidents.linking import Linker
from streamad.paging.notes import BOUNDS, check_note, kind_of

INCIDENT, BUDGET, DAY, NOTE = "incident/", "budget/", "day/", "note/"
HABIT: Final = "habit/"
"""Begin the names of the desk's own records; all others are of alerts."""
RECORD_VERSION: Final = 1
MAX_INCIDENTS: Final = 10_000
MAX_GROUPS: Final = 1_000
"""Groups with a budget of their own; further ones share that of the group `OTHERS`."""
OTHERS: Final = "(others)"
_DAMAGED = (KeyError, TypeError, ValueError, AttributeError, IndexError, OverflowError)


@dataclass(slots=True, kw_only=True)
class Life:
    """An open incident: its last record, its members by alert id, and what has changed since.

    number : counts incidents as they open; due : the record does not hold all that is known;
    reported_ms, reported_peak : of the record; opened_clock_ms : the log's clock when it opened;
    quiet_ms : since when no member is open (0: one is); traits : what its leader is like
    (`streamad.paging.likeness`); n_answered : members it had when its verdict was given;
    flaps_key : the series that flaps in it, flaps_since_ms : since when
    """

    last: Incident
    members: dict[str, Affected]
    reported_ms: int
    reported_peak: float
    opened_clock_ms: int
    number: int = 0
    quiet_ms: int = 0
    due: bool = False
    past: bool = False
    soaking_until_ms: int = 0
    traits: dict[str, Any] = field(default_factory=dict)
    n_answered: int = 0
    flaps_key: str = ""
    flaps_since_ms: int = 0


def _plain_index() -> OpenIndex:
    return Linker(IncidentsConfig()).new_index()


@dataclass(slots=True)
class DeskState:
    """Alerts, incidents and budgets of the tenants of one partition of the findings.

    notes : what people answered, by the subject it is about, as JSON-ready values; index : open
    incidents by their links, made again when they are loaded; habits : what began together;
    scratch : what can be found again from the rest, and is not kept
    """

    alerts: AlertState = field(default_factory=AlertState)
    incidents: dict[str, Life] = field(default_factory=dict)
    budgets: dict[str, GroupBudget] = field(default_factory=dict)
    notes: dict[str, dict[str, Any]] = field(default_factory=dict)
    counts: Counter[str] = field(default_factory=Counter)
    index: OpenIndex = field(default_factory=_plain_index)
    habits: Habits = field(default_factory=Habits)
    next_number: int = 0
    scratch: dict[str, Any] = field(default_factory=dict, repr=False, compare=False)
    _of_alert: dict[str, str] = field(default_factory=dict)
    _surplus: dict[str, dict[str, None]] = field(default_factory=dict)
    _changed: dict[str, None] = field(default_factory=dict)
    _kinds: dict[str, dict[str, None]] = field(default_factory=dict)
    _flapping: dict[tuple[str, str], str] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.alerts)

    @property
    def clock_ms(self) -> int:
        """Return the log's clock."""
        return self.alerts.clock_ms

    @clock_ms.setter
    def clock_ms(self, value: int) -> None:
        self.alerts.clock_ms = value

    def incident_of(self, alert_id: str) -> Life | None:
        """Return the open incident an alert belongs to."""
        name = self._of_alert.get(alert_id)
        return None if name is None else self.incidents[name]

    def tally(self, life: Life) -> Tally:
        """Return what is known of an incident's members as a whole."""
        return self.index.tally(life.last.id)

    def n_open(self, life: Life) -> int:
        """Return how many alerts of an incident are open, held by it or not."""
        return self.tally(life).n_open + len(self._surplus.get(life.last.id, ()))

    def flapping(self, tenant: str, key: str) -> Life | None:
        """Return the open incident in which a series flaps."""
        name = self._flapping.get((tenant, key))
        return None if name is None else self.incidents[name]

    def flap(self, life: Life, key: str) -> None:
        """Have a series flap in an open incident."""
        life.flaps_key = key
        self._flapping[life.last.tenant, key] = life.last.id

    def touch(self, life: Life) -> None:
        """Keep an incident that is new or has changed."""
        self.incidents[life.last.id] = life
        self._changed[INCIDENT + life.last.id] = None

    def put(self, life: Life, member: Affected) -> None:
        """Have an incident hold a member, or what became of it."""
        self.incidents[life.last.id] = life
        life.members[member.alert] = member
        self._of_alert[member.alert] = life.last.id
        self.index.put(life.last.id, life.last.tenant, member)

    def leave_out(self, life: Life, alert_id: str, *, is_open: bool) -> None:
        """Have an incident count an alert that it does not hold (any more), until it is over."""
        if life.members.pop(alert_id, None) is not None:
            self.index.drop(life.last.id, alert_id)
        if not is_open:
            self._of_alert.pop(alert_id, None)
            self._surplus.get(life.last.id, {}).pop(alert_id, None)
            return
        self._of_alert[alert_id] = life.last.id
        self._surplus.setdefault(life.last.id, {})[alert_id] = None
        self.alerts.assign(alert_id, life.last.id)

    def move_surplus(self, life: Life, into: Life) -> None:
        """Have another incident count what this one counts and does not hold."""
        for alert_id in self._surplus.pop(life.last.id, {}):
            self.leave_out(into, alert_id, is_open=True)

    def close(self, incident_id: str) -> None:
        """Forget an incident that is over."""
        life = self.incidents.pop(incident_id)
        for alert_id in (*life.members, *self._surplus.pop(incident_id, ())):
            if self._of_alert.get(alert_id) == incident_id:
                del self._of_alert[alert_id]
        if self._flapping.get((life.last.tenant, life.flaps_key)) == incident_id:
            del self._flapping[life.last.tenant, life.flaps_key]
        self.index.forget(incident_id)
        self._changed[INCIDENT + incident_id] = None

    def budget(self, group: str, pages: float) -> tuple[str, GroupBudget]:
        """Return the budget of a group and its name, made where there is none."""
        known = self.budgets.get(group)
        if known is None:
            if len(self.budgets) >= MAX_GROUPS:
                group = OTHERS
            known = self.budgets.get(group) or GroupBudget(
                pages=pages, since_ms=self.clock_ms, at_ms=self.clock_ms, digest_ms=self.clock_ms
            )
            self.budgets[group] = known
        if known.pages != pages and group != OTHERS:
            # The settings changed: what was learned of the past stays.
            known.pages = pages
            known.tokens = min(known.tokens, known.burst)
            known.base_ms = -(2**62)
        self._changed[BUDGET + group] = None
        return group, known

    def change_day(self, group: str, day: int) -> None:
        """Note that a day of a group's budget changed, or was forgotten."""
        self._changed[f"{DAY}{day}/{group}"] = None

    def put_note(self, name: str, note: dict[str, Any] | None) -> None:
        """Keep what people answered; None forgets it. The oldest goes where there are too many."""
        names = self._kinds.setdefault(kind_of(name), {})
        self.notes.pop(name, None)
        names.pop(name, None)
        if note is not None:
            self.notes[name] = note
            names[name] = None
        self._changed[NOTE + name] = None
        while len(names) > BOUNDS[kind_of(name)]:
            self.put_note(next(iter(names)), None)

    def notes_of(self, kind: str) -> Iterator[tuple[str, dict[str, Any]]]:
        """Yield the notes of a kind with their names, the one written longest ago first."""
        for name in self._kinds.get(kind, ()):
            yield name, self.notes[name]

    # ------------------------------------------------------------------ in a compacted topic

    def drain_changes(self) -> dict[str, dict[str, Any] | None]:
        """Return records changed since the last call, by name; None stands for a tombstone."""
        changed, self._changed = self._changed, {}
        own = {name: self._record(name) for name in changed}
        habits = {
            HABIT + name: None if one is None else {"version": RECORD_VERSION, **one}
            for name, one in self.habits.drain_changes().items()
        }
        return {**self.alerts.drain_changes(), **own, **habits}

    def change_all(self) -> None:
        """Have `drain_changes` give all there is, as for a topic that was deleted."""
        self.alerts.change_all()
        self.habits.change_all()
        self._changed |= dict.fromkeys(self._names())

    def _names(self) -> Iterator[str]:
        yield from (INCIDENT + name for name in self.incidents)
        yield from (NOTE + name for name in self.notes)
        for group, budget in self.budgets.items():
            yield BUDGET + group
            yield from (f"{DAY}{day}/{group}" for day in budget.days)

    def _record(self, name: str) -> dict[str, Any] | None:
        made: dict[str, Any] | None = None
        if name.startswith(INCIDENT):
            life = self.incidents.get(name.removeprefix(INCIDENT))
            made = None if life is None else asdict(life)
        elif name.startswith(NOTE):
            made = self.notes.get(name.removeprefix(NOTE))
        elif name.startswith(BUDGET):
            budget = self.budgets.get(name.removeprefix(BUDGET))
            made = None if budget is None else budget.record()
        else:
            day, _, group = name.removeprefix(DAY).partition("/")
            budget = self.budgets.get(group)
            made = None if budget is None else budget.record_of_day(int(day))
        return None if made is None else {"version": RECORD_VERSION, **made}

    def load(self, records: Mapping[str, Mapping[str, Any] | None]) -> dict[str, str]:
        """Take back what `drain_changes` gave, the newest of each name, into an empty state.

        Returns the names whose record cannot be read, and why. Raises StateError for a record of a
        newer version.
        """
        own = (INCIDENT, BUDGET, DAY, NOTE, HABIT)
        ours = {name: one for name, one in records.items() if name.startswith(own)}
        damaged = self.alerts.load({n: one for n, one in records.items() if n not in ours})
        # Budgets before their days: a day without its budget is of one that was forgotten.
        for name in sorted(ours, key=lambda name: (name.startswith(DAY), name)):
            record = ours[name]
            if record is None:
                continue
            if isinstance(record.get("version"), int) and record["version"] > RECORD_VERSION:
                msg = (
                    f"the state of {name} has format {record['version']!r}, and this streamad "
                    f"reads up to {RECORD_VERSION}: a newer one wrote it. Run that version"
                )
                raise StateError(msg)
            try:
                self._load_one(name, record)
            except _DAMAGED as error:
                damaged[name] = f"{type(error).__name__}: {error}"
        # As they opened: what follows depends on their order.
        self.incidents = dict(sorted(self.incidents.items(), key=lambda one: one[1].number))
        self.next_number = max((life.number + 1 for life in self.incidents.values()), default=0)
        for alert_id, incident in self.alerts.assigned().items():
            if incident in self.incidents and alert_id not in self._of_alert:
                self.leave_out(self.incidents[incident], alert_id, is_open=True)
        for name, note in sorted(self.notes.items(), key=lambda item: item[1]["at_ms"]):
            self.put_note(name, note)
        self.drain_changes()
        return damaged

    def _load_one(self, name: str, record: Mapping[str, Any]) -> None:
        if name.startswith(INCIDENT):
            life = _life_of(record)
            self.incidents[life.last.id] = life
            if life.flaps_key:
                self.flap(life, life.flaps_key)
            for member in life.members.values():
                self.put(life, member)
        elif name.startswith(HABIT):
            self.habits.load(name.removeprefix(HABIT), record)
        elif name.startswith(NOTE):
            own = name.removeprefix(NOTE)
            self.notes[own] = check_note(own, record)
        elif name.startswith(BUDGET):
            self.budgets[name.removeprefix(BUDGET)] = GroupBudget.of_record(record)
        else:
            day, _, group = name.removeprefix(DAY).partition("/")
            if group in self.budgets:
                self.budgets[group].load_day(int(day), record)


def _life_of(record: Mapping[str, Any]) -> Life:
    last = dict(record["last"])
    for name in ("groups", "pipelines", "detectors"):
        last[name] = tuple(last[name])
    last["members"] = tuple(map(_affected_of, last["members"]))
    last["causes"] = tuple(_made(Cause, one) for one in last["causes"])
    members = {name: _affected_of(one) for name, one in record["members"].items()}
    life: Life = _made(Life, {**record, "last": _made(Incident, last), "members": members})
    numbers = (life.reported_ms, life.opened_clock_ms, life.number, life.flaps_since_ms)
    if not all(isinstance(one, int) for one in numbers):
        msg = f"expected whole numbers as the times of an incident, got {numbers!r:.80}"
        raise TypeError(msg)
    return life


def _affected_of(record: Mapping[str, Any]) -> Affected:
    member: Affected = _made(Affected, {**record, "entities": tuple(record.get("entities", ()))})
    if not all(isinstance(ms, int) for ms in (member.began_ms, member.until_ms)):
        msg = f"expected whole numbers as the times of an alert, got {member.began_ms!r:.40}"
        raise TypeError(msg)
    texts = (member.key, member.group, *member.entity, *member.entity.values(), *member.entities)
    if not all(isinstance(text, str) for text in texts):
        msg = f"expected texts as the key and the entity of an alert, got {member.entity!r:.80}"
        raise TypeError(msg)
    return member


def _made(kind: type, record: Mapping[str, Any]) -> Any:
    """Build a record; what this version does not know is left out."""
    return kind(**{one.name: record[one.name] for one in fields(kind) if one.name in record})
