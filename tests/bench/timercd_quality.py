"""Measure TimeRCD zero-shot: VUS-PR on the rows after ``train_end``, and what a window costs.

    python tests/bench/timercd_quality.py --data signals --out timercd.jsonl
    python tests/bench/timercd_quality.py --speed

``--data`` is a directory with ``index.csv`` (one row per series: set, series, file, n, train_end,
window) and the files it names (columns ``v0`` and ``label``); only the first variate is read.
Nothing is fitted: no row before ``train_end`` has any part but as context. A window is 2,048
samples; of a younger series it holds as many as there are, 64 at least. It steps by a patch (16
samples), and the patch before its newest one is scored: no row's score uses a row more than 31
samples later. The newest rows of a series are scored by its last window; rows that are older than
what the first window scores get its first score. Random and ``|z|`` (distance from the median of
the rows before ``train_end``) stand beside it.

``--speed`` prints windows per second of one thread, beside detectors measured in turn with it, and
how many series of one point per 10 s two cores judge so.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from streamad.detectors import DETECTORS
from streamad.detectors.timercd import TimeRcd
from streamad.detectors.timercd.detector import SCALES
from streamad.evaluation.vus import auc_pr, vus_pr

LONGEST = 2_048
CALL = 64
HALVES = ("even", "odd")


def hashed(text: str) -> int:
    """Return the SHA-256 of a text as a number."""
    return int(hashlib.sha256(text.encode()).hexdigest(), 16)


def zero_shot(series, begin: int, *, size: int, model: str, lag: int, scales=SCALES):
    """Return one score per row from ``begin`` on."""
    detector = TimeRcd(size=size, model=model, lag=lag, scales=scales)
    step = detector.step
    first = min(max(begin + lag, detector.min_periods - 1), len(series) - 1)
    ends = np.unique(np.append(np.arange(first, len(series), step), len(series) - 1))
    # As of a new key: what a window does not hold yet is NaN.
    whole = np.concatenate([np.full(size - 1, np.nan), series])
    windows = np.lib.stride_tricks.sliding_window_view(whole, size)[:, :, None]
    rows, values = [], []
    judged = size - 1 - lag
    for start in range(0, len(ends), CALL):
        part = ends[start : start + CALL]
        scores = detector.score_samples(windows[part].astype(np.float32))
        rows.append((part[:, None] - lag - np.arange(step)[::-1]).ravel())
        values.append(scores[:, judged - step + 1 : judged + 1].ravel())
    if lag:
        rows.append(ends[-1] - lag + 1 + np.arange(lag))
        values.append(scores[-1, judged + 1 :])
    row, value = np.concatenate(rows), np.concatenate(values)
    order = np.argsort(row, kind="stable")
    return np.interp(np.arange(begin, len(series)), row[order], value[order].astype(np.float64))


def measure(row: dict[str, Any], given: argparse.Namespace) -> dict[str, Any] | None:
    """Return one series' line, or None where nothing is to be found in it."""
    frame = pl.read_parquet(given.data / row["file"], columns=["v0", "label"])
    series = frame["v0"].cast(pl.Float64).to_numpy()
    series = np.nan_to_num(series, nan=float(np.nanmedian(series)))
    begin, n = int(row["train_end"]), len(series)
    label = frame["label"].to_numpy()[begin:]
    if not label.any() or label.all():
        return None
    size = given.size
    started = time.process_time()
    scores = {
        "random": np.random.default_rng(0).random(n - begin),
        "abs_z": np.abs(series[begin:] - np.median(series[:begin])),
        "timercd": zero_shot(
            series, begin, size=size, model=given.model, lag=given.lag, scales=given.scales
        ),
    }
    line: dict[str, Any] = {"set": row["set"], "series": row["series"], "n": n, "size": size}
    line["seconds"] = round(time.process_time() - started, 2)
    for name, values in scores.items():
        line[name] = round(vus_pr(label, values, window=int(row["window"])), 5)
        line[f"{name}_auc_pr"] = round(auc_pr(label, values), 5)
    return line


