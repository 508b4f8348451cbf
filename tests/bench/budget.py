"""Does a page budget hold, and what does it find?

    python -m tests.bench.budget --data ../shared/data/signals

Protocol: univariate series with timestamps of the open split, default detector and settings, fitted
on the rows before ``train_end`` as ``streamad score`` does; the findings of a set become one group.
``parallel``: all its series at once, from a common start; ``chained``: one after another, as one
stream of weeks. The desk then judges the findings in event time, at several budgets. Nothing is
tuned: pages of all weeks count, the first ones too.

``found``: share of labelled anomalies with a page of their series that began within half a window
of it; ``true``: share of pages that are of one. Beside the desk, at as many pages: ``hindsight``,
the episodes with the smallest p of all; ``3-sigma``, one threshold on |x - median| / std of the
training rows, for all series of the set, chosen in hindsight; and ``3-sigma, desk``, the same
through the same desk under the same budget, without hindsight.

Made streams (``--made``): independent, autocorrelated (AR .95), seasonal and drifting noise, 40
series of 8 weeks at 5 minutes each, and 10,000 hourly series that fail together once a week. All of
it is noise: whatever pages is false, and what is asked is that as many page as were asked for.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from multiprocessing import get_context
from pathlib import Path
from typing import Any, Final

import numpy as np
import polars as pl
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import track
from rich.table import Table as Grid

from jobs.build import build_detect
from jobs.commands import DEFAULT_DETECTOR
from jobs.offline.score import pipeline_for, score_table
from jobs.offline.tables import Table, read_table
from streamad.alerting.config import AlertingConfig
from streamad.config import PipelineConfig
from streamad.paging.desk import Desk
from streamad.records import Finding
from streamad.testing.batches import make_columns

BUDGETS: Final = (1, 5, 20)
DAY_MS: Final = 86_400_000
WEEK_MS: Final = 7 * DAY_MS
BEGIN_MS: Final = 1_700_000_000_000 // WEEK_MS * WEEK_MS
SETS: Final = ("aiops", "cloudmon", "donut", "nab")


@dataclass(frozen=True, slots=True, kw_only=True)
class Series:
    """What is known of one labelled series after scoring, in event time of its own."""

    set: str
    name: str
    first_ms: int
    last_ms: int
    size: int
    step_ms: int
    findings: list[Finding]
    anomalies: NDArray[np.int64]
    z_episodes: NDArray[np.float64]


def score_series(task: tuple[Path, str, str, int, Mapping[str, Any], str]) -> Series:
    """Score one series as the command does, and keep its findings."""
    path, set_name, name, train_end, scoring, detector = task
    frame = pl.read_parquet(path, columns=["timestamp", "v0", "label"])
    table: Table = read_table(path, columns=["v0"])
    config = pipeline_for(table, detector=detector)
    config = config.model_copy(update={"scoring": config.scoring.model_copy(update=scoring)})
    scored = score_table(table, config, train_end=train_end or None)
    times = frame["timestamp"].to_numpy().astype(np.int64)
    label = frame["label"].to_numpy().astype(np.int8)
    label[:train_end] = 0
    edges = np.flatnonzero(np.diff(np.r_[0, label, 0]))
    runs = np.stack([times[edges[::2]], times[edges[1::2] - 1]], axis=1)
    values = frame["v0"].to_numpy().astype(np.float64)
    known = values[:train_end] if train_end > 10 else values
    z = np.abs(values - np.median(known)) / (np.std(known) + 1e-12)
    z[:train_end] = 0
    return Series(
        set=set_name,
        name=name,
        first_ms=int(times[train_end]),
        last_ms=int(times[-1]),
        size=scored.size,
        step_ms=scored.step_ms or 1,
        findings=scored.findings,
        anomalies=runs,
        z_episodes=_z_peaks(times, z),
    )


def _z_peaks(times: NDArray[np.int64], z: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return ``(time, height)`` of the rows that exceed all of the five rows before them."""
    before = np.lib.stride_tricks.sliding_window_view(np.r_[np.zeros(5), z], 6)[:, :5].max(axis=1)
    rows = np.flatnonzero((z > 1.0) & (z > 1.25 * before))
    return np.stack([times[rows].astype(np.float64), z[rows]], axis=1)


