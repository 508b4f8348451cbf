"""What does each detector add to a fusion? Leave one out, over series that chose nothing.

    python -m tests.bench.ablation --data signals --half odd --cache scores

Series of one variate, and ``v0`` of nasa. A series is of the half that the SHA-256 of its name is:
what `auto` is was chosen on ``even``. Of each set ``--per-set`` series are taken at the most, in
the order of another hash. Of a series ``--rows`` rows are judged, half of them before its first
anomaly after ``train_end`` where there are so many, by detectors fitted on up to ``--training``
rows before these. Windows are as long as in ``quality.py``; each is scored and learned in order.

Members score in spreads from what is usual. Of a detector that does not do so by itself it is
measured on training rows: fitted on their first half and scored on the second one (what needs
training or none at all: scored on all of them), the median is 0 and the 90 % quantile 1. The fused
score is that of `auto`: ``prod (1 + spreads) ^ weight``, raw windows with weight 1, all others with
``--weight``. TimeRCD has windows of its own, as in ``timercd_quality.py``.

Scores are kept below ``--cache``, so that members are combined in no time.
"""

from __future__ import annotations

import argparse
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl
from numpy.typing import NDArray

from streamad.detectors import DETECTORS
from streamad.detectors.auto import LONG_ENOUGH, MEMBERS
from streamad.detectors.base import Detector
from streamad.detectors.knn.kernels import LEAST_SPREAD
from streamad.evaluation.intervals import Interval, mean_interval, paired_difference
from streamad.evaluation.vus import vus
from tests.bench.hypad_quality import hashed
from tests.bench.quality import DEFAULT_BUFFER, contract_scores, read_series, window_size
from tests.bench.timercd_quality import LONGEST, PARTS, SHORTEST, zero_shot

Scores = NDArray[np.float64]
RAW = "knn_fused"
CANDIDATES = ("knn_fused", "knn_features", "themis", "timercd", "hypad")
EVERY = 4
"""Of training rows so manieth are scored to see what is usual."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """The rows of a series that are used: ``begin`` of them are for training."""

    set: str
    series: str
    values: NDArray[np.float32]
    labels: NDArray[np.int8]
    begin: int
    buffer: int

    @property
    def judged(self) -> NDArray[np.int8]:
        """Return the labels of the rows that are judged."""
        return self.labels[self.begin :]


def parts_of(
    data: Path, half: str, *, per_set: int, rows: int, training: int, joint: bool = False
) -> list[Part]:
    """Return what is measured, cut to the rows that are used."""
    index = pl.read_csv(data / "index.csv").filter(
        (pl.col("test_anomalies") > 0)
        & ((pl.col("dims") > 1) if joint else (pl.col("dims") == 1) | (pl.col("set") == "nasa"))
    )
    wanted = ("even", "odd").index(half)
    ours = [row for row in index.iter_rows(named=True) if hashed(row["series"]) % 2 == wanted]
    ours.sort(key=lambda row: f"{hashed('x' + row['series']):064x}")
    taken: Counter[str] = Counter()
    made = []
    for row in ours:
        taken[row["set"]] += 1
        if taken[row["set"]] > per_set:
            continue
        values, labels = read_series(data / row["file"], joint=joint)
        first = row["train_end"] + int(np.flatnonzero(labels[row["train_end"] :])[0])
        begin = max(row["train_end"], first - rows // 2)
        start, stop = max(begin - training, 0), begin + rows
        made.append(
            Part(
                set=row["set"],
                series=row["series"],
                values=np.ascontiguousarray(values[start:stop]),
                labels=labels[start:stop],
                begin=begin - start,
                buffer=int(row["window"] or DEFAULT_BUFFER),
            )
        )
    return made


def kept(cache: Path, part: Part, name: str) -> Scores:
    """Return a member's spreads on the rows that are judged, from the cache where they are."""
    path = cache / f"{part.set}-{part.series}-{name}.npy"
    if not path.exists():
        begun = time.perf_counter()
        found = spreads(part, name)
        path.parent.mkdir(parents=True, exist_ok=True)
        np.save(path, found.astype(np.float32))
        seconds = time.perf_counter() - begun
        print(f"{part.set} {part.series} {name} {seconds:.1f} s", flush=True)
    return np.load(path).astype(np.float64)


