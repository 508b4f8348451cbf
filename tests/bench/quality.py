"""How well do the detectors find labelled anomalies, looking back only?

    python tests/bench/quality.py --data ../shared/data/signals

Protocol: univariate sets, and ``v0`` alone of nasa; fit on the rows before ``train_end`` (on one
window where they are fewer), then score and learn window by window in order, everything admitted;
only rows from ``train_end`` on count, of series with an anomaly there. A window is as long as the
period of the training part, within 32 to 125 and an eighth of the series; VUS buffers go up to the
series' window in ``index.csv``. Two rows frame the table: a random score and ``|z|``, one line of
code.

With ``--joint`` it is the other series that count, those of several variates, all of them at once:
the baseline is the mean over variates of ``|z|`` by training mean and deviation.

A detector that fails on a series is missing there, and said to be; it is not a 0.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass, replace
from functools import partial
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import polars as pl
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
)
from rich.table import Table

from jobs.offline.score import pipeline_for, score_table
from jobs.offline.tables import read_table
from streamad.detectors import DETECTORS
from streamad.detectors.base import Detector
from streamad.evaluation.vus import auc_pr, vus
from streamad.windows.period import choose_size

Scores = NDArray[np.float64]
DEFAULT_SIZE = 125
"""Window size of a series without a period."""
DEFAULT_BUFFER = 100
"""Buffer of a series for which the index has none."""
CALL = 256
"""Windows a call, where the detector does not learn."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """One series and one detector."""

    path: Path
    set: str
    series: str
    train_end: int
    buffer: int
    detector: str
    live: bool
    joint: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """What one detector reached on one series; ``failed`` says why there is nothing."""

    set: str
    series: str
    detector: str
    vus_pr: float = math.nan
    auc_pr: float = math.nan
    vus_roc: float = math.nan
    windows: int = 0
    seconds: float = 0.0
    failed: str = ""


def read_series(path: Path, *, joint: bool = False) -> tuple[NDArray[np.float32], NDArray[np.int8]]:
    """Return values ``(n, n_variates)`` and labels ``(n,)``: the first variate, or all."""
    names = variates_of(path) if joint else ["v0"]
    table = pl.read_parquet(path, columns=[*names, "label"])
    return table.select(names).to_numpy().astype(np.float32), table["label"].to_numpy()


def variates_of(path: Path) -> list[str]:
    """Return the columns of values."""
    return [n for n in pl.read_parquet_schema(path) if n[0] == "v" and n[1:].isdigit()]


def window_size(values: NDArray[np.float32], train_end: int) -> int:
    """Return the period of the training part, within the protocol's bounds."""
    training = values[:train_end, :1].astype(np.float64)
    return choose_size([training], default=DEFAULT_SIZE, n_rows=len(values))


def scores_for(
    path: Path, detector: str, train_end: int, *, live: bool = False, joint: bool = False
) -> tuple[Scores, int, float]:
    """Return a score a row from ``train_end`` on, how many windows were judged, and the seconds.

    live : through what judges live (operator, calibration, contamination control: what is strange
        is not learned) instead of by the detector's contract alone; the seconds then cover the fit
        and all the rest
    """
    values, _ = read_series(path, joint=joint)
    if detector == "random":
        return np.random.default_rng(0).random(len(values) - train_end), 0, 0.0
    if detector == "abs_z" and joint:
        training, coming = values[:train_end].astype(np.float64), values[train_end:]
        deviation = training.std(axis=0)
        z = np.abs(coming - training.mean(axis=0)) / np.where(deviation > 0, deviation, 1)
        return z.mean(axis=1), 0, 0.0
    if detector == "abs_z":
        median = np.median(values[:train_end])
        return np.abs(values[train_end:, 0].astype(np.float64) - median), 0, 0.0
    size = window_size(values, train_end)
    if live:
        return live_scores(path, detector, train_end, size, joint=joint)
    made: Detector = DETECTORS.load(detector)(size=size)
    return contract_scores(made, values, train_end)


def live_scores(
    path: Path, detector: str, train_end: int, size: int, *, joint: bool = False
) -> tuple[Scores, int, float]:
    """Score as ``streamad score`` does, on the row number as the time."""
    table = read_table(
        path, columns=variates_of(path) if joint else ["v0"], time="row", joint=joint
    )
    started = time.perf_counter()
    config = pipeline_for(table, detector=detector, size=size)
    # A training part shorter than a window is stretched to one, as in `contract_scores`.
    scored = score_table(table, config, train_end=max(train_end, size))
    seconds = time.perf_counter() - started
    scores = scored.frame["score"].to_numpy().astype(np.float64)[train_end:]
    return scores, len(scores), seconds


