"""How far one record may move partition time: by what the other records show, and no clock.

Under CreateTime the broker's timestamp is the producer's own, so it confirms whatever the producer
believes. What is decided here follows from the records and their order alone, so that a back-test
and a recovery decide as the live job did. See docs/adr/0020.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from streamad.operators.kernels import (
    GAP,
    LEAST_MESSAGES,
    MESSAGES,
    MOST_KEYS,
    SHOWN,
    SLOTS,
    bound_ahead,
)
from streamad.windows.arrays import NEVER

FINDINGS_PER_SPAN = 20
SPAN_MS = 3_600_000
"""Most keys whose event times are reported in this much of partition time; rows of the others are
counted with the dead-letter records."""


@dataclass(slots=True)
class AheadState:
    """What records have shown of partition time.

    clock : int64, see `operators.kernels`; active : the last event times of keys near the present,
    by a hash of the key; witnesses : keys that are ahead together; reported : keys reported in this
    span, since_ms : when it began
    """

    clock: NDArray[np.int64] = field(
        default_factory=lambda: np.array([NEVER, 0, 0, 0, 0, -1, 0], np.int64)
    )
    active: NDArray[np.int64] = field(default_factory=lambda: np.full(SLOTS, NEVER, np.int64))
    witnesses: NDArray[np.uint64] = field(default_factory=lambda: np.zeros(MOST_KEYS, np.uint64))
    reported: list[str] = field(default_factory=list)
    since_ms: int = int(NEVER)

    def bound(
        self,
        time_ms: NDArray[np.int64],
        message: NDArray[np.int64],
        hashes: NDArray[np.uint64],
        usable: NDArray[np.bool_],
        max_ahead: int,
        resumed: Sequence[int] = (),
    ) -> NDArray[np.int64]:
        """Clear ``usable`` of rows that are ahead of what others show; in offset order.

        resumed : rows at which time is known to continue after a pause, in order. Returns the
        partition time that the rows before each had shown.
        """
        shown = np.empty(len(time_ms), np.int64)
        for number, (start, stop) in enumerate(pairwise((0, *resumed, len(time_ms)))):
            if number:
                self._resume(int(time_ms[start]))
            part = slice(start, stop)
            bound_ahead(
                time_ms[part], message[part], hashes[part], usable[part], max_ahead, self.clock,
                self.active, self.witnesses, shown[part],
            )  # fmt: skip
        return shown

    def _resume(self, time_ms: int) -> None:
        """Go on at a time as if enough records had confirmed it."""
        if self.clock[SHOWN] != NEVER:
            self.clock[GAP] = time_ms - self.clock[SHOWN]
        self.clock[SHOWN], self.clock[MESSAGES] = time_ms, 0
        self.active[:] = NEVER

    def may_report(self, key: str, shown_ms: int) -> bool:
        """Return whether a finding on a key's event times is due; counts it if so."""
        if shown_ms - self.since_ms >= SPAN_MS:
            self.reported, self.since_ms = [], shown_ms
        if key in self.reported or len(self.reported) >= FINDINGS_PER_SPAN:
            return False
        self.reported.append(key)
        return True

    def save(self) -> dict[str, Any]:
        """Return all of it, JSON-ready."""
        return {
            "clock": self.clock.tolist(),
            "active": {int(at): int(self.active[at]) for at in np.flatnonzero(self.active > NEVER)},
            "witnesses": self.witnesses.tolist(),
            "reported": self.reported,
            "since_ms": self.since_ms,
        }

    def load(self, saved: dict[str, Any]) -> None:
        """Take back what `save` gave."""
        self.clock[:] = saved["clock"]
        for at, time_ms in saved["active"].items():
            self.active[int(at)] = time_ms
        self.witnesses[:] = np.array(saved["witnesses"], np.uint64)
        self.reported = [str(key) for key in saved["reported"]]
        self.since_ms = int(saved["since_ms"])


def why_ahead(time_ms: int, shown_ms: int, allowed_ms: int) -> str:
    """Return why a row is refused."""
    return (
        f"event time {time_ms} is {time_ms - shown_ms} ms ahead of what other records of the "
        f"partition show; series.max_ahead allows {allowed_ms} ms until {LEAST_MESSAGES} messages "
        "of most keys confirm it: correct the producer's clock"
    )
