"""A message that stops the job again and again is set aside, and the job continues without it.

What is known to be bad becomes a dead letter where it is decoded. This is for the rest: a message
that ends the process, by a crash, by its memory, or by an error nobody foresaw. The process cannot
say so itself, so what it is about to take in hand is noted with the committed offset first, and
the note goes away with the next commit. A life that finds such a note knows that the one before
ended there; with each, it takes less in hand at once, until a single message is at fault:

====================  =================  ==============================
lives that ended      in hand at once    noted
====================  =================  ==============================
0                     everything polled  once a partition is placed
1                     64 messages        before each portion
2, 3                  1 message          before each message
4                     none               the message is set aside
====================  =================  ==============================

A partition that was worked on before the message came has no note from that life, so five lives
end before the sixth goes on. A kill that has nothing to do with a message costs nothing: the
next commit takes the note away.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np

from streamad.config import PipelineConfig
from streamad.errors import MembershipError
from streamad.operators import findings
from streamad.ports import (
    DetectRecords,
    Log,
    Member,
    Messages,
    Outgoing,
    Progress,
    Source,
    Telemetry,
)
from streamad.records import Rejected

logger = logging.getLogger(__name__)

QUARANTINE_AFTER: Final = 4
"""Lives in a row that end with the same message in hand."""
PORTION: Final = 64
"""Messages in hand at once, after one such life."""
RANGE: Final = 20_000
"""Offsets in which a message that ended a life is looked for."""
MAX_SKIPPED: Final = 64
"""Offsets of set-aside messages that travel with a commit, for recovery: the newest ones."""

_NOTE: Final = "guard"

Report = Callable[[Messages, str], list[Outgoing]]
"""Takes a message that is set aside, alone, and why; returns the records that tell of it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Watched:
    """What is known of one partition.

    offset, note : as the loop committed them last; offset None until it did
    deaths : lives that ended with what comes next in hand; until : care is taken up to here
    skipped : offsets set aside
    noted : the committed note says that something is in hand
    worked : the loop has committed progress in this life
    """

    offset: int | None = None
    note: str = ""
    deaths: int = 0
    until: int = 0
    skipped: tuple[int, ...] = ()
    noted: bool = False
    worked: bool = False

    def committed(self, done: Progress) -> _Watched:
        """Return what is known once the loop has committed this."""
        if self.offset is None or done.offset <= self.offset:
            return replace(self, offset=done.offset, note=done.note)
        cared = self.deaths > 0 and done.offset < self.until
        return replace(
            self,
            offset=done.offset,
            note=done.note,
            # What was in hand is not at fault; how much is taken at once stays as it is.
            deaths=min(self.deaths, 2) if cared else 0,
            until=self.until if cared else 0,
            noted=False,
            worked=True,
        )

    def text(self) -> str:
        """Return the loop's note with ours in it."""
        deaths = self.deaths + self.noted
        ours = {
            "deaths": deaths,
            "until": self.until if deaths else 0,
            "skipped": list(self.skipped),
        }
        ours = {name: value for name, value in ours.items() if value}
        if not ours:
            return self.note
        theirs = parsed(self.note)
        return json.dumps({**theirs, _NOTE: ours}, separators=(",", ":"))

    @classmethod
    def read(cls, done: Progress | None) -> _Watched:
        """Return what a former life noted."""
        if done is None:
            return cls()
        note = parsed(done.note)
        ours = note.pop(_NOTE, None)
        if not isinstance(ours, dict):
            return cls(offset=done.offset, note=done.note)
        return cls(
            offset=done.offset,
            note=json.dumps(note, separators=(",", ":")) if note else "",
            deaths=whole(ours.get("deaths")),
            until=whole(ours.get("until")),
            skipped=skipped_in(done.note),
        )


