"""Read the machine it runs on: CPU, load, memory, disk, network and the busiest processes.

Counters become rates here, over the time that really passed between two readings: a pipeline has
one ``series.kind``, and a machine has gauges and counters. What cannot be read (a container without
disk counters, a process of another user, one that has ended) has no rows; nothing is made up.
"""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np
import psutil

from connectors.host.reading import (
    UNNAMED,
    UNREADABLE,
    Pace,
    keys_of,
    name_of,
    now_ms,
    one_message,
)
from streamad.errors import ConfigError
from streamad.records import SignalBatch

Readings = dict[str, float]

_MAX_PROCESSES: Final = 64
_LOOK_S: Final = 0.3
"""How long processes are watched before the busiest are chosen."""


@dataclass(slots=True)
class _Process:
    """A process that is followed: its name in the metrics, and its CPU time when last seen."""

    name: str
    process: psutil.Process
    cpu_s: float


class HostSource:
    """Read this machine every ``interval_ms``.

    Keys are ``<host>/<metric>``; metrics carry their unit in their name. Which processes are
    followed is settled when the source is made, so that the number of series is bounded.

    Parameters
    ----------
    host : first part of every key
    interval_ms : milliseconds between readings, 100 or more
    processes : how many of the busiest processes are followed
    watch : further processes to follow, ``{name in the metrics: pid}``
    clock, sleep : wall clock in ms, and how to wait for seconds; tests bring their own

    Examples
    --------
    >>> source = HostSource(host="here", interval_ms=100, processes=0)
    >>> batch = source.poll()
    >>> [key for key in batch.keys if key.startswith("here/memory")]
    ['here/memory_used_percent']
    """

    def __init__(
        self,
        *,
        host: str,
        interval_ms: int = 250,
        processes: int = 4,
        watch: Mapping[str, int] | None = None,
        clock: Callable[[], int] = now_ms,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        if not 0 <= processes <= _MAX_PROCESSES:
            msg = f"processes must lie in 0..{_MAX_PROCESSES}, got {processes}"
            raise ConfigError(msg)
        self.host, self.interval_ms = host, interval_ms
        self.unreadable: Counter[str] = Counter()
        watched = dict(watch or {})
        busiest = _busiest(processes, without={os.getpid(), *watched.values()}, sleep=sleep)
        self._processes = _followed({**busiest, **watched})
        self._pace = Pace(interval_ms, clock, sleep)
        self._counters: Readings = {}
        self._offset = -1
        # Rates and shares need a reading before: the first one is thrown away.
        self._read(1)

    @property
    def is_due(self) -> bool:
        """Return whether `poll` would return at once."""
        return self._pace.is_due

    def poll(self) -> SignalBatch:
        """Wait until the next reading is due, and return it as one message.

        A reading that is overdue is made at once; those missed in between are not made up for.
        """
        time_ms, passed_ms = self._pace.wait()
        readings = self._read(passed_ms)
        n = len(readings)
        self._offset += 1
        columns = {"host": [self.host] * n, "metric": list(readings)}
        return one_message(
            keys_of(columns, ("host", "metric")),
            [time_ms] * n,
            np.array(list(readings.values()), np.float64).reshape(n, 1),
            offset=self._offset,
            at=time_ms,
        )

    def _read(self, passed_ms: int) -> Readings:
        elapsed_s = passed_ms / 1000
        counters = {
            **self._of("cpu", _cpu_seconds),
            **self._of("disk", _disk_bytes),
            **self._of("network", _network_bytes),
        }
        readings = {
            **self._shares(counters),
            **self._of("load", _load),
            **self._of("memory", _memory),
            **self._of("swap", _swap),
            **self._rates(counters, elapsed_s),
            **self._of_processes(elapsed_s),
        }
        self._counters = counters
        return readings

    def _of(self, group: str, read: Callable[[], Readings]) -> Readings:
        try:
            return read()
        except UNREADABLE:
            self.unreadable[group] += 1
            return {}

    def _shares(self, counters: Readings) -> Readings:
        """Return how busy each core was since the reading before, in percent, and all of them."""
        shares: Readings = {}
        for name, total in counters.items():
            core = name.removesuffix(".total_s")
            busy = f"{core}.busy_s"
            if core == name or name not in self._counters:
                continue
            passed = total - self._counters[name]
            # Ticks of a core may be counted late: then this reading says nothing of it.
            if passed > 0:
                share = (counters[busy] - self._counters[busy]) / passed
                shares[f"{core}_percent"] = 100 * min(max(share, 0.0), 1.0)
        whole = {"cpu_percent": float(np.mean(list(shares.values())))} if shares else {}
        return whole | (shares if len(shares) > 1 else {})

    def _rates(self, counters: Readings, elapsed_s: float) -> Readings:
        rates = {}
        for name, value in counters.items():
            before = self._counters.get(name)
            # Less than before: the counter was set back, so nothing is known of this interval.
            if name.endswith("_bytes") and before is not None and value >= before:
                rates[f"{name}_per_s"] = (value - before) / elapsed_s
        return rates

    def _of_processes(self, elapsed_s: float) -> Readings:
        readings: Readings = {}
        followed = []
        for one in self._processes:
            try:
                with one.process.oneshot():
                    cpu_s = _cpu_time(one.process)
                    memory = float(one.process.memory_info().rss)
            except UNREADABLE:
                self.unreadable["process"] += 1
                continue
            used = max(cpu_s - one.cpu_s, 0.0) / elapsed_s
            one.cpu_s = cpu_s
            readings[f"{one.name}.cpu_percent"] = 100 * used
            readings[f"{one.name}.rss_bytes"] = memory
            followed.append(one)
        self._processes = followed
        return readings


def _cpu_seconds() -> Readings:
    seconds: Readings = {}
    for number, times in enumerate(psutil.cpu_times(percpu=True)):
        # Guest time is part of user time already.
        parts = {n: v for n, v in times._asdict().items() if not n.startswith("guest")}
        total = sum(parts.values())
        idle = parts["idle"] + parts.get("iowait", 0.0)
        seconds[f"cpu{number}.total_s"], seconds[f"cpu{number}.busy_s"] = total, total - idle
    return seconds


def _disk_bytes() -> Readings:
    counters = psutil.disk_io_counters()
    if counters is None:
        return {}
    return {
        "disk_read_bytes": float(counters.read_bytes),
        "disk_write_bytes": float(counters.write_bytes),
    }


def _network_bytes() -> Readings:
    counters = psutil.net_io_counters()
    return {
        "network_in_bytes": float(counters.bytes_recv),
        "network_out_bytes": float(counters.bytes_sent),
    }


def _load() -> Readings:
    return {"load_1m": psutil.getloadavg()[0]}


def _memory() -> Readings:
    return {"memory_used_percent": float(psutil.virtual_memory().percent)}


def _swap() -> Readings:
    swap = psutil.swap_memory()
    return {"swap_used_percent": float(swap.percent)} if swap.total else {}


def _cpu_time(process: psutil.Process) -> float:
    times = process.cpu_times()
    return float(times.user + times.system)


def _busiest(n: int, *, without: set[int], sleep: Callable[[float], None]) -> dict[str, int]:
    """Return the names and ids of the processes that used most CPU while they were watched."""
    if n == 0:
        return {}
    before = _cpu_times()
    sleep(_LOOK_S)
    used = {
        process: seconds - before[process]
        for process, seconds in _cpu_times().items()
        if process in before and process.pid not in without
    }
    chosen = sorted(used, key=lambda process: (-used[process], process.pid))[:n]
    return {f"{_name(process)}.{process.pid}": process.pid for process in chosen}


def _cpu_times() -> dict[psutil.Process, float]:
    times = {}
    for process in psutil.process_iter():
        try:
            times[process] = _cpu_time(process)
        except UNREADABLE:
            continue
    return times


def _name(process: psutil.Process) -> str:
    try:
        return name_of(process)
    except UNREADABLE:
        return UNNAMED


def _followed(wanted: Mapping[str, int]) -> list[_Process]:
    followed = []
    for name, pid in wanted.items():
        try:
            process = psutil.Process(pid)
            followed.append(_Process(name, process, _cpu_time(process)))
        except UNREADABLE:
            continue
    return followed
