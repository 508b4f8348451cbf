"""Processes that start on this machine, as events: who started what, from which program, when."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Final, TypeVar

import polars as pl
import psutil

from connectors.host.reading import (
    UNREADABLE,
    Names,
    Pace,
    keys_of,
    known_fields,
    name_of,
    now_ms,
    one_message,
)
from streamad.errors import ConfigError
from streamad.events.rows import EventRows
from streamad.records import RecordBatch

FIELDS: Final = ("user", "parent", "process", "hour")
"""What is known of a start: names of the user, of the parent's and of its own program, and the hour
of the day on this machine's clock, ``00`` to ``23``. No command line, no path, no environment."""
_KEYS: Final = ("host", *FIELDS)
_MOST: Final = 65_536
_KERNEL: Final = 2
"""The id of what starts threads of the kernel, on Linux."""
Read = TypeVar("Read")


@dataclass(frozen=True, slots=True)
class _Start:
    """A start as it was read, and its time in ms."""

    user: str | None
    parent: str | None
    process: str
    time_ms: int

    @property
    def hour(self) -> str:
        return f"{time.localtime(self.time_ms / 1000).tm_hour:02d}"


class ProcessStarts:
    """Look every ``interval_ms`` for processes that were not there before.

    A process that starts and ends between two readings is missed; a shorter interval misses fewer.
    So is one that is given the id of another that ended since the reading before. One of which not
    even the name can be read is left out and counted (``unreadable``); a user or a parent that
    cannot be read is missing. Processes that run when the source is made are not reported, nor are
    threads of the kernel, which Linux lists as processes and names anew at any moment.

    A process begins as a copy of its parent and takes its own name a moment later. One that still
    has its parent's name is looked at again with the next reading, and reported with that.

    Parameters
    ----------
    host : part of the key
    key : the fields that make the key, of ``host``, ``user``, ``parent``, ``process``, ``hour``
    fields : the fields of an event, of the same without ``host``
    interval_ms : milliseconds between readings, 100 or more
    most : starts per reading; later ones are left out and counted (``left_out``)
    clock, sleep : wall clock in ms, and how to wait for seconds; tests bring their own

    Examples
    --------
    >>> source = ProcessStarts(host="here", fields=("parent", "process"), interval_ms=100)
    >>> source.poll().values.names
    ('parent', 'process')
    """

    def __init__(  # noqa: PLR0913 - one argument an option, all by keyword
        self,
        *,
        host: str,
        key: Sequence[str] = ("host", "user"),
        fields: Sequence[str] = FIELDS,
        interval_ms: int = 250,
        most: int = 1024,
        clock: Callable[[], int] = now_ms,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        if not 1 <= most <= _MOST:
            msg = f"most must lie in 1..{_MOST}, got {most}"
            raise ConfigError(msg)
        self.host, self.unreadable, self.left_out = host, Counter[str](), 0
        self._key = known_fields(key, _KEYS, "keys of process starts")
        self._fields = known_fields(fields, FIELDS, "process starts")
        self._most, self._offset = most, -1
        self._pace = Pace(interval_ms, clock, sleep)
        self._seen = self._pids()
        self._copies: dict[int, _Start] = {}
        # In a container this id is of a process like any other.
        self._kernel = _KERNEL if Names().of(_KERNEL) == "kthreadd" else None

    @property
    def is_due(self) -> bool:
        """Return whether `poll` would return at once."""
        return self._pace.is_due

    def poll(self) -> RecordBatch[EventRows]:
        """Wait until the next reading is due, and return what started since, as one message.

        The time of an event is when the process started, as the kernel has it: never later than the
        reading, nor earlier than the one before it (its clock may have been set since).
        """
        time_ms, passed_ms = self._pace.wait()
        pids = self._pids()
        new = sorted(pids - self._seen)
        self._seen = pids
        names, within = Names(), (time_ms - passed_ms, time_ms)
        starts = self._by_now(pids, names, within)
        room = self._most - len(starts)
        self.left_out += max(len(new) - room, 0)
        for pid in new[:room]:
            one = self._read(pid, names, within)
            if one is not None and one.process == one.parent:
                self._copies[pid] = one
            elif one is not None:
                starts.append(one)
        return self._batch(starts, time_ms)

    def _by_now(self, pids: set[int], names: Names, within: tuple[int, int]) -> list[_Start]:
        """Return the copies of the last reading as they are now; as they were where they ended."""
        copies, self._copies = self._copies, {}
        # Its parent may have ended, or given it to another: that of the beginning counts.
        return [
            replace(
                one,
                time_ms=within[0],
                process=(names.of(pid) if pid in pids else None) or one.process,
            )
            for pid, one in copies.items()
        ]

    def _pids(self) -> set[int]:
        try:
            return set(psutil.pids())
        except UNREADABLE:
            self.unreadable["processes"] += 1
            return set()

    def _read(self, pid: int, names: Names, within: tuple[int, int]) -> _Start | None:
        try:
            process = psutil.Process(pid)
            name = name_of(process)
        except UNREADABLE:
            self.unreadable["process"] += 1
            return None
        parent = _or_none(process.ppid)
        if parent is not None and parent == self._kernel:
            return None
        try:
            started_ms = round(process.create_time() * 1000)
        except UNREADABLE:
            started_ms = within[1]
        return _Start(
            _or_none(process.username),
            names.of(parent),
            name,
            min(max(started_ms, within[0]), within[1]),
        )

    def _batch(self, starts: list[_Start], at_ms: int) -> RecordBatch[EventRows]:
        starts.sort(key=lambda one: one.time_ms)
        columns: dict[str, list[str | None]] = {
            "host": [self.host] * len(starts),
            "user": [one.user for one in starts],
            "parent": [one.parent for one in starts],
            "process": [one.process for one in starts],
            "hour": [one.hour for one in starts],
        }
        schema = dict.fromkeys(self._fields, pl.String())
        fields = pl.DataFrame({name: columns[name] for name in self._fields}, schema=schema)
        self._offset += 1
        times = pl.Series([one.time_ms for one in starts], dtype=pl.Int64).to_numpy()
        return one_message(
            keys_of(columns, self._key),
            times,
            EventRows(times, fields),
            offset=self._offset,
            at=at_ms,
        )


def _or_none(read: Callable[[], Read]) -> Read | None:
    try:
        return read()
    except UNREADABLE:
        return None
