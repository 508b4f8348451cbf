"""Cost of every detector in the operator: windows a second, share of the model, bytes a key.

Each detector of signals judges the same series through `DetectOperator.process`, on one thread.
``model`` is the share of that time spent inside the detector: what the pipeline keeps of the speed
of calling the model on pre-built batches. *Alone* is the model without the pipeline, by windows a
call: small batches are what a quiet topic brings. *Load* is the time to make the detector and take
up its artifact in a process that has its compiled code. With ``--keys`` the memory of that many
keys of the fallback is measured as the process really holds it.

    python -m tests.bench.detectors [--keys 1000000] [--json docs/bench/detectors.json]
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
from tests.contract.inputs import QUICK

SIZE = 64
N_KEYS = 64
POINTS_A_BATCH = 4_096
A_CALL = (1, 16, 256)
LONGEST_S = 20.0


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


def fitted(name: str, size: int) -> Detector:
    """Return a detector that is ready to judge."""
    detector = DETECTORS.load(name)(size=size, **(QUICK.get(name) or {}))
    if detector.info.needs_training:
        rng = np.random.default_rng(1)
        training = np.sin(np.arange(1_200) / 6) + rng.normal(0, 0.1, 1_200)
        windows = np.lib.stride_tricks.sliding_window_view(training, size)
        detector.fit(windows[:, :, None].astype(np.float32))
    return detector


def load_seconds(detector: Detector, name: str, size: int) -> float:
    """Return the time to make the detector anew and take up what it had learned."""
    state = detector.state()
    started = time.perf_counter()
    DETECTORS.load(name)(size=size, **(QUICK.get(name) or {})).load(state)
    return time.perf_counter() - started


def alone(detector: Detector, size: int, n_a_call: int) -> int:
    """Return windows a second of `looks`, or `score`, at so many windows a call, key by key."""
    rng = np.random.default_rng(2)
    series = np.sin(np.arange(size + 2_048) / 6) + rng.normal(0, 0.1, size + 2_048)
    windows = np.lib.stride_tricks.sliding_window_view(series, size)[:, :, None]
    windows = np.ascontiguousarray(windows.astype(np.float32))
    memory = detector.new_memory(1)
    if memory is not None:
        memory.reserve(1)
        for start in range(0, 512, 16):
            part = windows[start : start + 16]
            slots, admit = np.zeros(16, dtype=np.int32), np.ones(16, dtype=bool)
            detector.learn(memory, part, slots=slots, admit=admit)
    judge = detector.looks
    slots = np.zeros(n_a_call, dtype=np.int32)
    starts = range(0, max(len(windows) - n_a_call, 1), n_a_call)
    judge(windows[:n_a_call], memory=memory, slots=slots)
    started, n_judged = time.perf_counter(), 0
    while time.perf_counter() - started < 1.0:
        for start in starts:
            judge(windows[start : start + n_a_call], memory=memory, slots=slots)
            n_judged += n_a_call
            if time.perf_counter() - started > 1.0:
                break
    return round(n_judged / (time.perf_counter() - started))


def measure(name: str, n_batches: int) -> dict[str, object]:
    """Return a detector's row."""
    rng = np.random.default_rng(1)
    info = DETECTORS.load(name).info
    size = max(SIZE, info.default_size)
    detector = fitted(name, size)
    timed = Timed(detector)
    operator = DetectOperator(
        parse_pipeline(f"name: bench\ndetector: {name}\nwindows: {{size: {size}}}"), timed
    )
    state = operator.new_state()
    # The warm-up of keys, and of compiled code, is not what runs all day.
    learned = 256 if info.learns else 0
    warm = (learned + detector.min_periods) * N_KEYS // POINTS_A_BATCH + 1
    data = batches(warm + n_batches, N_KEYS, rng)
    for batch in data[:warm]:
        operator.process(state, batch)
    timed.seconds, n_windows = 0.0, 0
    started = time.perf_counter()
    for batch in data[warm:]:
        n_windows += operator.process(state, batch).counts["windows"]
        if time.perf_counter() - started > LONGEST_S:
            break
    seconds = time.perf_counter() - started
    return {
        "detector": name,
        "size": size,
        "windows_per_s": round(n_windows / seconds),
        "model_share": round(timed.seconds / seconds, 3),
        **{f"alone_{n}": alone(detector, size, n) for n in A_CALL},
        "load_ms": round(1000 * load_seconds(detector, name, size), 1),
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
    table = Table(title="detectors of signals, one variate, one thread")
    rows = []
    calls = [f"alone, {n}" for n in A_CALL]
    for column in ("detector", "size", "windows/s", "model", *calls, "load, ms", "bytes/key"):
        table.add_column(column, justify="right")
    for name in DETECTORS:
        if DETECTORS.load(name).info.modality != "signals":
            continue
        console.print(f"{name} ...", style="dim")
        row = measure(name, args.batches)
        rows.append(row)
        table.add_row(
            *[f"{cell:,}" if isinstance(cell, int) else str(cell) for cell in row.values()]
        )
    console.print(table)
    about: dict[str, object] = {"rows": rows}
    if args.keys:
        about["keys"] = measure_keys(args.keys)
        console.print(about["keys"])
    if args.json:
        args.json.parent.mkdir(parents=True, exist_ok=True)
        args.json.write_text(json.dumps(about, indent=1) + "\n")


if __name__ == "__main__":
    main()
