"""What does each detector add to a fusion? Leave one out, over series that chose nothing.

    python -m tests.bench.ablation --data signals --half odd --cache scores
    python -m tests.bench.ablation --data signals --half odd --cache scores --joint \
        --per-set 12 nasa=5 asd=4 --rows 2000 --training 1500

Series of one variate, and ``v0`` of nasa. A series is of the half that the SHA-256 of its name is:
what `auto` is was chosen on ``even``. Of each set ``--per-set`` series are taken at the most, in
the order of another hash. Of a series ``--rows`` rows are judged, half of them before its first
anomaly after ``train_end`` where there are so many, by detectors fitted on up to ``--training``
rows before these. Windows are as long as in ``quality.py``; each is scored and learned in order.

Members score in spreads from what is usual. Of a detector that does not do so by itself it is
measured on training rows: fitted on their first half and scored on the second one (what needs
training or none at all: scored on all of them), the median is 0 and the 90 % quantile 1. The fused
score is that of `auto`: ``prod (1 + spreads) ^ weight``, with its weights, all others with
``--weight``. TimeRCD has windows of its own, as in ``timercd_quality.py``.

With ``--joint`` it is the series of several variates that count, all variates at once, with the
members and weights that `auto` has there; mean and maximum over variates of ``|z|`` by training
mean and deviation stand beside it, and k-NN on the joint window.

Scores are kept below ``--cache``, so that members are combined in no time.
"""

from __future__ import annotations

import argparse
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl
from numpy.typing import NDArray

from streamad.detectors import DETECTORS
from streamad.detectors.auto import MEMBERS, OF_SEVERAL
from streamad.detectors.base import Detector
from streamad.detectors.knn.kernels import LEAST_SPREAD
from streamad.errors import WindowError
from streamad.evaluation.baselines import BASELINES
from streamad.evaluation.intervals import Interval, mean_interval, paired_difference
from streamad.evaluation.vus import vus
from tests.bench.hypad_quality import hashed
from tests.bench.quality import DEFAULT_BUFFER, contract_scores, read_series, window_size
from tests.bench.timercd_quality import LONGEST, zero_shot

