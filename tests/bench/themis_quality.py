"""Measure THEMIS online: VUS-PR on the rows after ``train_end``, looking back only.

    python -m tests.bench.themis_quality --data signals --detectors themis,raw --out themis.csv

``--data`` is a directory with ``index.csv`` (one row a series: set, series, file, n, train_end,
window) and the parquet files it names (columns ``v0`` and ``label``). Only the first variate is
read. A detector is fitted on the windows before ``train_end`` and then goes through the rest once:
score a batch, learn it. ``--max-windows`` bounds the windows judged a series by a longer stride,
never beyond an eighth of a window; scores between are interpolated. Random and |z| stand beside.
``themis:memory_lof`` is THEMIS with that adapter. ``raw`` is k-NN on raw windows in its place:
of the same lengths, with the same past; ``raw_changes`` has changes, too, and no encoder.
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
from streamad.detectors.base import Detector, Floats
from streamad.detectors.embeddings import to_patches
from streamad.detectors.themis import Themis
from streamad.detectors.themis.features import Features
from streamad.evaluation.baselines import BASELINES
from streamad.evaluation.intervals import paired_difference
from streamad.evaluation.vus import vus_pr
from tests.bench.hypad_quality import hashed

LONGEST, SHORTEST, PARTS = 125, 32, 8
MARGIN = 1e-6


class Nothing:
    """In the place of an encoder: samples stay for themselves."""

    patch_size, width, keeps_scale = 16, 0, True

    def embed(self, series: Floats) -> Floats:
        """Return no value a patch."""
        return np.zeros((len(series), -(-series.shape[1] // self.patch_size), 0), np.float32)


class Raw(Themis):
    """THEMIS with neither encoder nor changes: k-NN on raw windows."""

    def _new_features(self) -> Features:
        return Features(Nothing(), size=self.size, at=self._at)

    def _fused(self, apart: Floats) -> Floats:
        return apart[:, : apart.shape[1] // 2].sum(axis=1)


class Samples(Nothing):
    """In the place of an encoder: the patches themselves."""

    width = 16

    def embed(self, series: Floats) -> Floats:
        """Return patches, as far apart as the root mean square of differences."""
        patches = to_patches(series, patch_size=self.patch_size)
        return patches[:, :, : self.patch_size] / np.float32(np.sqrt(self.patch_size))


class RawChanges(Themis):
    """THEMIS without an encoder."""

    def _new_features(self) -> Features:
        return Features(Samples(), size=self.size, at=self._at)


def made(name: str, size: int, model: str) -> Detector:
    """Return a detector by its name here; model : of THEMIS."""
    name, _, adapter = name.partition(":")
    own = {"raw": Raw, "raw_changes": RawChanges}.get(name)
    if own is not None:
        return own(size=size)
    if name == "themis":
        return Themis(size=size, model=model, adapter=adapter or "memory")
    register = DETECTORS if name in DETECTORS else BASELINES
    detector: Detector = register.load(name)(size=size)
    return detector


def online_scores(detector: Detector, series, train_end: int, *, max_windows: int):
    """Return one score a row and the windows judged a second; rows without one get the nearest."""
    n, size = len(series), detector.size
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


def measure(row: dict[str, Any], given: argparse.Namespace, names: list[str]):
    """Return one line of the table: the VUS-PR of every detector on one series."""
    frame = pl.read_parquet(given.data / row["file"], columns=["v0", "label"])
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
    half = ("even", "odd")[hashed(row["series"]) % 2]
    line = {"set": row["set"], "series": row["series"], "half": half, "n": n, "size": size}
    for name in names:
        scores[name], line[f"{name}_windows_per_s"] = online_scores(
            made(name, size, given.model), series, train_end, max_windows=given.max_windows
        )
    for name, values in scores.items():
        line[name] = vus_pr(label[train_end:], values[train_end:], window=window)
    return line


def report(table: pl.DataFrame, names: list[str]) -> None:
    """Print means by set and half, and by how much the first detector is better than others."""
    means = [pl.col(c).mean().round(3) for c in ("random", "abs_z", *names)]
    for group in ("set", "half"):
        print(table.group_by(group).agg(pl.len(), *means).sort(group))
    print(table.select(pl.len(), *means))
    for other in ("abs_z", *names[1:]):
        for half in (("even", "odd"), ("odd",)):
            part = table.filter(pl.col("half").is_in(half))
            gain = paired_difference(part[names[0]], part[other])
            print(f"{names[0]} - {other}, {'+'.join(half)}: {gain.value:+.3f} ", end="")
            print(f"[{gain.low:+.3f}, {gain.high:+.3f}] over {gain.n}")


def main() -> None:
    """Run over all series and print the means, over everything and a set."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--detectors", default="themis")
    parser.add_argument("--model", default="shipped")
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
        line = measure(row, given, names)
        if line is None:
            continue
        lines.append(line)
        print({k: round(v, 3) if isinstance(v, float) else v for k, v in line.items()}, flush=True)
        if given.out is not None:
            with given.out.open("w", newline="") as file:
                writer = csv.DictWriter(file, fieldnames=list(lines[0]))
                writer.writeheader()
                writer.writerows(lines)
    report(pl.DataFrame(lines), names)


if __name__ == "__main__":
    main()