# ------------------------------------------------------------------ groups


def shifted(series: Series, key: str, group: str, by_ms: int) -> list[Finding]:
    """Return the findings of a series at another time, under a key and group of its own."""
    names = ("window_start_ms", "window_end_ms", "began_ms", "until_ms")
    return [
        replace(
            one,
            **{name: getattr(one, name) + by_ms for name in names},
            id=f"{one.id[:16]}{key[:16]:0>16}",
            key=key,
            group=group,
            entity={"series": key},
            born_ms=-1,
        )
        for one in series.findings
    ]


def placed(every: Sequence[Series], *, chained: bool) -> Iterator[tuple[Series, str, int]]:
    """Yield series, key and shift."""
    at = BEGIN_MS
    for number, one in enumerate(every):
        yield one, f"{number:04d}{one.name}", at - one.first_ms
        if chained:
            at += one.last_ms - one.first_ms + one.step_ms


def pages_of(findings: Iterable[Finding], pages: float) -> list[tuple[str, int, int]]:
    """Return key, event begin and page time of what pages under a budget."""
    desk = Desk(
        AlertingConfig.model_validate(
            {
                "name": "bench",
                "findings": "f",
                "alerts": {"max_age": "3650d"},
                "budget": {"pages": f"{pages} per week", "soak": "0s"},
            }
        )
    )
    state = desk.new_state()
    ordered = sorted(findings, key=lambda f: (f.window_end_ms, f.key, f.kind, f.sequence))
    paged: dict[str, tuple[str, int, int]] = {}
    n = 0
    for start in range(0, len(ordered), 1000):
        part = [(f, f.window_end_ms) for f in ordered[start : start + 1000]]
        for one in desk.process(state, part).incidents:
            if one.paged_ms is not None and one.id not in paged:
                leader = one.members[0]
                paged[one.id] = leader.key, leader.began_ms, one.paged_ms
                n += one.overdrawn
    return list(paged.values())


def found(
    pages: Sequence[tuple[str, int, int]], all_placed: Sequence[tuple[Series, str, int]]
) -> tuple[int, int, int]:
    """Return how many anomalies were paged for, how many there are, and the true pages."""
    by_key: dict[str, list[int]] = {}
    for key, began_ms, _ in pages:
        by_key.setdefault(key, []).append(began_ms)
    hits = total = true = 0
    for series, key, shift in all_placed:
        times = np.array(sorted(by_key.get(key, [])), np.int64) - shift
        slack = series.size * series.step_ms // 2
        total += len(series.anomalies)
        marked = np.zeros(len(times), bool)
        for first, last in series.anomalies.tolist():
            near = (times >= first - slack) & (times <= last + slack)
            hits += bool(near.any())
            marked |= near
        true += int(marked.sum())
    return hits, total, true


def z_pages(all_placed: Sequence[tuple[Series, str, int]], n: int) -> list[tuple[str, int, int]]:
    """Return the pages of one threshold on |z| that is crossed about so often."""
    rows = [
        (height, key, int(time_ms) + shift)
        for series, key, shift in all_placed
        for time_ms, height in series.z_episodes.tolist()
    ]
    return [(key, ms, ms) for _, key, ms in sorted(rows, reverse=True)[:n]]


def z_findings(all_placed: Sequence[tuple[Series, str, int]], group: str) -> list[Finding]:
    """Return the episodes of |z| > 3 as findings of 10^-|z|: what the same desk makes of them."""
    made = []
    for series, key, shift in all_placed:
        for number, (time_ms, height) in enumerate(series.z_episodes.tolist()):
            if height <= 3:
                continue
            at, p = int(time_ms) + shift, 10.0 ** -min(height, 250.0)
            made += [
                Finding(
                    id=f"z{number:06d}{key[:20]}", sequence=sequence, state=state, kind="anomaly",
                    pipeline="bench", detector="z", artifact="", tenant="default", group=group,
                    key=key, entity={"series": key}, window_start_ms=at, began_ms=at, until_ms=at,
                    window_end_ms=at + sequence * series.step_ms, score=height, p_value=p,
                    peak_score=height, peak_p_value=p, level=3.0, n_windows=1, explanation=None,
                    input={},
                )
                for sequence, state in enumerate(("began", "ended"))
            ]  # fmt: skip
    return made