def contract_scores(
    made: Detector, values: NDArray[np.float32], train_end: int
) -> tuple[Scores, int, float]:
    """Fit, then score and learn in order; a window's score goes to the row it judges.

    Rows at either end that no window judges get the nearest judged row's score.
    """
    size = made.size
    rolling = np.lib.stride_tricks.sliding_window_view(values, size, axis=0)
    windows = np.ascontiguousarray(rolling.transpose(0, 2, 1))
    n_training = max(train_end - size + 1, 1)
    made.fit(windows[:n_training])
    made.score(windows[:1])  # compiled, or loaded, before the clock runs
    coming = windows[max(train_end - size, 0) :]
    started = time.perf_counter()
    scores = _in_order(made, coming)
    seconds = time.perf_counter() - started
    rows = np.arange(len(values) - len(coming), len(values)) - made.lag
    wanted = np.arange(train_end, len(values))
    return np.interp(wanted, rows, scores.astype(np.float64)), len(coming), seconds


def _in_order(made: Detector, coming: NDArray[np.float32]) -> NDArray[np.float32]:
    """Score windows, and learn them where the detector learns, in their order."""
    memory = made.new_memory(coming.shape[2])
    scores = np.empty(len(coming), dtype=np.float32)
    if memory is None:
        for first in range(0, len(coming), CALL):
            scores[first : first + CALL] = made.score(coming[first : first + CALL])
        return scores
    memory.reserve(1)
    made.seed_memory(memory, slot=0, group=0)
    for first in range(0, len(coming), made.info.learn_every):
        batch = coming[first : first + made.info.learn_every]
        slots = np.zeros(len(batch), dtype=np.int32)
        scores[first : first + len(batch)] = made.score(batch, memory=memory, slots=slots)
        made.learn(memory, batch, slots=slots, admit=np.ones(len(batch), dtype=np.bool_))
    return scores


def run(task: Task) -> Result:
    """Score one series with one detector and measure it."""
    missing = Result(set=task.set, series=task.series, detector=task.detector)
    try:
        scores, n_windows, seconds = scores_for(
            task.path, task.detector, task.train_end, live=task.live, joint=task.joint
        )
        labels = read_series(task.path)[1][task.train_end :]
        volumes = vus(labels, scores, window=task.buffer)
    except Exception as error:  # noqa: BLE001 a crashed run is missing, the others go on
        return replace(missing, failed=f"{type(error).__name__}: {error}")
    return replace(
        missing,
        vus_pr=volumes.pr,
        auc_pr=auc_pr(labels, scores),
        vus_roc=volumes.roc,
        windows=n_windows,
        seconds=seconds,
    )


def tasks(
    data: Path,
    detectors: list[str],
    sets: list[str],
    *,
    smoke: bool,
    live: bool,
    joint: bool = False,
) -> list[Task]:
    """List what is to be run, in the order of the index."""
    index = pl.read_csv(data / "index.csv").filter(
        (pl.col("test_anomalies") > 0)
        & ((pl.col("dims") > 1) if joint else (pl.col("dims") == 1) | (pl.col("set") == "nasa"))
    )
    if sets:
        index = index.filter(pl.col("set").is_in(sets))
    if smoke:
        few = (data / "smoke.txt").read_text().split()
        index = index.filter(pl.col("file").is_in(few))
    return [
        Task(
            path=data / row["file"],
            set=row["set"],
            series=row["series"],
            train_end=row["train_end"],
            buffer=int(row["window"] or DEFAULT_BUFFER),
            detector=detector,
            live=live,
            joint=joint,
        )
        for detector in detectors
        for row in index.iter_rows(named=True)
    ]


def summary(results: Iterable[Result]) -> pl.DataFrame:
    """Return means a detector over all series and over each set, and its speed."""
    table = pl.DataFrame([asdict(r) for r in results])
    means = table.group_by("detector", maintain_order=True).agg(
        pl.col("vus_pr", "auc_pr", "vus_roc").fill_nan(None).mean(),
        (pl.col("windows").sum() / pl.col("seconds").sum()).fill_nan(None).alias("win/s"),
        (pl.col("failed") == "").sum().alias("n"),
        (pl.col("failed") != "").sum().alias("failed"),
    )
    sets = table.with_columns(pl.col("vus_pr").fill_nan(None)).pivot(
        "set", index="detector", values="vus_pr", aggregate_function="mean"
    )
    return means.join(sets, on="detector", how="left", maintain_order="left")


