"""How a running job is, told to probes and Prometheus."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from typing import Protocol

from connectors.records.status import Health
from streamad.ports import Source, Telemetry

LAG_EVERY_S = 5.0
UNCOMMITTED = "delivery_uncommitted_since_timestamp_seconds"
REFUSED = ("delivery_aborts_total", "delivery_broker_retries_total")


class Working(Protocol):
    """What is asked of a loop."""

    @property
    def sources(self) -> Sequence[Source]:
        """Return the partitions at work."""
        ...

    @property
    def settled(self) -> bool:
        """Say whether every partition that came is at work."""
        ...

    def n_kept(self, source: Source) -> int:
        """Return how many messages were polled and wait for their turn."""
        ...


class Grouped(Protocol):
    """What is asked of a member."""

    def joined(self) -> bool:
        """Say whether the group counts this member in."""
        ...

    def lag(self, source: Source) -> int | None:
        """Return how many messages are left."""
        ...


class Forgetful(Telemetry, Protocol):
    """Telemetry that can drop what is no longer ours."""

    def forget(self, **labels: str) -> None:
        """Drop the gauges of these labels."""
        ...


class Watcher:
    """Keep health and lag up to date; called in the loops' threads.

    Parameters
    ----------
    health : Health
        Each role is a condition of being ready, and a loop that has to turn.
    telemetry : Forgetful
        Where lag and readiness go.
    stopping : Callable[[], bool]
        Whether the process was told to stop: from then on it is not ready.
    clock : Callable[[], float]
        Seconds that never go back.
    """

    def __init__(
        self,
        health: Health,
        telemetry: Forgetful,
        *,
        stopping: Callable[[], bool] = lambda: False,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._health, self._telemetry, self._clock = health, telemetry, clock
        self._stopping = stopping
        self._due_s: dict[str, float] = {}
        self._known: dict[str, set[Source]] = {}

    def turned(self, role: str, loop: Working, member: Grouped) -> None:
        """Note that the loop of a role turned."""
        self._health.beat(threading.current_thread().name)
        if self._stopping():
            self._health.shutting_down()
        now_s = self._clock()
        if now_s < self._due_s.get(role, 0.0):
            return
        settled = loop.settled and member.joined()
        if settled:
            self._health.meet(role)
        else:
            why = "partitions are being recovered" if not loop.settled else "not in the group"
            self._health.lack(role, why)
        # Readiness is looked at every turn until it is reached, then now and then, like the lag.
        self._due_s[role] = now_s + LAG_EVERY_S if settled else 0.0
        self._telemetry.gauge("ready", 0.0 if self._health.missing() else 1.0)
        self._report_lag(role, loop, member)

    def lost(self, topics: Sequence[str]) -> None:
        """Note which topics of the pipeline are gone; none: all are there."""
        if topics:
            self._health.lack("topics", f"{', '.join(topics)} is gone")
        else:
            self._health.meet("topics")

    def _report_lag(self, role: str, loop: Working, member: Grouped) -> None:
        sources = loop.sources
        for source in self._known.get(role, set()) - set(sources):
            self._telemetry.forget(**_labels(source))
        self._known[role] = set(sources)
        for source in sources:
            lag = member.lag(source)
            if lag is not None:
                # The member counts as read what the loop has not been handed yet.
                lag += loop.n_kept(source)
                self._telemetry.gauge("input_lag_messages", lag, **_labels(source))


class BeatingTelemetry:
    """Telemetry whose every report is a sign of life.

    A loop that waits for its broker reports that it tries again: it is not stuck, and a restart
    would not bring the broker back. What it says of input that is not committed is held against
    its health.
    """

    def __init__(self, telemetry: Telemetry, health: Health) -> None:
        self._telemetry, self._health = telemetry, health

    def count(self, name: str, n: float = 1, **labels: str) -> None:
        """Add ``n`` to a counter."""
        self._beat()
        if name in REFUSED:
            self._health.tries_again()
        self._telemetry.count(name, n, **labels)

    def gauge(self, name: str, value: float, **labels: str) -> None:
        """Say what something is now."""
        self._beat()
        if name == UNCOMMITTED:
            (self._health.owe if value else self._health.settle)(labels["stage"])
        self._telemetry.gauge(name, value, **labels)

    def observe(self, name: str, value: float, **labels: str) -> None:
        """Enter one value into a histogram."""
        self._beat()
        self._telemetry.observe(name, value, **labels)

    def _beat(self) -> None:
        self._health.sign_of_life(threading.current_thread().name)


def _labels(source: Source) -> dict[str, str]:
    return {"topic": source.topic, "partition": str(source.partition)}
