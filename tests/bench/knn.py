"""Time k-NN of this checkout beside another's, and hold their scores against each other.

    python tests/bench/knn.py --before ../streamad-before [--detector knn_fused] [--json out.json]

Both run in processes of their own, in turns, so that what else the machine does meets both; seconds
are of processor time. Keys with a full memory are scored, with and without a reference from
training, 16 windows per key at once (a backtest, a job that catches up) and one (a job that keeps
up). ``same`` says whether all scores are equal to the bit.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table

SIZE, N_KEYS, N_TRAINING, N_LEARNED, N_SCORED = 64, 8, 4_100, 2_304, 64
TURNS = 3


def series(kind: str) -> np.ndarray:
    """Return ``(n, n_variates)`` of one kind."""
    n = N_TRAINING + N_LEARNED + N_SCORED + SIZE
    rng, steps = np.random.default_rng(0), np.arange(n)
    values = {
        "white noise": lambda: rng.normal(size=n),
        "noisy season": lambda: np.sin(steps / 6) + 0.1 * rng.normal(size=n),
        "load": lambda: np.sin(2 * np.pi * steps / 288) + 0.05 * np.cumsum(rng.normal(size=n)),
        "level": lambda: np.round(0.3 * np.cumsum(rng.normal(size=n)) + 20 * np.sin(steps / 90)),
        "5 variates": lambda: np.sin(steps[:, None] / 6 + np.arange(5)) + rng.normal(size=(n, 5)),
    }[kind]()
    return values.astype(np.float32).reshape(n, -1)


KINDS = ("white noise", "noisy season", "load", "level", "5 variates")


def measure(name: str) -> dict[str, dict[str, object]]:
    """Return microseconds per window, and a digest of the scores, of each case."""
    from streamad.detectors import DETECTORS

    found: dict[str, dict[str, object]] = {}
    for kind in KINDS:
        values = series(kind)
        rolling = np.lib.stride_tricks.sliding_window_view(values, SIZE, axis=0)
        windows = np.ascontiguousarray(rolling.transpose(0, 2, 1))
        for fitted in (True, False):
            for at_once in (16, 1):
                detector = DETECTORS.load(name)(size=SIZE)
                if fitted:
                    detector.fit(windows[:N_TRAINING])
                case = f"{kind}, {'reference' if fitted else 'memory alone'}, {at_once} at once"
                found[case] = _score(detector, windows[N_TRAINING:], fitted=fitted, at_once=at_once)
    return found


def _score(detector, windows: np.ndarray, *, fitted: bool, at_once: int) -> dict[str, object]:
    memory = detector.new_memory(windows.shape[2])
    memory.reserve(N_KEYS)
    for slot in range(N_KEYS if fitted else 0):
        detector.seed_memory(memory, slot=slot, group=0)
    seconds, digest = 0.0, hashlib.sha256()
    for first in range(0, N_LEARNED + N_SCORED, at_once):
        batch = np.repeat(windows[first : first + at_once], N_KEYS, axis=0)
        slots = np.tile(np.arange(N_KEYS, dtype=np.int32), len(batch) // N_KEYS)
        if first >= N_LEARNED:
            if first == N_LEARNED:
                detector.looks(batch, memory=memory, slots=slots)  # compiled before the clock runs
            started = time.process_time()
            looks = detector.looks(batch, memory=memory, slots=slots)
            seconds += time.process_time() - started
            digest.update(looks.tobytes())
        detector.learn(memory, batch, slots=slots, admit=np.ones(len(batch), dtype=np.bool_))
    return {"us": 1e6 * seconds / (N_SCORED * N_KEYS), "digest": digest.hexdigest()}


def _elsewhere(checkout: Path, name: str) -> dict[str, dict[str, object]]:
    """Measure in a process that imports one checkout."""
    done = subprocess.run(
        [sys.executable, __file__, "--one", "--detector", name],
        env={**os.environ, "PYTHONPATH": str(checkout.resolve())},
        capture_output=True,
        text=True,
        check=True,
    )
    return json.loads(done.stdout)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--before", type=Path, help="another checkout")
    parser.add_argument("--detector", default="knn_fused")
    parser.add_argument("--json", type=Path, help="write the rows there")
    parser.add_argument("--one", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.one:
        print(json.dumps(measure(args.detector)))
        return
    if args.before is None:
        parser.error("--before names the checkout to compare with")
    here = Path(__file__).resolve().parents[2]
    turns = [
        (_elsewhere(args.before, args.detector), _elsewhere(here, args.detector))
        for _ in range(TURNS)
    ]
    table, rows = Table(title=f"{args.detector}, microseconds per window of {SIZE}"), []
    for column in ("case", "before", "now", "ratio", "same"):
        table.add_column(column, justify="left" if column == "case" else "right")
    for case in turns[0][0]:
        before, now = ([turn[side][case]["us"] for turn in turns] for side in (0, 1))
        ratio = statistics.median(b / n for b, n in zip(before, now, strict=True))
        same = all(turn[0][case]["digest"] == turn[1][case]["digest"] for turn in turns)
        rows.append(
            {"case": case, "before": min(before), "now": min(now), "ratio": ratio, "same": same}
        )
        table.add_row(case, f"{min(before):.0f}", f"{min(now):.0f}", f"{ratio:.2f}", str(same))
    Console().print(table)
    if args.json:
        args.json.write_text(json.dumps(rows, indent=1) + "\n")


if __name__ == "__main__":
    main()