class Guarded:
    """A member that notes what its loop takes in hand, and hands out no message set aside.

    Parameters
    ----------
    member : Member
        Brings messages and takes records.
    report : Report
        Makes the records that tell of a message set aside.
    telemetry : Telemetry
        Counts them.
    """

    def __init__(self, member: Member, *, report: Report, telemetry: Telemetry) -> None:
        self._member, self._report, self._telemetry = member, report, telemetry
        self._found: dict[Source, Progress | None] = {}
        self._watched: dict[Source, _Watched] = {}
        self._held: dict[Source, Messages] = {}
        self._waiting: list[Messages] = []
        self._in_hand: Source | None = None
        self._put_off = self._others_first = False

    @property
    def log(self) -> Log:
        """Topics as anyone may read them, with all messages."""
        return self._member.log

    @property
    def in_care(self) -> bool:
        """Say whether the next messages wait for the loop's commit: it should be made at once."""
        fresh = any(self._watched[one.source].offset is None for one in self._waiting)
        return (fresh or self._in_hand is not None) and not self._put_off

    # ------------------------------------------------------------------ input

    def poll(self, timeout_ms: int) -> list[Messages]:
        """Return messages whose being in hand is noted; see the module."""
        # Others have their turn between two portions, and the group hears from the member.
        if not self._others_first and self._in_hand is None and self._held:
            self._others_first = True
            portion = self._next_in_care()
            return [] if portion is None else [portion]
        self._others_first = False
        polled = self._member.poll(1 if self._held or self._waiting else timeout_ms)
        polled, self._waiting = [*self._waiting, *polled], []
        return self._noted([one for given in polled if (one := self._admit(given)) is not None])

    def _admit(self, messages: Messages) -> Messages | None:
        """Return what may be handed out now; keep what needs care, or a first commit."""
        source = messages.source
        watched = self._watched.get(source)
        if watched is None:
            return None
        messages = without(messages, watched.skipped)
        if not len(messages):
            return None
        if watched.offset is None:
            self._waiting.append(messages)
            return None
        if not watched.deaths:
            return messages
        first = int(messages.offsets[0])
        if source not in self._held:
            careful = PORTION if watched.deaths > 1 else RANGE
            until = max(watched.until, first + careful) if watched.deaths == 1 else first + careful
            self._watched[source] = replace(watched, until=until)
            logger.warning(
                "%s: the job ended with offset %d in hand, %d in a row; taking less at once",
                source,
                first,
                watched.deaths,
            )
        held = self._held.get(source)
        self._held[source] = messages if held is None else _joined(held, messages)
        self._member.pause(source)
        return None

    def _noted(self, polled: list[Messages]) -> list[Messages]:
        """Return messages once it is noted that they are in hand: in a life's first only."""
        watched = {one.source: self._watched[one.source] for one in polled}
        new = [source for source, one in watched.items() if not (one.worked or one.noted)]
        if new and not self._write([], {source: _in_hand(watched[source]) for source in new}):
            self._waiting += polled
            return []
        return polled

    def _next_in_care(self) -> Messages | None:
        """Return the next portion of a partition in care, noted; None where there is none."""
        source = next(iter(self._held))
        held, watched = self._held[source], self._watched[source]
        if not watched.deaths:
            self._let_go(source, int(held.offsets[-1]) + 1)
            return held
        if watched.deaths >= QUARANTINE_AFTER:
            self._set_aside(source, _cut(held, 0, 1))
            return None
        portion = _cut(held, 0, PORTION if watched.deaths == 1 else 1)
        if not self._write([], {source: _in_hand(watched)}):
            return None
        self._in_hand = source
        self._let_go(source, int(portion.offsets[-1]) + 1)
        return portion

    def _let_go(self, source: Source, offset: int) -> None:
        """Hold no longer what lies before an offset; read on where nothing is left."""
        held = self._held.pop(source)
        done = int(np.searchsorted(held.offsets, offset))
        if done < len(held):
            # At the end of the line: other partitions in care have their turn.
            self._held[source] = _cut(held, done, len(held))
        else:
            self._member.place(source, offset)

    def _set_aside(self, source: Source, message: Messages) -> None:
        """Write the records that tell of a message, and never hand it out again."""
        watched, offset = self._watched[source], int(message.offsets[0])
        detail = reason(watched.deaths)
        after = replace(
            watched,
            skipped=(*watched.skipped, offset)[-MAX_SKIPPED:],
            # Another one may follow.
            deaths=2,
            until=offset + PORTION,
        )
        if not self._write(self._report(message, detail), {source: after}):
            return
        self._let_go(source, offset + 1)
        self._telemetry.count("input_quarantined_total", topic=source.topic)
        logger.error("%s@%d is quarantined: %s", source, offset, detail)

    def _write(self, records: Sequence[Outgoing], states: Mapping[Source, _Watched]) -> bool:
        """Commit notes, and what goes with them; False where the group has moved on."""
        progress = {
            source: Progress(offset=state.offset or 0, note=state.text())
            for source, state in states.items()
        }
        try:
            self._member.commit(records, progress)
        except MembershipError as error:
            logger.info("note put off: %s", error)
            return False
        self._watched |= states
        return True

    # ------------------------------------------------------------------ as the member does

    def assigned(self) -> list[Source]:
        """Return the partitions that came to this member and are to be placed."""
        return self._member.assigned()

    def committed(self, source: Source) -> Progress | None:
        """Return how far the group has worked a partition off, with all notes."""
        self._found[source] = self._member.committed(source)
        return self._found[source]

    def place(self, source: Source, offset: int) -> None:
        """Read a partition from here on; what former lives noted of it is heeded."""
        done = self._found.pop(source, None)
        watched = _Watched.read(done)
        if done is not None and done.offset != offset:
            # Input is missing, or was left out: nobody has had in hand what comes now.
            watched = replace(watched, deaths=0, until=0)
        self.forget([source])
        self._watched[source] = watched
        self._member.place(source, offset)

    def pause(self, source: Source) -> None:
        """Bring no message of a partition until it is placed again."""
        self._member.pause(source)

    def end_reached(self, source: Source) -> int | None:
        """Ask for the end of a partition of which everything was handed out."""
        return None if self.n_kept(source) else self._member.end_reached(source)

    def n_kept(self, source: Source) -> int:
        """Return how many messages were polled and not handed out yet."""
        waiting = sum(len(one) for one in self._waiting if one.source == source)
        held = self._held.get(source)
        return waiting + (0 if held is None else len(held))

    def forget(self, sources: Sequence[Source]) -> None:
        """Keep nothing of partitions that went to another member."""
        for source in sources:
            self._watched.pop(source, None)
            self._held.pop(source, None)
            if self._in_hand == source:
                self._in_hand = None
        self._waiting = [one for one in self._waiting if one.source not in sources]

    def commit(
        self, records: Sequence[Outgoing], progress: Mapping[Source, Progress]
    ) -> list[int] | None:
        """Write records and progress, all or nothing; what was in hand no longer is."""
        states = {
            source: self._watched.get(source, _Watched()).committed(done)
            for source, done in progress.items()
        }
        given = {
            source: Progress(offset=done.offset, note=states[source].text())
            for source, done in progress.items()
        }
        try:
            offsets = self._member.commit(records, given)
        except MembershipError:
            self._put_off = True
            raise
        self._put_off = False
        self._watched |= states
        if self._in_hand in states and not states[self._in_hand].noted:
            self._in_hand = None
        return offsets

    def close(self) -> None:
        """Leave."""
        self._member.close()