def quality(given: argparse.Namespace) -> None:
    """Measure all series, print means over them and over each set."""
    index = pl.read_csv(given.data / "index.csv", infer_schema_length=None)
    rows = index.filter(pl.col("set").is_in(given.sets.split(","))).sort("set", "series")
    if given.half is not None:
        named = [hashed(name) % 2 == HALVES.index(given.half) for name in rows["series"]]
        rows = rows.filter(pl.Series(named))
    lines = []
    for row in rows.gather_every(given.every).iter_rows(named=True):
        line = measure(row, given)
        if line is not None:
            lines.append(line)
            if given.out is not None:
                with given.out.open("a") as file:
                    file.write(json.dumps(line) + "\n")
    table = pl.DataFrame(lines)
    names = ("random", "abs_z", "timercd")
    means = [pl.col(n).mean().round(3) for n in (*names, *(f"{n}_auc_pr" for n in names))]
    with pl.Config(tbl_rows=-1, tbl_cols=-1, tbl_width_chars=140):
        print(table.group_by("set").agg(pl.len(), *means).sort("set"))
        print(table.select(pl.len(), *means))
    gap = (table["timercd"] - table["abs_z"]).to_numpy()
    draws = np.random.default_rng(0).choice(gap, size=(10_000, len(gap))).mean(axis=1)
    low, high = np.quantile(draws, [0.025, 0.975])
    print(f"timercd - abs_z: {gap.mean():+.3f} [{low:+.3f}, {high:+.3f}] over {len(gap)} series")


def speed(given: argparse.Namespace) -> None:
    """Time the detectors in turn, several rounds, and print medians and ratios."""
    rng = np.random.default_rng(0)
    wave = np.sin(np.arange(4_096) / 6.0) + 0.1 * rng.standard_normal(4_096)
    made = {}
    for name, size in (("robust_z", 64), ("themis", 64), ("timercd", 512), ("timercd", 2_048)):
        windows = np.lib.stride_tricks.sliding_window_view(wave.astype(np.float32), size)
        windows = np.ascontiguousarray(windows[:768, :, None])
        extra = {"model": given.model} if name == "timercd" else {}
        detector = DETECTORS.load(name)(size=size, **extra).fit(windows[:256])
        detector.score(windows[:64])
        made[f"{name}, size {size}"] = (detector, windows[256:])
    seconds: dict[str, list[float]] = {name: [] for name in made}
    for _ in range(5):
        for name, (detector, windows) in made.items():
            # Time on the processor: other programs may run beside.
            started = time.process_time()
            detector.score(windows)
            seconds[name].append((time.process_time() - started) / len(windows))
    reference = np.median(seconds["themis, size 64"])
    print(f"{'detector':22}{'windows/s/core':>16}{'times themis':>14}{'series on 2 cores':>20}")
    for name, each in seconds.items():
        one = float(np.median(each))
        print(f"{name:22}{1 / one:16,.0f}{one / reference:14.2f}{2 * 10 / one:20,.0f}")


def main() -> None:
    """Read the command line and measure."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--data", type=Path)
    parser.add_argument("--model", default="shipped")
    parser.add_argument("--size", type=int, default=LONGEST)
    parser.add_argument("--lag", type=int, default=16)
    parser.add_argument("--scales", type=int, nargs="+", default=SCALES)
    parser.add_argument("--sets", default="aiops,cloudmon,donut,ecg,mgab,nab,nasa,synth,ucr")
    parser.add_argument("--half", choices=HALVES, help="series whose name's SHA-256 is so")
    parser.add_argument("--every", type=int, default=1, help="take every n-th series")
    parser.add_argument("--out", type=Path, help="a line of JSON per series is added here")
    parser.add_argument("--speed", action="store_true")
    given = parser.parse_args()
    if given.speed:
        speed(given)
    elif given.data is None:
        parser.error("name the directory of series with --data, or give --speed")
    else:
        quality(given)


if __name__ == "__main__":
    main()