def strongest(findings: Iterable[Finding], n: int) -> list[tuple[str, int, int]]:
    """Return the pages of the ``n`` episodes with the smallest p, chosen in hindsight."""
    best: dict[str, tuple[float, str, int]] = {}
    for one in findings:
        known = best.get(one.id)
        began_ms = one.began_ms if known is None else min(known[2], one.began_ms)
        p = one.peak_p_value if known is None else min(known[0], one.peak_p_value)
        best[one.id] = p, one.key, began_ms
    return [(key, ms, ms) for _, key, ms in sorted(best.values())[:n]]


# ------------------------------------------------------------------ made streams


def made_stream(kind: str, rng: np.random.Generator, n: int, steps: int) -> NDArray[np.float64]:
    """Return ``(steps, n)`` values without an anomaly."""
    noise = rng.standard_normal((steps, n))
    if kind == "independent":
        return noise
    day = np.arange(steps)[:, None] * 2 * np.pi / 288
    if kind == "seasonal":
        return 3 * np.sin(day + rng.random(n) * 6) + np.sin(7 * day) + 0.5 * noise
    walk = np.empty_like(noise)
    walk[0] = noise[0]
    share = 0.95
    for t in range(1, steps):
        walk[t] = share * walk[t - 1] + noise[t]
    if kind == "ar95":
        return walk
    return noise + np.linspace(0, 10, steps)[:, None] * rng.random(n)


