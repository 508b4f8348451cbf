"""What ``streamad evaluate`` does with its arguments."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson

from jobs.commands import DEFAULT_DETECTOR
from jobs.console import bar, say
from jobs.evaluate.layouts import (
    Labelled,
    chosen,
    find_series,
    no_longer_than,
    with_options,
)
from jobs.evaluate.pool import run_all
from jobs.evaluate.run import Spec, Task, missing_package, read_spec, tasks_of
from jobs.evaluate.store import Store
from jobs.evaluate.summary import Summary, summarise
from streamad.errors import ConfigError, StreamadError
from streamad.evaluation.baselines import ALWAYS

NEVER_LEFT_OUT = ("random", "abs_z")
DEFAULT_REFERENCE = "knn_raw"
REPORT, SUMMARY = "report.html", "summary.json"
MOST_NAMED = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """What a caller set; see the options of the command."""

    data: Path
    out: Path
    detectors: Sequence[str] = ()
    baselines: Sequence[str] | None = None
    reference: str | None = None
    layout: str = "auto"
    sets: Sequence[str] = ()
    sample: int | None = None
    max_rows: int | None = None
    seed: int = 0
    columns: Sequence[str] = ()
    label: str | None = None
    time: str | None = None
    train_end: int | None = None
    size: int | None = None
    jobs: int | None = None
    fresh: bool = False


def evaluate(asked: Asked) -> Summary:
    """Run what has no result yet, print the tables, write the summary and the page."""
    from rich.console import Console

    layout, series = _series(asked)
    specs, notes = _specs(asked)
    reference = _reference(asked, specs)
    store = Store(asked.out, fresh=asked.fresh)
    tasks = tasks_of(series, specs, size=asked.size)
    results = store.read(task.key for task in tasks)
    todo = [task for task in tasks if task.key not in results]
    say(
        f"{len(series):,} series ({layout}), {len(specs)} detectors; "
        f"{len(results):,} of {len(tasks):,} results are there already"
    )
    _run(todo, asked, store, results)
    records = [results[task.key] for task in tasks if task.key in results]
    if not any("rows" in one for one in records):
        reasons = {one.get("failed") or one.get("skipped") for one in records}
        msg = f"nothing could be evaluated: {'; '.join(sorted(map(str, reasons))[:MOST_NAMED])}"
        raise StreamadError(msg)
    notes += _missing(records)
    summary = summarise(
        records,
        [spec.label for spec in specs],
        source=asked.data.name or str(asked.data),
        layout=layout,
        reference=reference,
        notes=notes,
    )
    _write(summary, records, series, asked.out)
    from jobs.evaluate.table import print_summary

    print_summary(summary, Console())
    for note in notes:
        say(note)
    say(f"{asked.out / REPORT}, {asked.out / SUMMARY} written")
    return summary


def _series(asked: Asked) -> tuple[str, list[Labelled]]:
    layout, series = find_series(asked.data, asked.layout)
    series = chosen(series, sets=asked.sets)
    if asked.max_rows is not None:
        series = no_longer_than(series, asked.max_rows)
    series = chosen(series, sample=asked.sample, seed=asked.seed)
    return layout, with_options(
        series,
        columns=asked.columns,
        label=asked.label,
        time=asked.time,
        train_end=asked.train_end,
    )


def _specs(asked: Asked) -> tuple[list[Spec], list[str]]:
    """Return detectors and baselines without repetition, and notes on those left out."""
    wanted = ALWAYS if asked.baselines is None else (*NEVER_LEFT_OUT, *asked.baselines)
    specs, notes = [], []
    for name in dict.fromkeys([*(asked.detectors or [DEFAULT_DETECTOR]), *wanted]):
        spec = read_spec(name)
        remedy = missing_package(spec.name)
        if remedy is None:
            specs.append(spec)
        elif name in asked.detectors:
            msg = f"--detector {name} needs a package that is not installed: {remedy}"
            raise ConfigError(msg)
        else:
            notes.append(f"{name} is left out, its package is not installed: {remedy}")
    return specs, notes


def _reference(asked: Asked, specs: Sequence[Spec]) -> str:
    names = [spec.label for spec in specs]
    if asked.reference is None:
        return DEFAULT_REFERENCE if DEFAULT_REFERENCE in names else names[0]
    if asked.reference not in names:
        msg = f"--reference: {asked.reference} is not evaluated; one of: {', '.join(names)}"
        raise ConfigError(msg)
    return asked.reference


def _run(
    todo: Sequence[Task], asked: Asked, store: Store, results: dict[str, dict[str, Any]]
) -> None:
    n_processes = asked.jobs if asked.jobs is not None else os.cpu_count() or 1
    with bar("evaluating") as tell:
        done = 0
        tell(0, len(todo))

        def take(record: dict[str, Any]) -> None:
            nonlocal done
            store.add(record)
            results[record["key"]] = record
            done += 1
            tell(done, len(todo))

        run_all(todo, n_processes, take)


def _missing(records: Sequence[dict[str, Any]]) -> list[str]:
    """Return what has no figures and why, the commonest reasons first."""
    reasons: dict[tuple[str, str], list[str]] = {}
    for one in records:
        why = one.get("failed") or one.get("skipped")
        if why:
            name = f"{one['set']}/{one['series']}"
            reasons.setdefault((one["detector"], str(why).replace(name, "")), []).append(name)
    shown = []
    for (detector, why), names in sorted(reasons.items(), key=lambda item: -len(item[1])):
        more = f" and {len(names) - 1:,} more" if len(names) > 1 else ""
        shown.append(f"{detector} has no figures for {names[0]}{more}: {why}")
    if len(shown) > MOST_NAMED:
        rest = len(shown) - MOST_NAMED
        shown = [*shown[:MOST_NAMED], f"and {rest:,} more reasons, see {SUMMARY}"]
    return shown


def _write(
    summary: Summary, records: Sequence[dict[str, Any]], series: Sequence[Labelled], out: Path
) -> None:
    from jobs.evaluate.page import page

    text = orjson.dumps(summary.as_record(records), option=orjson.OPT_INDENT_2)
    (out / SUMMARY).write_bytes(text + b"\n")
    (out / REPORT).write_text(page(summary, records, series), encoding="utf-8")
