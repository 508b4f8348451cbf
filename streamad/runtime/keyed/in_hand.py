"""What lives of an engine's job had in hand when they ended, so that no message ends them for ever.

An engine restores a shard as of its checkpoint and reads on from there: a message that ends the
worker comes again with each life. The engine's state goes back with it, so what was in hand is
noted outside (`Notes`), where no failure takes it back. As in `streamad.runtime.quarantine`, each
life that finds a note takes less in hand at once, until a single message is at fault:

====================  =========================
lives that ended      in hand at once
====================  =========================
0                     all that waits
1                     64 messages
2, 3                  1 message
4                     none: it is set aside
====================  =========================

Notes are written in a shard's first minutes only, which is when a message that ended the life
before comes again. A life that was already at work when the message came has noted nothing, so
five lives end before the sixth continues. An end between two portions costs nothing: no note is
left. Set-aside messages stay noted until the engine's checkpoint must know of them, too.
"""

from __future__ import annotations

import contextlib
import json
import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from streamad.errors import SinkUnavailableError, SourceUnavailableError
from streamad.ports import Notes, Source
from streamad.runtime.keyed.journal import Entry
from streamad.runtime.quarantine import MAX_SKIPPED, PORTION, QUARANTINE_AFTER, parsed, whole

logger = logging.getLogger(__name__)

LEAST_WATCH_MS: Final = 60_000
CHECKPOINTS_WATCHED: Final = 4
"""Intervals after which a checkpoint holds what was set aside when the shard was opened."""

_AWAY = (SinkUnavailableError, SourceUnavailableError)


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """Messages to be taken in hand at once, or one that is to be set aside; ``deaths`` so far."""

    entries: list[Entry]
    aside: bool = False
    deaths: int = 0


@dataclass(slots=True, kw_only=True)
class InHand:
    """What is known of one shard.

    first, last : offsets that were in hand as lives ended, ``deaths`` of them in a row
    aside : offsets that are set aside; until_ms : notes are written up to this wall-clock time
    """

    source: Source
    notes: Notes
    until_ms: int
    first: int = 0
    last: int = -1
    deaths: int = 0
    aside: list[int] = field(default_factory=list)
    _written: bool = False

    @classmethod
    def read(cls, notes: Notes, source: Source, *, now_ms: int, interval_ms: int) -> InHand:
        """Return what former lives noted of a partition.

        interval_ms : between two checkpoints
        """
        watch_ms = max(LEAST_WATCH_MS, CHECKPOINTS_WATCHED * interval_ms)
        made = cls(source=source, notes=notes, until_ms=now_ms + watch_ms)
        try:
            found = notes.read(source)
        except _AWAY as error:
            logger.warning("%s: what was in hand cannot be read: %s", source, error)
            return made
        if not found:
            return made
        made._written = True
        note = parsed(found)
        made.aside = [x for x in note.get("aside", []) if isinstance(x, int)][-MAX_SKIPPED:]
        span = note.get("span")
        if isinstance(span, list) and len(span) == 2 and all(isinstance(x, int) for x in span):
            made.first, made.last = span
            deaths = whole(note.get("deaths")) + 1
            # Only a message that was in hand alone can be known to be at fault.
            made.deaths = deaths if made.first == made.last else min(deaths, 2)
            logger.warning(
                "%s: the worker ended with offsets %d to %d in hand, %d in a row; taking less at "
                "once",
                source,
                made.first,
                made.last,
                made.deaths,
            )
        return made

    def parts(self, entries: Sequence[Entry]) -> Iterator[Part]:
        """Yield messages in order, as many as may be in hand at once."""
        if not self.deaths and not self.aside:
            yield Part(entries=list(entries))
            return
        block: list[Entry] = []
        deaths = 0
        for entry in entries:
            suspect = self.deaths if self.first <= entry.offset <= self.last else 0
            alone = entry.offset in self.aside or suspect >= QUARANTINE_AFTER
            if block and (alone or suspect != deaths or len(block) >= _at_once(deaths)):
                yield Part(entries=block, deaths=deaths)
                block = []
            deaths = suspect
            if alone:
                yield Part(entries=[entry], aside=True, deaths=max(suspect, QUARANTINE_AFTER))
            else:
                block.append(entry)
        if block:
            yield Part(entries=block, deaths=deaths)

    @contextlib.contextmanager
    def noted(self, part: Part, *, now_ms: int) -> Iterator[None]:
        """Have it noted that these messages are in hand; an error leaves the note."""
        if now_ms >= self.until_ms:
            yield
            return
        self._write(span=[part.entries[0].offset, part.entries[-1].offset], deaths=part.deaths)
        yield
        self._write()

    def set_aside(self, offset: int) -> None:
        """Note that a message is set aside: in this life, and in those that begin before it."""
        if offset not in self.aside:
            self.aside = [*self.aside, offset][-MAX_SKIPPED:]
        self._write()

    def pass_time(self, now_ms: int) -> None:
        """Leave no note once the first minutes are over."""
        if self.until_ms <= now_ms and self._written:
            self.aside, self.deaths = [], 0
            self._write()

    def _write(self, **span: Any) -> None:
        note = {**({"aside": self.aside} if self.aside else {}), **span}
        if not note and not self._written:
            return
        try:
            self.notes.write(self.source, json.dumps(note) if note else "")
            self._written = bool(note)
        except _AWAY as error:
            # Worth no interruption: without notes a message may end more lives, no more.
            logger.warning("%s: what is in hand cannot be noted: %s", self.source, error)


def _at_once(deaths: int) -> float:
    return {0: float("inf"), 1: PORTION}.get(deaths, 1)
