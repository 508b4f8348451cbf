"""Pauses in files: where the times of a file go on later, and all that follows agrees.

Live, a record far ahead of the others is refused until more of them confirm it, since nobody knows
what comes next (`streamad.operators.ahead`). Of a file it is known: what follows is there. So a
pause of any length is one, and only a row that stands alone ahead of the others has a wrong clock.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from jobs.offline.replay import Part
from streamad.compiled import compiled
from streamad.operators.kernels import LEAST_MESSAGES
from streamad.records import RecordBatch
from streamad.windows.arrays import NEVER

LOOK = 64
"""Rows after a jump that must not lie before it: as many as live confirm one at the most."""

Read = tuple[Part, RecordBatch[Any]]


def with_pauses(parts: Iterable[Read], *, max_ahead: int) -> Iterator[tuple[Read, list[int]]]:
    """Yield what was read, each with the rows at which a file continues after a pause.

    parts : what of each was read, and the rows of it that are replayed; of topics none continues
    """
    shown = np.array([NEVER], np.int64)
    held: Read | None = None
    for one in parts:
        if not one[0].of_file:
            yield one, []
            continue
        if held is not None and len(one[1]):
            yield held, _resumed(held[1].time_ms, one[1].time_ms[:LOOK], shown, max_ahead)
            held = one
        elif held is None:
            held = one
        else:
            yield one, []  # a part without rows
    if held is not None:
        yield held, _resumed(held[1].time_ms, np.empty(0, np.int64), shown, max_ahead)


def _resumed(
    time_ms: NDArray[np.int64],
    after: NDArray[np.int64],
    shown: NDArray[np.int64],
    max_ahead: int,
) -> list[int]:
    """Return the rows at which times continue after a pause.

    after : times of the rows that come next; shown : ``(1,)``, the greatest time so far
    """
    times = np.concatenate([time_ms, after])
    found = resumptions(times, len(time_ms), shown, max_ahead, LOOK, LEAST_MESSAGES)
    return [int(row) for row in found]


@compiled
def resumptions(
    time_ms: NDArray[np.int64],
    n: int,
    shown: NDArray[np.int64],
    max_ahead: int,
    look: int,
    least: int,
) -> NDArray[np.int64]:
    """Return the first rows behind pauses among the first ``n``, and update what is shown."""
    found = np.empty(n, np.int64)
    n_found = 0
    for i in range(n):
        t = time_ms[i]
        if shown[0] == NEVER:
            shown[0] = t
        if t <= shown[0] + max_ahead:
            shown[0] = max(shown[0], t)
            continue
        stop = min(i + 1 + look, len(time_ms))
        agree = stop - i >= least
        for j in range(i + 1, stop):
            agree = agree and time_ms[j] > t - max_ahead
        if agree:
            found[n_found] = i
            n_found += 1
            shown[0] = t
    return found[:n_found].copy()
