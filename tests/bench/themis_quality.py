"""Measure THEMIS online: VUS-PR on the rows after ``train_end``, looking back only.

    python tests/bench/themis_quality.py --data signals --detectors themis,knn --out themis.csv

``--data`` is a directory with ``index.csv`` (one row a series: set, series, file, n, train_end,
window) and the parquet files it names (columns ``v0`` and ``label``). Only the first variate is
read. A detector is fitted on the windows before ``train_end`` and then goes through the rest once:
score a batch, learn it. ``--max-windows`` bounds the windows judged a series by a longer stride,
never beyond an eighth of a window; scores between are interpolated. Random and |z| stand beside.
``themis:memory_lof`` is THEMIS with that adapter.
"""

from __future__ import annotations

import argparse
import csv
import time
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from streamad.detectors import DETECTORS
from streamad.evaluation.vus import vus_pr

LONGEST, SHORTEST, PARTS = 125, 32, 8
MARGIN = 1e-6


def online_scores(name: str, series, train_end: int, *, size: int, max_windows: int):
    """Return one score a row and the windows judged a second; rows without one get the nearest."""
    name, _, adapter = name.partition(":")
    detector = DETECTORS.load(name)(size=size, **({"adapter": adapter} if adapter else {}))
    n = len(series)
    windows = np.lib.stride_tricks.sliding_window_view(series, size)[:, :, None]
    n_train = max(train_end - size + 1, 1)
    stride = min(max(1, (n - train_end) // max_windows), max(1, size // PARTS))
    past = np.unique(np.linspace(0, n_train - 1, min(n_train, 4096)).astype(int))
    # Training windows at stride 1 where there is room: k-NN stitches a series out of them.
    past = np.arange(n_train) if n_train <= 25_000 else past
    detector.fit(windows[past].astype(np.float32))
    memory = detector.new_memory(1)
    if memory is not None:
        memory.reserve(1)
        detector.seed_memory(memory, slot=0, group=0)
    ends = np.arange(max(train_end, size - 1), n, stride)
    batch = 64 if 4 * size // stride >= 64 else 16
    scores, begun = [], time.perf_counter()
    for start in range(0, len(ends), batch):
        part = windows[ends[start : start + batch] - size + 1].astype(np.float32)
        slots = np.zeros(len(part), dtype=np.int32)
        scores.append(detector.score(part, memory=memory, slots=slots))
        if memory is not None:
            admit = np.ones(len(part), dtype=bool)
            detector.learn(memory, part, slots=slots, admit=admit, stride=stride)
    speed = len(ends) / (time.perf_counter() - begun)
    return np.interp(np.arange(n), ends - detector.lag, np.concatenate(scores)), speed


def measure(row: dict[str, Any], data: Path, names: list[str], *, max_windows: int):
    """Return one line of the table: the VUS-PR of every detector on one series."""
    frame = pl.read_parquet(data / row["file"], columns=["v0", "label"])
    series = frame["v0"].cast(pl.Float64).to_numpy()
    series = np.nan_to_num(series, nan=float(np.nanmedian(series))).astype(np.float32)
    label, train_end, n = frame["label"].to_numpy(), int(row["train_end"]), len(frame)
    if not label[train_end:].any() or label[train_end:].all():
        return None
    window = int(row["window"])
    size = int(min(max(window, SHORTEST), LONGEST, max(n // PARTS, 16)))
    train = series[:train_end].astype(np.float64)
    z = np.abs(series - np.median(train)) / max(train.std(), MARGIN)
    scores = {"random": np.random.default_rng(0).random(n), "abs_z": z}
    line = {"set": row["set"], "series": row["series"], "n": n, "size": size}
    for name in names:
        scores[name], line[f"{name}_windows_per_s"] = online_scores(
            name, series, train_end, size=size, max_windows=max_windows
        )
    for name, values in scores.items():
        line[name] = vus_pr(label[train_end:], values[train_end:], window=window)
    return line


def main() -> None:
    """Run over all series and print the means, over everything and a set."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--detectors", default="themis")
    parser.add_argument("--sets", default="aiops,cloudmon,donut,ecg,mgab,nab,nasa,synth,ucr")
    parser.add_argument("--max-windows", type=int, default=2000)
    parser.add_argument("--every", type=int, default=1, help="take every n-th series")
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    names = given.detectors.split(",")
    index = pl.read_csv(given.data / "index.csv", infer_schema_length=None)
    rows = index.filter(pl.col("set").is_in(given.sets.split(","))).sort("set", "series")
    lines: list[dict[str, Any]] = []
    for row in rows.gather_every(given.every).iter_rows(named=True):
        line = measure(row, given.data, names, max_windows=given.max_windows)
        if line is None:
            continue
        lines.append(line)
        print({k: round(v, 3) if isinstance(v, float) else v for k, v in line.items()}, flush=True)
        if given.out is not None:
            with given.out.open("w", newline="") as file:
                writer = csv.DictWriter(file, fieldnames=list(lines[0]))
                writer.writeheader()
                writer.writerows(lines)
    table = pl.DataFrame(lines)
    means = [pl.col(c).mean().round(3) for c in ("random", "abs_z", *names)]
    print(table.group_by("set").agg(pl.len(), *means).sort("set"))
    print(table.select(pl.len(), *means))


if __name__ == "__main__":
    main()