def as_markdown(table: pl.DataFrame) -> str:
    """Return the table as it is pasted into the documentation."""
    lines = ["| " + " | ".join(table.columns) + " |", "|" + "---|" * len(table.columns)]
    lines += ["| " + " | ".join(_cell(v) for v in row) + " |" for row in table.iter_rows()]
    return "\n".join(lines) + "\n"


def _cell(value: object) -> str:
    if value is None:
        return "-"
    if isinstance(value, float):
        return f"{value:,.0f}" if value > 1 else f"{value:.3f}"
    return str(value)


def _show(console: Console, table: pl.DataFrame) -> None:
    """Print the means, and below them those of each set: together they are too wide."""
    n_means = table.columns.index("failed") + 1
    for title, columns in (
        ("mean over series, rows after train_end", table.columns[:n_means]),
        ("VUS-PR by set", ["detector", *table.columns[n_means:]]),
    ):
        shown = Table(title=title)
        for column in columns:
            shown.add_column(column, justify="right", no_wrap=True)
        for row in table.select(columns).iter_rows():
            shown.add_row(*map(_cell, row))
        console.print(shown)


def run_all(todo: list[Task], n_jobs: int, on_result: Callable[[Result], None]) -> None:
    """Run every task; ``on_result`` sees each result as it comes, in the order of the list."""
    if n_jobs <= 1:
        for task in todo:
            on_result(run(task))
        return
    # Spawned: a forked process waits for ever for polars' threads, which it does not have.
    with ProcessPoolExecutor(n_jobs, mp_context=get_context("spawn")) as pool:
        for result in pool.map(run, todo):
            on_result(result)


def main() -> None:
    """Read the command line, run, print the table, write what was asked for."""
    known = ["random", "abs_z", *DETECTORS]
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="directory with index.csv")
    parser.add_argument("--detectors", nargs="+", choices=known, default=known, metavar="NAME")
    parser.add_argument("--sets", nargs="+", default=[], metavar="SET")
    parser.add_argument("--smoke", action="store_true", help="only the series of smoke.txt")
    parser.add_argument("--live", action="store_true", help="through the live operator")
    parser.add_argument("--joint", action="store_true", help="series of several variates, all")
    parser.add_argument("--jobs", type=int, default=1, help="processes")
    parser.add_argument("--json", type=Path, help="a line a result, as they come; goes on if there")
    parser.add_argument("--markdown", type=Path, help="write the table here")
    given = parser.parse_args()

    todo = tasks(
        given.data,
        given.detectors,
        given.sets,
        smoke=given.smoke,
        live=given.live,
        joint=given.joint,
    )
    console = Console()
    results = _done_before(given.json, todo)
    done = {(r.set, r.series, r.detector) for r in results}
    todo = [t for t in todo if (t.set, t.series, t.detector) not in done]
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    with Progress(*columns, TimeElapsedColumn(), console=console) as progress:
        bar = progress.add_task("series", total=len(todo))
        run_all(todo, given.jobs, partial(_note, results, given.json, progress, bar))
    table = summary(results)
    _show(console, table)
    for result in results:
        if result.failed:
            console.print(f"{result.detector} on {result.set}/{result.series}: {result.failed}")
    if given.markdown:
        given.markdown.write_text(as_markdown(table))


def _done_before(path: Path | None, todo: list[Task]) -> list[Result]:
    """Return what an earlier run has left of this one: it takes long enough to be interrupted."""
    if path is None or not path.exists():
        return []
    wanted = {(t.set, t.series, t.detector) for t in todo}
    lines = path.read_text().splitlines()
    results = [Result(**json.loads(line)) for line in lines]
    return [r for r in results if (r.set, r.series, r.detector) in wanted]


def _note(
    results: list[Result], path: Path | None, progress: Progress, bar: TaskID, result: Result
) -> None:
    results.append(result)
    if path is not None:
        with path.open("a") as lines:
            lines.write(json.dumps(asdict(result)) + "\n")
    progress.update(bar, advance=1, description=f"{result.detector} {result.set}")


if __name__ == "__main__":
    main()
