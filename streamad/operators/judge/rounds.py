"""A block of windows in rounds, between which the memory of a key may change."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from streamad.detectors.contract import ItemDetector, Observed
from streamad.operators.kernels import marked_before
from streamad.operators.shard import ShardState
from streamad.records import FLAG_INCOMPLETE, FLAG_WARMING
from streamad.windows.signals import WindowBlock


@dataclass(slots=True)
class Round:
    """Windows between two changes of any key's memory; arrays ``(n,)`` unless said.

    seen : the block as a detector of a population judged it, by the block's rows
    """

    block: WindowBlock
    rows: NDArray[np.int64]
    ordinal: NDArray[np.int64]
    codes: NDArray[np.int32]
    values: Any
    start_ms: NDArray[np.int64]
    end_ms: NDArray[np.int64]
    still: NDArray[np.int32]
    ready: NDArray[np.bool_]
    flags: NDArray[np.uint8]
    seen: Observed | None = None


def rounds_of(
    block: WindowBlock,
    ordinal: NDArray[np.int64],
    ends: NDArray[np.bool_],
    *,
    state: ShardState,
    detector: ItemDetector[Any],
) -> Iterator[Round]:
    """Cut a block at the windows where a key's memory may change, counted per key.

    Also after those that ``ends`` marks, at which an open episode is given up. The cuts depend
    on a key's own count of windows, not on the block, so that a window is judged by the same
    memory however its batch was cut.
    """
    flags = np.where(block.incomplete, FLAG_INCOMPLETE, 0).astype(np.uint8)
    if state.memory is None and not ends.any():
        whole = np.arange(len(block))
        ready = ~block.incomplete
        yield Round(
            block, whole, ordinal, block.codes, block.values, block.start_ms, block.end_ms,
            block.still, ready, flags,
        )  # fmt: skip
        return
    turn = np.zeros(len(block), np.int64)
    if state.memory is not None:
        cold = (ordinal < detector.warm_up) & ~state.flags["seeded"][block.codes]
        flags[cold & ~block.incomplete] |= FLAG_WARMING
        turn = _turns(block.codes, ordinal // detector.info.learn_every)
    if ends.any():
        # Neither falls from a window of a key to its next: sums part what either parts.
        turn += marked_before(block.codes, ends)
    for t in range(int(turn.max(initial=0)) + 1):
        rows = np.flatnonzero(turn == t)
        yield Round(
            block,
            rows,
            ordinal[rows],
            block.codes[rows],
            block.values[rows],
            block.start_ms[rows],
            block.end_ms[rows],
            block.still[rows],
            flags[rows] == 0,
            flags[rows],
        )


def _turns(codes: NDArray[np.int32], period: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return how many periods after its key's first window in the block each window stands."""
    first = np.empty(int(codes.max(initial=-1)) + 1, np.int64)
    first[codes[::-1]] = period[::-1]  # the last one written is the first of its key
    return np.asarray(period - first[codes])
