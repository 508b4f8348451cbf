"""What the engine's state holds of a shard, and how it comes there: a snapshot and a journal."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, Protocol

from streamad.operators.identity import StateIdentity
from streamad.ports import Source, Telemetry
from streamad.runtime import snapshots
from streamad.runtime.judging import OpenShard
from streamad.runtime.keyed.in_hand import InHand
from streamad.runtime.keyed.journal import Entry

LAYOUT_VERSION = 1
"""Of manifest and journal; the shard inside has a version of its own."""

_ABOUT = -1
"""Where in the map of chunks the manifest stands."""


class ByteList(Protocol):
    """A list of bytes in the engine's state, of the key at hand."""

    def get(self) -> Iterable[bytes]:
        """Return all of them, in order."""
        ...

    def add(self, value: bytes) -> None:
        """Append one."""
        ...

    def clear(self) -> None:
        """Delete them all."""
        ...


class ByteMap(Protocol):
    """Bytes by number in the engine's state, of the key at hand."""

    def get(self, key: int) -> bytes | None:
        """Return one; None where there is none."""
        ...

    def put(self, key: int, value: bytes) -> None:
        """Set one."""
        ...

    def remove(self, key: int) -> None:
        """Delete one."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyedState:
    """What the engine keeps for a shard: a snapshot in chunks, and a journal of what came since."""

    chunks: ByteMap
    journal: ByteList


@dataclass(slots=True, kw_only=True)
class KeyedShard(OpenShard):
    """A shard at work.

    journal_bytes, snapshot_bytes : sizes in the engine's state; heard_ms : the wall clock when
    something last came, or when the shard was opened; timer_ms : the timer that is set, if any;
    in_hand : what former lives had in hand when they ended
    """

    pending: list[Entry] = field(default_factory=list)
    pending_bytes: int = 0
    journal_bytes: int = 0
    snapshot_bytes: int = 0
    n_chunks: int = 0
    heard_ms: int = 0
    timer_ms: int = 0
    in_hand: InHand


class Keeper:
    """Keep shards in the engine's state; all that is taken in is there at once.

    journal_bytes : the length a journal may have, however small the snapshot is
    """

    def __init__(
        self, identity: StateIdentity, *, journal_bytes: int, telemetry: Telemetry
    ) -> None:
        self._identity, self._journal_bytes, self._telemetry = identity, journal_bytes, telemetry

    def keep(self, shard: KeyedShard, entry: Entry, kept: KeyedState) -> None:
        """Let a message wait to be judged."""
        data = entry.encode()
        kept.journal.add(data)
        shard.journal_bytes += len(data)
        shard.pending.append(entry)
        shard.pending_bytes += entry.size
        made_anew = entry.offset < shard.position
        shard.position = entry.offset + 1
        if made_anew:
            self.save_about(shard, kept)  # it must not remember more than there is

    def note(self, shard: KeyedShard, kept: KeyedState, *entries: bytes) -> None:
        """Write down in the journal what happened to messages, or that time passed."""
        for data in entries:
            kept.journal.add(data)
            shard.journal_bytes += len(data)

    def save(self, shard: KeyedShard, kept: KeyedState) -> None:
        """Replace snapshot and journal by a snapshot of now; nothing may wait to be judged."""
        chunks, n_chunks = snapshots.Chunks(shard.state, identity=self._identity), 0
        for chunk in chunks:
            kept.chunks.put(n_chunks, chunk)
            n_chunks += 1
        for number in range(n_chunks, shard.n_chunks):
            kept.chunks.remove(number)
        shard.n_chunks, shard.snapshot_bytes = n_chunks, chunks.n_bytes
        self.save_about(shard, kept)
        kept.journal.clear()
        shard.journal_bytes = 0
        labels = {"topic": shard.source.topic, "partition": str(shard.source.partition)}
        self._telemetry.gauge("state_snapshot_bytes", shard.snapshot_bytes, **labels)

    def save_where_long(self, shard: KeyedShard, kept: KeyedState) -> None:
        """Replace both where the journal has outgrown the snapshot."""
        if shard.journal_bytes > max(self._journal_bytes, shard.snapshot_bytes):
            self.save(shard, kept)

    def save_about(self, shard: KeyedShard, kept: KeyedState) -> None:
        """Write down what is true of the shard beside what it learned."""
        about = {
            "layout": LAYOUT_VERSION,
            **self._identity.header(),
            "topic": shard.source.topic,
            "partition": shard.source.partition,
            "position": shard.position,
            "ticked_ms": shard.ticked_ms,
            "chunks": shard.n_chunks,
        }
        kept.chunks.put(_ABOUT, json.dumps(about).encode())


def about_in(kept: KeyedState) -> dict[str, Any] | None:
    """Return what is written down beside the snapshot; None where there is no state."""
    written = kept.chunks.get(_ABOUT)
    if written is None:
        return None
    about: dict[str, Any] = json.loads(written)
    return about


def source_in(kept: KeyedState) -> Source | None:
    """Return the partition that the state is of; None where there is no state."""
    about = about_in(kept)
    return None if about is None else Source(about["topic"], about["partition"])