def _in_hand(watched: _Watched) -> _Watched:
    return replace(watched, noted=True)


def skipped_in(note: str) -> tuple[int, ...]:
    """Return the offsets that were set aside before a commit with this note."""
    ours = parsed(note).get(_NOTE)
    found = ours.get("skipped") if isinstance(ours, dict) else None
    return tuple(x for x in found if isinstance(x, int)) if isinstance(found, list) else ()


def records_of(
    records: DetectRecords, config: PipelineConfig, message: Messages, *, why: str, now_ms: int
) -> list[Outgoing]:
    """Return what tells of a message of the input that is not judged: a dead letter, a finding."""
    letter = Rejected(message=0, reason="quarantined", detail=why, payload=None)
    at = (*message.source, int(message.offsets[0]))
    told = findings.quarantine(config, at=at, now_ms=now_ms, reason=why)
    return [*records.rejected(message, [letter]), *records.findings([told])]


def reason(deaths: int) -> str:
    """Say why a message is set aside."""
    return (
        f"the job ended {deaths} times in a row with this message in hand; it is set aside, and "
        "the job continues without it"
    )


def without(messages: Messages, skipped: Sequence[int]) -> Messages:
    """Return messages without those set aside."""
    if not skipped or not len(messages):
        return messages
    keep = np.flatnonzero(~np.isin(messages.offsets, np.array(skipped, np.int64)))
    if len(keep) == len(messages):
        return messages
    return replace(
        messages,
        payloads=[messages.payloads[i] for i in keep],
        offsets=messages.offsets[keep],
        broker_ms=messages.broker_ms[keep],
        raw=[messages.raw[i] for i in keep],
    )


def _cut(messages: Messages, start: int, stop: int) -> Messages:
    return replace(
        messages,
        payloads=messages.payloads[start:stop],
        offsets=messages.offsets[start:stop],
        broker_ms=messages.broker_ms[start:stop],
        raw=messages.raw[start:stop],
    )


def _joined(first: Messages, second: Messages) -> Messages:
    return replace(
        first,
        payloads=[*first.payloads, *second.payloads],
        offsets=np.concatenate((first.offsets, second.offsets)),
        broker_ms=np.concatenate((first.broker_ms, second.broker_ms)),
        raw=[*first.raw, *second.raw],
    )


def parsed(note: str) -> dict[str, Any]:
    """Return a note's members; of damaged ones, none."""
    try:
        found = json.loads(note) if note else {}
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def whole(value: object) -> int:
    """Return a number of a note; 0 where it is none."""
    return value if isinstance(value, int) and not isinstance(value, bool) else 0