def spreads(part: Part, name: str) -> Scores:
    """Return a member's scores in spreads from what is usual."""
    values, begin = part.values, part.begin
    size = max(window_size(values, begin), 16)
    if name == "timercd":
        length = max(min(LONGEST, len(values) // PARTS), SHORTEST)
        series = np.nan_to_num(values[:, 0], nan=float(np.nanmedian(values[:, 0])))
        found = zero_shot(series, 0, size=length, model="shipped", lag=16)
        return _in_spreads(found[begin:], found[length:begin:EVERY])
    made: Detector = DETECTORS.load(name)(size=size)
    scores, _, _ = contract_scores(made, values, begin)
    if made.in_spreads:
        return scores
    windows = np.lib.stride_tricks.sliding_window_view(values[:begin], size, axis=0)
    windows = np.ascontiguousarray(windows.transpose(0, 2, 1))
    if made.info.needs_training:
        return _in_spreads(scores, made.score(windows[::EVERY]))
    other: Detector = DETECTORS.load(name)(size=size)
    other.fit(windows[: max(len(windows) // 2, 1)])
    return _in_spreads(scores, other.score(windows[len(windows) // 2 :: EVERY]))


def _in_spreads(scores: Scores, usual: Scores) -> Scores:
    middle, high = np.quantile(usual, [0.5, 0.9])
    return (scores - middle) / max(high - middle, LEAST_SPREAD * middle, 1e-9)


def fused(members: dict[str, Scores], weight: float) -> Scores:
    """Return the fused scores, as a sum of logarithms."""
    total = np.zeros(len(next(iter(members.values()))))
    for name, one in members.items():
        total += (1.0 if name == RAW else weight) * np.log1p(np.maximum(one, 0))
    return total


def measure(part: Part, members: dict[str, Scores], weight: float) -> dict[str, float]:
    """Return VUS-PR of each alone, of all, of all but each, and of `auto` with each."""
    labels, names = part.judged, list(members)
    asked = {name: [name] for name in names}
    asked["all"] = names
    asked |= {f"all but {name}": [n for n in names if n != name] for name in names}
    usual = [name for name in names if name in MEMBERS]
    asked["auto"] = usual
    asked |= {f"auto and {name}": [*usual, name] for name in names if name not in usual}
    made = {}
    for label, chosen in asked.items():
        scores = fused({name: members[name] for name in chosen}, weight)
        made[label] = vus(labels, scores, window=part.buffer).pr
    made["random"] = vus(
        labels, np.random.default_rng(0).random(len(labels)), window=part.buffer
    ).pr
    median = np.median(part.values[: part.begin, 0])
    away = np.abs(part.values[part.begin :, 0].astype(np.float64) - median)
    made["abs_z"] = vus(labels, away, window=part.buffer).pr
    return made


def table(found: Sequence[dict[str, float]], names: Sequence[str]) -> str:
    """Return what each member adds, as the documentation has it."""
    column = {label: np.array([one[label] for one in found]) for label in found[0]}
    lines = [
        "| member | alone | without it, all others lose | beside `auto` of today it gains |",
        "|---|---:|---:|---:|",
    ]
    for name in names:
        loses = paired_difference(column["all"], column[f"all but {name}"])
        beside = f"auto and {name}"
        gains = (
            _signed(paired_difference(column[beside], column["auto"]))
            if beside in column
            else "is in it"
        )
        alone = mean_interval(column[name]).value
        lines.append(f"| `{name}` | {alone:.3f} | {_signed(loses)} | {gains} |")
    lines += [
        f"| {label} | {_plain(mean_interval(column[label]))} | | |"
        for label in ("auto", "all", "abs_z", "random")
    ]
    features = paired_difference(column["auto"], column[RAW])
    lines.append(f"| auto less `{RAW}` | {_signed(features)} | | |")
    return "\n".join(lines)


def _signed(one: Interval) -> str:
    star = " *" if one.low > 0 or one.high < 0 else ""
    return f"{one.value:+.3f} [{one.low:+.3f}, {one.high:+.3f}]{star}"


def _plain(one: Interval) -> str:
    return f"{one.value:.3f} [{one.low:.3f}, {one.high:.3f}]"


def main() -> None:
    """Score what is not in the cache, and print what each member adds."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--cache", type=Path, required=True, help="a directory; goes on if there")
    parser.add_argument("--half", choices=("even", "odd"), default="odd")
    parser.add_argument("--members", nargs="+", default=list(CANDIDATES), metavar="NAME")
    parser.add_argument("--weight", type=float, default=MEMBERS["knn_features"])
    parser.add_argument("--per-set", type=int, default=10)
    parser.add_argument("--rows", type=int, default=2000)
    parser.add_argument("--training", type=int, default=2000)
    given = parser.parse_args()
    parts = parts_of(
        given.data, given.half, per_set=given.per_set, rows=given.rows, training=given.training
    )
    # Member by member, so that a run that is stopped has whole columns.
    for name in given.members:
        for part in parts:
            kept(given.cache, part, name)
    found = []
    for part in parts:
        members = {name: kept(given.cache, part, name) for name in given.members}
        if window_size(part.values, part.begin) < LONG_ENOUGH and "knn_features" in members:
            members["knn_features"] = np.zeros(len(part.judged))  # as `auto` has it
        found.append(measure(part, members, given.weight))
    taken = Counter(part.set for part in parts)
    print(f"{len(parts)} series: " + ", ".join(f"{n} {name}" for name, n in sorted(taken.items())))
    print(table(found, given.members))


if __name__ == "__main__":
    main()
