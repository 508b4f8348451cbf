"""How fast this machine is just now, for limits on time that hold on any."""

from __future__ import annotations

import time
from collections.abc import Callable

REFERENCE_S = 0.04
"""What `_work` takes where the limits were set, in seconds of CPU."""


def slowness() -> float:
    """Return how many times slower than that machine this one is just now; at least 1."""
    return max(1.0, _cpu_s(_work) / REFERENCE_S)


def least_cpu_s(work: Callable[[], object], *, allowed_s: float, tries: int = 4) -> float:
    """Return the least CPU time ``work`` took, in seconds of the machine that limits are for.

    It is tried again while it takes more than ``allowed_s``: what other processes do to the caches
    is not its fault, and does not last.
    """
    least_s = float("inf")
    for _ in range(tries):
        before = slowness()
        taken_s = _cpu_s(work)
        least_s = min(least_s, taken_s / max(before, slowness()))
        if least_s <= allowed_s:
            break
    return least_s


def _cpu_s(work: Callable[[], object]) -> float:
    began_s = time.process_time()
    work()
    return time.process_time() - began_s


def _work() -> int:
    total = 0
    for number in range(500_000):
        total += number * number
    return total
