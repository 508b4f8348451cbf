"""What a pager is to be sent, by what it has been sent before. Pure: no clock, no network."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

from streamad.incidents import Digest, Incident

Change = Literal["open", "update", "acknowledge", "resolve", "digest"]
ToldState = Literal["open", "acknowledged", "resolved", "refused", "ignored"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Told:
    """What one pager was sent of one incident.

    sequence : of the record that was sent last
    reference : what the receiver needs to find it again (Slack: the message's ``ts``)
    state : ``refused``: the receiver refuses it for good; ``ignored``: it began long before the
        pager was set up
    """

    incident: str
    sequence: int
    state: ToldState
    reference: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Page:
    """One thing to send: a change of an incident, or a digest.

    key : the same at every attempt and after every restart, for receivers that deduplicate
    reference : of `Told`, as the receiver gave it at an earlier change
    """

    change: Change
    key: str
    record: Incident | Digest
    reference: str = ""

    @property
    def incident(self) -> Incident:
        """Return the incident it is about; raises TypeError where it is a digest."""
        if isinstance(self.record, Digest):
            msg = f"expected a change of an incident, got digest {self.record.id}"
            raise TypeError(msg)
        return self.record


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What came of an attempt.

    result : ``ok``: the receiver has it; ``retry``: try again, not before ``wait_s``; ``never``:
        the receiver refuses it, and would at every attempt
    detail : why, fit for a log; reference : see `Told`, None keeps what it was
    """

    result: Literal["ok", "retry", "never"]
    detail: str = ""
    wait_s: float = 0.0
    reference: str | None = None


class Pager(Protocol):
    """One receiver of pages. Used by one thread."""

    @property
    def updates(self) -> bool:
        """Return whether it is sent updates of incidents."""
        ...

    @property
    def remind_every_s(self) -> float:
        """Return how often what it was sent is to be sent again; 0: never."""
        ...

    def send(self, page: Page) -> Outcome:
        """Make one attempt; never raises, never takes much longer than its time limit."""
        ...

    def remind(self, told: Sequence[Told]) -> Outcome:
        """Send again what was sent, as receivers want that forget: Alertmanager."""
        ...


def changes(incident: Incident, told: Told | None, *, routed: bool) -> tuple[Change, ...]:
    """Return what a pager is to be sent of a record of an incident, in order.

    An incident that paged and is over before the pager could be sent either is sent both: it was
    decided on as a page, so it is delivered as one.

    routed : the incident's group, severity and page decision are for this pager
    """
    begins: tuple[Change, ...] = ()
    if told is None:
        if not routed:
            return ()
        begins = ("open",)
    elif told.state in ("refused", "ignored", "resolved"):
        return ()
    if incident.state == "resolved":
        return (*begins, "resolve")
    if incident.acknowledged and (told is None or told.state == "open"):
        return (*begins, "acknowledge")
    if told is not None and incident.sequence > told.sequence:
        return ("update",)
    return begins


def told_after(page: Page, before: Told | None, outcome: Outcome) -> Told:
    """Return what is known of an incident once the receiver has taken a change of it."""
    incident = page.incident
    state: ToldState = before.state if before is not None else "open"
    if page.change == "acknowledge":
        state = "acknowledged"
    elif page.change == "resolve":
        state = "resolved"
    return Told(
        incident=incident.id,
        sequence=incident.sequence,
        state=state,
        reference=page.reference if outcome.reference is None else outcome.reference,
    )


def page_of(record: Incident | Digest, change: Change, told: Told | None = None) -> Page:
    """Return a change of a record as it is sent."""
    if isinstance(record, Digest):
        return Page(change="digest", key=record.id, record=record)
    return Page(
        change=change,
        key=f"{record.id}-{record.sequence}-{change}",
        record=record,
        reference="" if told is None else told.reference,
    )
