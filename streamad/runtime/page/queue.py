"""What the page job holds of a partition: records that wait, and what the pager was sent."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Iterable
from dataclasses import dataclass, field

from streamad.incidents import Digest, Incident, PageRequest
from streamad.paging.changes import Told
from streamad.ports import Messages, Outgoing, Source

GONE, OVER = "replay_gone", "replay_over"
"""Why a replayed dead-letter record is not sent."""

MAX_QUEUE, MAX_QUEUE_BYTES = 2_000, 32 * 2**20
"""Records of incidents held in memory per partition; further ones wait in their topic."""


@dataclass(slots=True)
class Item:
    """A record in hand. since_s : when it was read; done : a digest that was sent."""

    message: Messages
    record: Incident | Digest
    offset: int
    since_s: float
    done: bool = False

    @property
    def n_bytes(self) -> int:
        """Return the size of its payload."""
        return len(self.message.payloads[0] or b"")


@dataclass(slots=True)
class Part:
    """One partition at work.

    position : all before it is worked off; read : the next offset to be polled
    cut_ms, over : incidents that are over by now; of records written before, they come too late
    newest : how many records of each incident wait
    unsaved : incidents of which more is known than is committed; letters : dead-letter records
    confirmed_s : when the group last took a commit
    """

    source: Source
    position: int
    read: int
    told: dict[str, Told]
    cut_ms: int = 0
    over: frozenset[str] = frozenset()
    queue: deque[Item] = field(default_factory=deque)
    n_bytes: int = 0
    newest: Counter[str] = field(default_factory=Counter)
    resolved_s: dict[str, float] = field(default_factory=dict)
    unsaved: dict[str, None] = field(default_factory=dict)
    letters: list[Outgoing] = field(default_factory=list)
    dirty: bool = False
    paused: bool = False
    attempts: int = 0
    due_s: float = 0.0
    confirmed_s: float = -1e9
    commit_due_s: float = 0.0
    remind_due_s: float = 0.0

    @property
    def full(self) -> bool:
        """Return whether no more is to be read for now."""
        return len(self.queue) >= MAX_QUEUE or self.n_bytes >= MAX_QUEUE_BYTES

    @property
    def has_room(self) -> bool:
        """Return whether reading may continue: not at once, or it would stop at once."""
        return len(self.queue) < MAX_QUEUE // 2 and self.n_bytes < MAX_QUEUE_BYTES // 2

    def put(self, item: Item) -> None:
        """Append a record."""
        self.queue.append(item)
        self.newest[item.record.id] += 1
        self.n_bytes += item.n_bytes

    def pop(self) -> None:
        """Drop the first record: all before the next one is worked off."""
        item = self.queue.popleft()
        self.n_bytes -= item.n_bytes
        self.newest[item.record.id] -= 1
        if self.newest[item.record.id] <= 0:
            del self.newest[item.record.id]
        self.position = item.offset + 1 if self.queue else self.read
        self.dirty = True

    def know(self, told: Told) -> None:
        """Note what the pager was sent of an incident."""
        self.told[told.incident], self.unsaved[told.incident] = told, None
        self.dirty = True

    def forget(self, incident: str) -> None:
        """Drop what is known of an incident."""
        self.told.pop(incident, None)
        self.unsaved[incident] = None
        self.dirty = True

    def asked_for(
        self, request: PageRequest, since: Iterable[object]
    ) -> tuple[Incident | None, str]:
        """Return the incident whose page is to be sent after all, or None and why it is not.

        since : the records from the one that could not be sent to the request
        """
        newest: Incident | None = None
        for record in since:
            if isinstance(record, Incident) and record.id == request.incident:
                newest = record
        if newest is None:
            return None, GONE
        if newest.state == "resolved" and request.change != "resolve":
            return None, OVER
        told = self.told.get(newest.id)
        if newest.state == "resolved" and told is None:
            # Its end alone could not be sent: it was opened there, and must not be again.
            self.know(Told(incident=newest.id, sequence=newest.sequence - 1, state="open"))
        elif told is not None and told.state == "refused":
            self.forget(newest.id)
        return newest, ""


def only(messages: Messages, number: int) -> Messages:
    """Return one message of several."""
    one = slice(number, number + 1)
    return Messages(
        source=messages.source,
        payloads=messages.payloads[one],
        offsets=messages.offsets[one],
        broker_ms=messages.broker_ms[one],
        raw=messages.raw[one],
    )
