"""An engine with keyed state and processing-time timers, in memory: Flink's manners without Flink.

    engine = MemoryEngine(make)                 # make: Callable[[], KeyedDetect]
    engine.feed(Source("in", 0), entry, entry)
    engine.advance(1_000)
    engine.checkpoint()
    engine.fail_and_restore()
    engine.committed                            # what a reader of committed records sees

What runs on it (`streamad.runtime.keyed.detect.KeyedDetect`, or one like it) is given one pair of
handles to the state, which speak of the key at hand and of none outside of a call; so whoever holds
on to the state of another key is found out. State is bytes only.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, Generic, Protocol, TypeVar

from streamad.ports import Outgoing, Source

Made = tuple[list[Outgoing], int | None]


class Keyed(Protocol):
    """What runs on the engine."""

    def take(self, key: int, source: Source, entry: Any, kept: Any, *, now_ms: int) -> Made:
        """Take one message in; return what is to be written, and a timer to set, if any."""
        ...

    def on_timer(self, key: int, kept: Any, *, timer_ms: int, now_ms: int) -> Made:
        """Be called at a timer; returns as `take` does."""
        ...

    def on_wake(self, key: int, source: Source, kept: Any, *, now_ms: int) -> Made:
        """Be called now and then, whatever timers are set; returns as `take` does."""
        ...


D = TypeVar("D", bound=Keyed)


@dataclass(slots=True)
class Cells:
    """What the engine keeps for one key."""

    chunks: dict[int, bytes] = field(default_factory=dict)
    journal: list[bytes] = field(default_factory=list)

    @property
    def n_bytes(self) -> int:
        """Return the size of all values."""
        return sum(map(len, self.chunks.values())) + sum(map(len, self.journal))


class _Scope:
    """The key at hand."""

    def __init__(self) -> None:
        self.cells: Cells | None = None

    @property
    def at_hand(self) -> Cells:
        assert self.cells is not None, "keyed state was used outside of a call"
        return self.cells


class MemoryMap:
    """Bytes by number, of the key at hand."""

    def __init__(self, scope: _Scope) -> None:
        self._scope = scope

    def get(self, key: int) -> bytes | None:
        """Return one; None where there is none."""
        return self._scope.at_hand.chunks.get(key)

    def put(self, key: int, value: bytes) -> None:
        """Set one."""
        assert type(value) is bytes, f"state is bytes, got {type(value).__name__}"
        self._scope.at_hand.chunks[key] = value

    def remove(self, key: int) -> None:
        """Delete one."""
        self._scope.at_hand.chunks.pop(key, None)


class MemoryList:
    """A list of bytes, of the key at hand."""

    def __init__(self, scope: _Scope) -> None:
        self._scope = scope

    def get(self) -> Iterator[bytes]:
        """Yield all of them, in order; writing while reading is an error, as with a cursor."""
        journal = self._scope.at_hand.journal
        n = len(journal)
        for value in journal:
            yield value
            assert self._scope.at_hand.journal is journal, "a list was read beyond its call"
            assert len(journal) == n, "a list was written to while it was read"

    def add(self, value: bytes) -> None:
        """Append one."""
        assert type(value) is bytes, f"state is bytes, got {type(value).__name__}"
        self._scope.at_hand.journal.append(value)

    def clear(self) -> None:
        """Delete them all."""
        self._scope.at_hand.journal.clear()


class MemoryKept:
    """Both handles, as `streamad.runtime.keyed.kept.KeyedState` has them."""

    def __init__(self, scope: _Scope) -> None:
        self.chunks, self.journal = MemoryMap(scope), MemoryList(scope)


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineCheckpoint:
    """All an engine goes back to: state and timers by key, messages read by source, outputs."""

    cells: dict[int, Cells]
    timers: dict[int, set[int]]
    positions: dict[Source, int]
    outputs: tuple[Outgoing, ...]


class MemoryEngine(Generic[D]):
    """Run subtasks over keyed state, with checkpoints that can be gone back to.

    Parameters
    ----------
    make : Callable
        Makes a subtask, at the start and after every failure; nothing else survives one.
    key_of : Callable
        The engine's key of a source; by default its partition.
    parallelism : int
        The number of subtasks; keys are spread over them by ``key % parallelism``.
    now_ms : int
        The wall clock at first. It never goes back, by no failure either.

    Attributes
    ----------
    cells, timers : what is kept and due, by key
    positions : how many messages of a source were taken in
    outputs : all that was yielded, committed or not
    """

    def __init__(
        self,
        make: Callable[[], D],
        *,
        key_of: Callable[[Source], int] = lambda source: source.partition,
        parallelism: int = 1,
        now_ms: int = 1,
    ) -> None:
        self._make, self.key_of, self.now_ms = make, key_of, now_ms
        self.subtasks: list[D] = [make() for _ in range(parallelism)]
        self.cells: dict[int, Cells] = {}
        self.timers: dict[int, set[int]] = {}
        self.positions: dict[Source, int] = {}
        self.outputs: list[Outgoing] = []
        self._input: dict[Source, list[Any]] = {}
        self._scope = _Scope()
        self._kept = MemoryKept(self._scope)
        self._last = self.checkpoint()

    @property
    def committed(self) -> list[Outgoing]:
        """Return what readers of committed records see: the outputs as of the last checkpoint."""
        return list(self._last.outputs)

    @property
    def n_bytes(self) -> int:
        """Return the size of all state."""
        return sum(cells.n_bytes for cells in self.cells.values())

    def subtask(self, key: int) -> D:
        """Return the subtask that has a key."""
        return self.subtasks[key % len(self.subtasks)]

    # ------------------------------------------------------------------ input and time

    def feed(self, source: Source, *entries: Any) -> None:
        """Append messages to a source, and take in all of it that was not taken in yet."""
        self.put(source, *entries)
        self.read(source)

    def put(self, source: Source, *entries: Any) -> None:
        """Append messages to a source; `read` takes them in."""
        self._input.setdefault(source, []).extend(entries)
        self.positions.setdefault(source, 0)

    def read(self, source: Source | None = None, at_most: int | None = None) -> int:
        """Take in what waits of one source, or of each; return how many messages that were."""
        n = 0
        for one in [*self._input] if source is None else [source]:
            start = self.positions[one]
            stop = None if at_most is None else start + at_most
            for entry in self._input[one][start:stop]:
                self.positions[one] += 1
                self._take(one, entry)
                n += 1
        return n

    def advance(self, now_ms: int, *, at_once: bool = False) -> None:
        """Let the wall clock go on; timers fire in order, those included that are set meanwhile.

        at_once : all that is due fires late, at ``now_ms``, as after a pause; else each is on time
        """
        if at_once:
            self.now_ms = max(self.now_ms, now_ms)
        while (due := self._due(now_ms)) is not None:
            timer_ms, key = due
            self.timers[key].discard(timer_ms)
            self.now_ms = max(self.now_ms, timer_ms)
            with_key = self._enter(key)
            made = self.subtask(key).on_timer(key, with_key, timer_ms=timer_ms, now_ms=self.now_ms)
            self._leave(key, made)
        self.now_ms = max(self.now_ms, now_ms)

    def wake(self) -> None:
        """Call for every source there is, as an engine does now and then."""
        for source in [*self.positions]:
            key = self.key_of(source)
            kept = self._enter(key)
            made = self.subtask(key).on_wake(key, source, kept, now_ms=self.now_ms)
            self._leave(key, made)

    def _due(self, now_ms: int) -> tuple[int, int] | None:
        every = ((timer, key) for key, timers in self.timers.items() for timer in timers)
        return min((one for one in every if one[0] <= now_ms), default=None)

    def _take(self, source: Source, entry: Any) -> None:
        key = self.key_of(source)
        kept = self._enter(key)
        made = self.subtask(key).take(key, source, entry, kept, now_ms=self.now_ms)
        self._leave(key, made)

    def _enter(self, key: int) -> MemoryKept:
        self._scope.cells = self.cells.setdefault(key, Cells())
        return self._kept

    def _leave(self, key: int, made: Made) -> None:
        self._scope.cells = None
        outputs, timer_ms = made
        self.outputs += outputs
        if timer_ms is not None:
            self.timers.setdefault(key, set()).add(timer_ms)

    # ------------------------------------------------------------------ checkpoints

    def checkpoint(self) -> EngineCheckpoint:
        """Commit the outputs so far together with state, timers and positions as they are now."""
        self._last = EngineCheckpoint(
            cells=copy.deepcopy(self.cells),
            timers=copy.deepcopy(self.timers),
            positions=dict(self.positions),
            outputs=tuple(self.outputs),
        )
        return self._last

    def fail_and_restore(self, *, read: bool = True, timers: bool = True) -> None:
        """Lose everything since the last checkpoint; go on from there with new subtasks.

        read : the input is taken in again at once; else when `read` is called
        timers : those of the checkpoint are there again; else they are lost, as those are which
            Flink was given by Python just before a checkpoint, and only `wake` comes to their aid
        """
        self._restore(len(self.subtasks))
        if not timers:
            self.timers = {}
        if read:
            self.read()

    def rescale(self, n: int) -> None:
        """Stop with a checkpoint, and go on with ``n`` new subtasks."""
        self.checkpoint()
        self._restore(n)

    def _restore(self, n: int) -> None:
        last = self._last
        self._scope.cells = None
        self.subtasks = [self._make() for _ in range(n)]
        self.cells, self.timers = copy.deepcopy(last.cells), copy.deepcopy(last.timers)
        # A source that came after the checkpoint is read from its beginning.
        self.positions = dict.fromkeys(self._input, 0) | last.positions
        self.outputs = list(last.outputs)