Scores = NDArray[np.float64]
RAW = "knn_fused"
CANDIDATES = ("knn_fused", "knn_roughness", "knn_features", "themis", "timercd", "hypad")
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
    data: Path,
    half: str,
    *,
    per_set: Mapping[str, int],
    rows: int,
    training: int,
    joint: bool = False,
) -> list[Part]:
    """Return what is measured, cut to the rows that are used; per_set : "" is for all others."""
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
        if taken[row["set"]] > per_set.get(row["set"], per_set[""]):
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
        try:
            found = spreads(part, name)
        except WindowError as error:
            print(f"{part.set} {part.series} left out: {error}", flush=True)
            found = np.zeros(0)
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
        series = np.nan_to_num(values[:, 0], nan=float(np.nanmedian(values[:, 0])))
        found = zero_shot(series, 0, size=LONGEST, model="shipped", lag=16)
        # The first scores of a series are of a short past, and more often high.
        return _in_spreads(found[begin:], found[min(LONGEST, begin) // 2 : begin : EVERY])
    with DETECTORS.beside(BASELINES):
        made: Detector = DETECTORS.load(name)(size=size)
    scores, _, _ = contract_scores(made, values, begin)
    if made.in_spreads or name in BASELINES:
        return scores
    windows = np.lib.stride_tricks.sliding_window_view(values[: max(begin, size)], size, axis=0)
    windows = np.ascontiguousarray(windows.transpose(0, 2, 1))
    if made.info.needs_training:
        return _in_spreads(scores, made.score(windows[::EVERY]))
    other: Detector = DETECTORS.load(name)(size=size)
    other.fit(windows[: max(len(windows) // 2, 1)])
    return _in_spreads(scores, other.score(windows[len(windows) // 2 :: EVERY]))


def _in_spreads(scores: Scores, usual: Scores) -> Scores:
    middle, high = np.quantile(usual, [0.5, 0.9])
    return (scores - middle) / max(high - middle, LEAST_SPREAD * middle, 1e-9)


def fused(members: Mapping[str, Scores], weights: Mapping[str, float]) -> Scores:
    """Return the fused scores, as a sum of logarithms."""
    total = np.zeros(len(next(iter(members.values()))))
    for name, one in members.items():
        total += weights[name] * np.log1p(np.maximum(one, 0))
    return total


def measure(
    part: Part, members: Mapping[str, Scores], weights: Mapping[str, float], usual: Sequence[str]
) -> dict[str, float]:
    """Return VUS-PR of each alone, of all, of all but each, and of ``usual`` with each."""
    names = list(members)
    asked = {name: [name] for name in names}
    asked["all"] = names
    asked |= {f"all but {name}": [n for n in names if n != name] for name in names}
    asked["auto"] = [name for name in names if name in usual]
    asked |= {f"auto and {n}": [*asked["auto"], n] for n in names if n not in usual}
    scores = {
        label: fused({name: members[name] for name in chosen}, weights)
        for label, chosen in asked.items()
    }
    scores["random"] = np.random.default_rng(0).random(len(part.judged))
    training, coming = np.split(part.values.astype(np.float64), [part.begin])
    if part.values.shape[1] == 1:
        scores["abs_z"] = np.abs(coming - np.median(training))[:, 0]
    else:
        deviation = training.std(axis=0)
        z = np.abs(coming - training.mean(axis=0)) / np.where(deviation > 0, deviation, 1)
        scores["mean abs_z"], scores["largest abs_z"] = z.mean(axis=1), z.max(axis=1)
    return {label: vus(part.judged, one, window=part.buffer).pr for label, one in scores.items()}


def measure_all(
    parts: Sequence[Part],
    cache: Path,
    weights: Mapping[str, float],
    usual: Sequence[str],
    beside: Sequence[str],
) -> tuple[list[Part], list[dict[str, float]]]:
    """Return the series that every member can be fitted to, and the figures of each.

    beside : detectors that are measured alone
    """
    # Member by member, so that a run that is stopped has whole columns.
    for name in [*weights, *beside]:
        for part in parts:
            kept(cache, part, name)
    found, taken = [], []
    for part in parts:
        members = {name: kept(cache, part, name) for name in weights}
        if any(len(scores) == 0 for scores in members.values()):
            continue
        taken.append(part)
        figures = measure(part, members, weights, usual)
        for name in beside:
            scores = kept(cache, part, name)
            figures[name] = vus(part.judged, scores, window=part.buffer).pr
        found.append(figures)
    return taken, found


def table(found: Sequence[Mapping[str, float]], names: Sequence[str]) -> str:
    """Return what each member adds, as the documentation has it."""
    column = {label: np.array([one[label] for one in found]) for label in found[0]}
    lines = [
        "| member | alone | what all lose without it | what `auto` of today gains with it |",
        "|---|---:|---:|---:|",
    ]
    for name in names:
        loses = _signed(paired_difference(column["all"], column[f"all but {name}"]))
        beside = column.get(f"auto and {name}")
        gains = "is in it" if beside is None else _signed(paired_difference(beside, column["auto"]))
        lines.append(f"| `{name}` | {mean_interval(column[name]).value:.3f} | {loses} | {gains} |")
    lines += ["", "| compared | VUS-PR | `auto` less it |", "|---|---:|---:|"]
    others = [n for n in column if " but " not in n and " and " not in n]
    lines += [
        f"| {label} | {_plain(mean_interval(column[label]))} | "
        f"{_signed(paired_difference(column['auto'], column[label]))} |"
        for label in others
    ]
    return "\n".join(lines)


def by_set(parts: Sequence[Part], found: Sequence[Mapping[str, float]]) -> str:
    """Return means over the series of each set."""
    shown = [n for n in found[0] if " but " not in n and " and " not in n]
    sets = sorted({part.set for part in parts})
    lines = ["| | " + " | ".join(sets) + " |", "|---|" + "---:|" * len(sets)]
    for label in shown:
        means = [
            np.mean(
                [one[label] for part, one in zip(parts, found, strict=True) if part.set == name]
            )
            for name in sets
        ]
        lines.append(f"| {label} | " + " | ".join(f"{mean:.3f}" for mean in means) + " |")
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
    parser.add_argument("--joint", action="store_true", help="series of several variates, all")
    parser.add_argument("--members", nargs="+", metavar="NAME")
    parser.add_argument("--beside", nargs="*", default=["knn_raw"], metavar="NAME")
    parser.add_argument("--weight", type=float, default=0.25)
    parser.add_argument("--per-set", nargs="+", default=["10"], metavar="[SET=]N")
    parser.add_argument("--rows", type=int, default=2000)
    parser.add_argument("--training", type=int, default=2000)
    given = parser.parse_args()
    usual = OF_SEVERAL if given.joint else MEMBERS
    names = given.members or list(OF_SEVERAL if given.joint else CANDIDATES)
    weights = {name: usual.get(name, given.weight) for name in names}
    per_set = {one.rpartition("=")[0]: int(one.rpartition("=")[2]) for one in given.per_set}
    parts = parts_of(
        given.data,
        given.half,
        per_set=per_set,
        rows=given.rows,
        training=given.training,
        joint=given.joint,
    )
    parts, found = measure_all(parts, given.cache, weights, list(usual), given.beside * given.joint)
    taken = Counter(part.set for part in parts)
    print(f"{len(parts)} series: " + ", ".join(f"{n} {name}" for name, n in sorted(taken.items())))
    print(table(found, names))
    print()
    print(by_set(parts, found))


if __name__ == "__main__":
    main()
