"""What the inside needs of the outside, as small Protocols; the edges bring the real thing."""

from __future__ import annotations

from typing import Protocol


class Telemetry(Protocol):
    """Where facts about the health of a job go; never the value or the key of a record.

    Names and labels are those of the declared table (`connectors.telemetry.METRICS`).
    """

    def count(self, name: str, n: float = 1, **labels: str) -> None:
        """Add ``n`` to a counter."""

    def gauge(self, name: str, value: float, **labels: str) -> None:
        """Say what something is now."""

    def observe(self, name: str, value: float, **labels: str) -> None:
        """Enter one value (seconds, bytes) into a histogram."""


class NullTelemetry:
    """Telemetry that nobody listens to: the default of everything that takes one."""

    def count(self, name: str, n: float = 1, **labels: str) -> None:
        """Do nothing."""

    def gauge(self, name: str, value: float, **labels: str) -> None:
        """Do nothing."""

    def observe(self, name: str, value: float, **labels: str) -> None:
        """Do nothing."""
