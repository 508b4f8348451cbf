"""Measure what the scores log costs: CPU nanoseconds and bytes a row, and the share of a core.

Run ``python tests/bench/scores_log.py``.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np
import polars as pl

from connectors.records.scores_log import ScoresOrigin, decode, encode
from streamad.records import ScoreBatch

ROWS_A_SECOND = 500_000


def scores(rows: int, keys: int) -> ScoreBatch:
    """Return scores of windows that close key after key."""
    rng = np.random.default_rng(3)
    level = np.repeat(rng.random(keys).astype(np.float32), rows // keys + 1)[:rows]
    return ScoreBatch(
        keys=pl.Series([f"host-{i % keys:06d}/cpu" for i in range(rows)]),
        end_ms=1_700_000_000_000 + np.arange(rows) // keys * 1000,
        ordinal=np.arange(rows, dtype=np.int64) % (rows // keys),
        score=rng.normal(size=rows).astype(np.float32),
        p_value=rng.random(rows).astype(np.float32),
        level=level,
        newest=rng.normal(size=rows).astype(np.float32),
        newest_p=rng.random(rows).astype(np.float32),
        newest_level=level,
        severity=rng.random(rows).astype(np.float32),
        flags=np.zeros(rows, np.uint8),
    )


def best_cpu_s(work: Callable[[], object], rounds: int = 7) -> float:
    """Return the least CPU time of several runs: wall time is other processes' too."""
    taken = []
    for _ in range(rounds):
        began = time.process_time()
        work()
        taken.append(time.process_time() - began)
    return min(taken)


def main() -> None:
    """Print the table."""
    origin = ScoresOrigin(
        pipeline="p",
        detector="robust_z",
        artifact="",
        topic="metrics",
        partition=0,
        first_offset=0,
        next_offset=1,
    )
    print(f"{'rows':>8}{'keys':>9}{'write ns':>10}{'read ns':>9}{'bytes':>8}{'core at 500k/s':>16}")
    for rows, keys in ((5_000, 5_000), (100_000, 500), (100_000, 100_000)):
        batch = scores(rows, keys)
        messages = encode(batch, origin)
        write = best_cpu_s(lambda b=batch: encode(b, origin)) / rows
        read = best_cpu_s(lambda m=messages: [decode(one) for one in m]) / rows
        size = sum(map(len, messages)) / rows
        print(
            f"{rows:>8}{keys:>9}{write * 1e9:>10.0f}{read * 1e9:>9.0f}{size:>8.1f}"
            f"{write * ROWS_A_SECOND:>16.1%}"
        )


if __name__ == "__main__":
    main()
