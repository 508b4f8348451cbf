"""Cost of every detector in the operator: windows a second, share of the model, bytes a key.

Each detector judges the same windows through `DetectOperator.process`, on one thread. ``model`` is
the share of that time spent inside the detector: what the pipeline keeps of the speed of calling
the model on pre-built batches. With ``--keys`` the memory of that many keys of the fallback is
measured as the process really holds it.

    python tests/bench/detectors.py [--keys 1000000] [--json docs/bench/detectors.json]
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

import numpy as np
import polars as pl
import psutil
from rich.console import Console
from rich.table import Table

from streamad.config import parse_pipeline
from streamad.detectors import DETECTORS
from streamad.detectors.base import Detector
from streamad.operators.detect import DetectOperator
from streamad.records import SignalBatch

SIZE = 64
N_KEYS = 64
POINTS_A_BATCH = 4_096


class Timed:
    """A detector that counts the seconds spent in it."""

    def __init__(self, detector: Detector) -> None:
        self._detector = detector
        self.seconds = 0.0

    def __getattr__(self, name: str) -> object:
        attribute = getattr(self._detector, name)
        if name not in {"score", "looks", "learn", "explain"}:
            return attribute

        def timed(*args: object, **kwargs: object) -> object:
            started = time.perf_counter()
            try:
                return attribute(*args, **kwargs)
            finally:
                self.seconds += time.perf_counter() - started

        return timed


def batches(n_batches: int, n_keys: int, rng: np.random.Generator) -> list[SignalBatch]:
    """Return batches of a noisy season, every key a point a step."""
    names = [f"host-{k}/cpu" for k in range(n_keys)]
    per_key = POINTS_A_BATCH // n_keys
    made = []
    for b in range(n_batches):
        step = np.repeat(np.arange(per_key) + b * per_key, n_keys)
        key = np.tile(np.arange(n_keys), per_key)
        values = np.sin(step / 6 + key) + rng.normal(0, 0.1, len(step))
        made.append(as_batch([names[k] for k in key], 1_000 * (step + 1), values))
    return made


def as_batch(keys: list[str], time_ms: np.ndarray, values: np.ndarray) -> SignalBatch:
    """Return a batch of one message."""
    n = len(keys)
    return SignalBatch(
        keys=pl.Series("key", keys, dtype=pl.String),
        time_ms=time_ms.astype(np.int64),
        values=values.reshape(n, 1).astype(np.float64),
        message=np.zeros(n, np.int32),
        row=np.arange(n, dtype=np.int32),
        offsets=np.zeros(1, np.int64),
        broker_ms=np.full(1, -1, np.int64),
    )


def measure(name: str, n_batches: int) -> dict[str, object]:
    """Return a detector's row."""
    rng = np.random.default_rng(1)
    detector = DETECTORS.load(name)(size=SIZE)
    training = np.lib.stride_tricks.sliding_window_view(
        np.sin(np.arange(1_200) / 6) + rng.normal(0, 0.1, 1_200), SIZE
    )
    if detector.info.needs_training:
        detector.fit(training[:, :, None].astype(np.float32))
    timed = Timed(detector)
    operator = DetectOperator(
        parse_pipeline(f"name: bench\ndetector: {name}\nwindows: {{size: {SIZE}}}"), timed
    )
    state = operator.new_state()
    data = batches(n_batches, N_KEYS, rng)
    # The warm-up of keys, and of compiled code, is not what runs all day.
    warm = 300 * N_KEYS // POINTS_A_BATCH + 1
    for batch in data[:warm]:
        operator.process(state, batch)
    timed.seconds, n_windows = 0.0, 0
    started = time.perf_counter()
    for batch in data[warm:]:
        n_windows += operator.process(state, batch).counts["windows"]
    seconds = time.perf_counter() - started
    return {
        "detector": name,
        "windows_per_s": round(n_windows / seconds),
        "model_share": round(timed.seconds / seconds, 3),
        "bytes_per_key": state.bytes_per_key,
    }


def measure_keys(n_keys: int) -> dict[str, object]:
    """Return what ``n_keys`` keys of the fallback really take."""
    operator = DetectOperator(
        parse_pipeline(f"name: bench\ndetector: robust_z\nseries: {{max_keys: {n_keys}}}"),
        DETECTORS.load("robust_z")(size=SIZE),
    )
    state = operator.new_state()
    process = psutil.Process()
    before = process.memory_info().rss
    for first in range(0, n_keys, 50_000):
        names = [
            f"service-{k % 97}/host-{k}/cpu" for k in range(first, min(first + 50_000, n_keys))
        ]
        # A key gets its arrays with the row that closes its first window.
        for second in range(1, SIZE + 1):
            times = np.full(len(names), 1_000 * second)
            operator.process(state, as_batch(names, times, np.ones(len(names))))
    grown = process.memory_info().rss - before
    bound = SIZE * 4 * 1.5 + 2048
    return {
        "keys": n_keys,
        "rss_gib": round(grown / 2**30, 2),
        "rss_bytes_per_key": round(grown / n_keys),
        "bound_bytes_per_key": round(bound),
    }


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--batches", type=int, default=12, help="batches of 4,096 points a detector"
    )
    parser.add_argument("--keys", type=int, default=0, help="also hold this many keys")
    parser.add_argument("--json", type=Path, help="write the rows there")
    args = parser.parse_args()
    console = Console()
    table = Table(title=f"detectors, windows of {SIZE} samples, one variate, one thread")
    rows = []
    for column in ("detector", "windows/s", "model", "bytes/key"):
        table.add_column(column, justify="right")
    for name in DETECTORS:
        row = measure(name, args.batches)
        rows.append(row)
        table.add_row(
            *[f"{cell:,}" if isinstance(cell, int) else str(cell) for cell in row.values()]
        )
    console.print(table)
    about: dict[str, object] = {"size": SIZE, "rows": rows}
    if args.keys:
        about["keys"] = measure_keys(args.keys)
        console.print(about["keys"])
    if args.json:
        args.json.parent.mkdir(parents=True, exist_ok=True)
        args.json.write_text(json.dumps(about, indent=1) + "\n")


if __name__ == "__main__":
    main()