def judged(
    values: NDArray[np.float64], step_ms: int, *, detector: str
) -> tuple[list[Finding], float]:
    """Run values through the operator, all series at once; return findings and weeks."""
    steps, n = values.shape
    config = PipelineConfig.model_validate(
        {
            "name": "made",
            "detector": detector,
            "series": {"ttl": "3650d", "max_keys": 20_000, "max_memory": "8GiB"},
            "alerts": {"group": "key"},
        }
    )
    operator = build_detect(config)
    state, found_ = operator.new_state(), []
    keys = pl.Series([f"{i:05d}" for i in range(n)])
    chunk = max(1, 200_000 // n)
    for start in range(0, steps, chunk):
        part = values[start : start + chunk]
        times = BEGIN_MS + np.arange(start, start + len(part), dtype=np.int64) * step_ms
        batch = make_columns(
            np.tile(keys.to_numpy(), len(part)).tolist(),
            np.repeat(times, n),
            part.reshape(-1, 1),
            per_message=n,
        )
        found_ += operator.process(state, batch).findings
    return [replace(f, group="made", entity={"key": f.key}, born_ms=-1) for f in found_], (
        steps * step_ms / WEEK_MS
    )


def fail_together(rng: np.random.Generator) -> NDArray[np.float64]:
    """Return 10,000 hourly series that fail together once a week for three hours."""
    steps = 8 * 168
    values = rng.standard_normal((steps, 10_000)).astype(np.float64)
    for week in range(2, 8):
        values[week * 168 + 50 : week * 168 + 53] += 15
    return values


# ------------------------------------------------------------------ tables


def real(
    data: Path, sets: Sequence[str], workers: int, scoring: Mapping[str, Any], detector: str
) -> list[Any]:
    """Return the rows of the table on labelled series."""
    index = pl.read_csv(data / "index.csv")
    index = index.filter(
        (pl.col("dims") == 1) & (pl.col("split") == "open") & pl.col("set").is_in(sets)
    )
    tasks = [
        (data / row["file"], row["set"], row["series"], row["train_end"], scoring, detector)
        for row in index.iter_rows(named=True)
    ]
    with ProcessPoolExecutor(workers, get_context("spawn")) as pool:
        every = list(track(pool.map(score_series, tasks), total=len(tasks), description="scoring"))
    rows = []
    for name in sets:
        mine = [one for one in every if one.set == name]
        for chained in (False, True):
            where = list(placed(mine, chained=chained))
            spans = [(one.last_ms - one.first_ms) / WEEK_MS for one in mine]
            weeks = sum(spans) if chained else max(spans)
            findings = [f for one, key, by in where for f in shifted(one, key, name, by)]
            for asked in BUDGETS:
                pages = pages_of(findings, asked)
                hits, total, true = found(pages, where)
                sigma = z_pages(where, len(pages))
                z_hits, _, z_true = found(sigma, where)
                best = strongest(findings, len(pages))
                best_hits, _, best_true = found(best, where)
                online = pages_of(z_findings(where, name), asked)
                on_hits, _, on_true = found(online, where)
                rows.append(
                    {
                        "group": f"{name}, {'chained' if chained else 'parallel'}",
                        "weeks": round(weeks, 1),
                        "findings": sum(f.state == "began" for f in findings),
                        "asked": asked,
                        "came": round(len(pages) / weeks, 2),
                        "ratio": round(len(pages) / weeks / asked, 2),
                        "found": round(hits / max(total, 1), 3),
                        "true": round(true / max(len(pages), 1), 3),
                        "found hindsight": round(best_hits / max(total, 1), 3),
                        "true hindsight": round(best_true / max(len(best), 1), 3),
                        "found 3-sigma": round(z_hits / max(total, 1), 3),
                        "true 3-sigma": round(z_true / max(len(sigma), 1), 3),
                        "came 3-sigma, desk": round(len(online) / weeks, 2),
                        "found 3-sigma, desk": round(on_hits / max(total, 1), 3),
                        "true 3-sigma, desk": round(on_true / max(len(online), 1), 3),
                    }
                )
    return rows


def made(seeds: int, detector: str) -> list[Any]:
    """Return the rows of the table on made streams."""
    rows = []
    kinds: dict[str, Callable[[np.random.Generator], tuple[list[Finding], float]]] = {
        kind: lambda rng, kind=kind: judged(  # type: ignore[misc]
            made_stream(kind, rng, 40, 8 * 2016), 300_000, detector=detector
        )
        for kind in ("independent", "ar95", "seasonal", "drifting")
    }
    kinds["10,000 fail together"] = lambda rng: judged(
        fail_together(rng), 3_600_000, detector="robust_z"
    )
    for kind, make in kinds.items():
        for seed in range(seeds):
            begun = time.perf_counter()
            findings, weeks = make(np.random.default_rng(seed))
            for asked in BUDGETS:
                pages = pages_of(findings, asked)
                rows.append(
                    {
                        "group": f"{kind}, seed {seed}",
                        "weeks": weeks,
                        "findings": sum(f.state == "began" for f in findings),
                        "asked": asked,
                        "came": round(len(pages) / weeks, 2),
                        "ratio": round(len(pages) / weeks / asked, 2),
                    }
                )
            sys.stderr.write(f"{kind}: {time.perf_counter() - begun:.0f} s\n")
    return rows


def show(rows: Sequence[Mapping[str, Any]]) -> None:
    """Print rows as a table."""
    grid = Grid()
    names = list(dict.fromkeys(name for row in rows for name in row))
    for name in names:
        grid.add_column(name, justify="left" if name == "group" else "right")
    for row in rows:
        grid.add_row(*(str(row.get(name, "")) for name in names))
    Console(width=220).print(grid)


def main(argv: Sequence[str] | None = None) -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--data", type=Path)
    parser.add_argument("--sets", nargs="*", default=SETS)
    parser.add_argument("--made", action="store_true")
    parser.add_argument("--detector", default=DEFAULT_DETECTOR)
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args(argv)
    rows = []
    if options.data:
        rows += real(options.data, options.sets, options.workers, {}, options.detector)
    if options.made:
        rows += made(options.seeds, options.detector)
    show(rows)
    if options.json:
        options.json.write_text(json.dumps(rows, indent=1))


if __name__ == "__main__":
    main()
