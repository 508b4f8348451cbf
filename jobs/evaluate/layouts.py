"""Folders of labelled series as people have them: what each layout's files mean."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import polars as pl
from numpy.typing import NDArray

from connectors.files import BY_ROW, read_sheet
from connectors.files.moments import read_moments
from connectors.files.sheet import read_bytes
from jobs.offline.tables import Table, read_table
from streamad.errors import ConfigError, StreamadError
from streamad.windows.period import MAX_SHARE, MAX_SIZE, MIN_SIZE, period_of

PROBATION, MOST_PROBATION = 0.15, 750
"""Numenta's: so much of a series may be learned before it counts."""
SUFFIXES = (".csv", ".tsv", ".parquet", ".jsonl", ".ndjson", ".csv.gz", ".jsonl.gz")
MAX_SERIES = 20_000
LONGEST_BUFFER = 1_000
_TRAINED = re.compile(r"_tr_(\d+)(?:_|\.)")


@dataclass(frozen=True, slots=True, kw_only=True)
class Labelled:
    """A labelled series in a file, not read yet.

    set, name : as they are shown; columns : the variates (empty: every numeric column but labels);
    time : its column, `BY_ROW`, or None: found by name; label : the column of labels, None: found
    by name; spans : in the place of a column, first and last time of each anomaly, as texts;
    train_end : rows before it may be learned, 0: none, None: Numenta's share; buffer : the longest
    buffer of VUS in rows, None: the period of the series
    """

    path: Path
    set: str
    name: str
    columns: tuple[str, ...] = ()
    time: str | None = None
    label: str | None = None
    spans: tuple[tuple[str, str], ...] | None = None
    train_end: int | None = None
    buffer: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Loaded:
    """A series as it was read.

    labels : bool ``(n,)``, of the points of the table; train_end : rows; buffer : rows, for VUS;
    slack : rows, half a window: how near an alert must be
    """

    table: Table
    labels: NDArray[np.bool_]
    train_end: int
    buffer: int
    slack: int


def find_series(folder: Path, layout: str = "auto") -> tuple[str, list[Labelled]]:
    """Return the layout of a folder or file, and its series in the order of their names.

    Raises
    ------
    ConfigError
        where nothing fits, naming what was looked for
    """
    if not folder.exists():
        msg = f"there is no file or folder {folder}; 'streamad datasets' shows how to lay files"
        raise ConfigError(msg)
    if layout == "auto":
        layout = next(name for name, fits in _FITS.items() if fits(folder))
    if layout not in LAYOUTS:
        msg = f"--layout: expected auto, {', '.join(LAYOUTS)}, got {layout!r}"
        raise ConfigError(msg)
    series = LAYOUTS[layout](folder)
    if not series:
        msg = (
            f"{folder} holds no series in the layout {layout!r}; 'streamad datasets' shows what "
            "files each layout has"
        )
        raise ConfigError(msg)
    if len(series) > MAX_SERIES:
        msg = f"{folder} holds {len(series):,} series; at most {MAX_SERIES:,} are evaluated at once"
        raise ConfigError(msg)
    return layout, series


def chosen(
    series: Iterable[Labelled],
    *,
    sets: Sequence[str] = (),
    sample: int | None = None,
    seed: int = 0,
) -> list[Labelled]:
    """Return the series of some sets, or so many of them drawn with a seed, in turn from each set.

    Raises
    ------
    ConfigError
        where a set is not there
    """
    every = list(series)
    known = sorted({one.set for one in every})
    if unknown := [name for name in sets if name not in known]:
        msg = f"--sets: there is no set {', '.join(unknown)}; there are: {', '.join(known)}"
        raise ConfigError(msg)
    every = [one for one in every if not sets or one.set in sets]
    if sample is None or sample >= len(every):
        return every
    if sample < 1:
        msg = f"--sample must be 1 or more, got {sample}"
        raise ConfigError(msg)
    drawn = np.random.default_rng(seed).permutation(len(every))
    turns: dict[str, int] = {}
    ranked: list[tuple[int, int, int]] = []
    for at in drawn.tolist():
        turn = turns[every[at].set] = turns.get(every[at].set, 0) + 1
        ranked.append((turn, len(ranked), at))
    kept = {at for _, _, at in sorted(ranked)[:sample]}
    return [one for at, one in enumerate(every) if at in kept]


def no_longer_than(series: Iterable[Labelled], max_rows: int) -> list[Labelled]:
    """Return the series of at most so many rows; what cannot be read stays, and is reported later.

    Raises
    ------
    ConfigError
        where none is so short
    """
    kept = []
    for one in series:
        try:
            short = read_sheet(one.path).frame.height <= max_rows
        except StreamadError:
            short = True
        if short:
            kept.append(one)
    if not kept:
        msg = f"--max-rows {max_rows}: every series is longer"
        raise ConfigError(msg)
    return kept


def load(one: Labelled) -> Loaded:
    """Read a series with its labels.

    Raises
    ------
    ConfigError
        where it has no labels, or its training part is not shorter than itself
    """
    label = None if one.spans is not None else one.label
    table = read_table(
        one.path, columns=one.columns, time=one.time, key=(), joint=True, label=label
    )
    if table.batch.keys.n_unique() > 1:
        msg = (
            f"{one.path.name} holds {table.batch.keys.n_unique()} series, named by "
            f"{' and '.join(table.key)}; give each a file of its own"
        )
        raise ConfigError(msg)
    labels = table.labelled if one.spans is None else _inside(table, one.spans)
    if labels is None:
        msg = (
            f"{one.path.name} has no column of labels (0 and 1); name it with --label; it has: "
            f"{', '.join(read_sheet(one.path).frame.columns)}"
        )
        raise ConfigError(msg)
    n = len(table)
    train_end = probation(n) if one.train_end is None else one.train_end
    if not 0 <= train_end < n:
        msg = f"{one.path.name}: train_end must lie in 0 .. {n - 1}, got {train_end}"
        raise ConfigError(msg)
    values = table.batch.values[table.usable, 0]
    buffer = own_buffer(values) if one.buffer is None else min(one.buffer, LONGEST_BUFFER)
    return Loaded(
        table=table, labels=labels, train_end=train_end, buffer=buffer, slack=slack_of(buffer, n)
    )


def probation(n_rows: int) -> int:
    """Return the rows that may be learned where nobody set it: Numenta's share."""
    return min(int(PROBATION * n_rows), MOST_PROBATION)


def own_buffer(values: NDArray[np.float64]) -> int:
    """Return the longest buffer of VUS in rows: the period of a series, within bounds."""
    return min(period_of(values) or MAX_SIZE, LONGEST_BUFFER, max(len(values) // MAX_SHARE, 1))


def slack_of(buffer: int, n_rows: int) -> int:
    """Return half of what a window of such a series has, the same for every detector."""
    return max(min(max(buffer, MIN_SIZE), MAX_SIZE, n_rows // MAX_SHARE) // 2, 1)


# ------------------------------------------------------------------ layouts


def _is_index(folder: Path) -> bool:
    return (folder / "index.csv").is_file()


def _is_nab(folder: Path) -> bool:
    return (folder / "labels" / "combined_windows.json").is_file()


def _is_tsb(folder: Path) -> bool:
    return any(_TRAINED.search(path.name) for path in _files(folder))


def _index(folder: Path) -> list[Labelled]:
    """Read ``index.csv``: a row per series, with ``file`` and ``train_end`` at least."""
    frame = read_sheet(folder / "index.csv").frame
    if missing := [name for name in ("file", "train_end") if name not in frame.columns]:
        msg = f"{folder / 'index.csv'} has no column {' and '.join(missing)}"
        raise ConfigError(msg)
    made = []
    for row in frame.iter_rows(named=True):
        path = (folder / str(row["file"])).resolve()
        if not path.is_relative_to(folder.resolve()):
            msg = f"index.csv: {row['file']} lies outside {folder}; files must lie below it"
            raise ConfigError(msg)
        window = _number(row.get("window"))
        columns = str(row.get("columns") or "").split()
        made.append(
            Labelled(
                path=path,
                set=str(row.get("set") or folder.name),
                name=str(row.get("series") or path.stem),
                columns=tuple(columns),
                time=BY_ROW if row.get("ts_kind") == "index" else None,
                train_end=int(_number(row["train_end"]) or 0),
                buffer=None if window is None else max(int(window), 1),
            )
        )
    return made


def _nab(folder: Path) -> list[Labelled]:
    """Read Numenta's benchmark: ``data/*/*.csv`` and ``labels/combined_windows.json``."""
    windows = orjson.loads(read_bytes(folder / "labels" / "combined_windows.json"))
    made = []
    for name in sorted(windows):
        path = (folder / "data" / name).resolve()
        if not path.is_relative_to(folder.resolve()):
            msg = f"combined_windows.json: {name} lies outside {folder / 'data'}"
            raise ConfigError(msg)
        if path.is_file():
            spans = tuple((str(begin), str(end)) for begin, end in windows[name])
            made.append(Labelled(path=path, set=path.parent.name, name=path.stem, spans=spans))
    return made


def _tsb(folder: Path) -> list[Labelled]:
    """Read TSB-AD: a CSV per series with ``Label``; ``_tr_N_`` in its name is the training part."""
    made = []
    for path in _files(folder):
        if found := _TRAINED.search(path.name):
            parts = path.name.split("_")
            made.append(
                Labelled(
                    path=path,
                    set=parts[1] if len(parts) > 1 else folder.name,
                    name=path.name.partition(".")[0],
                    time=BY_ROW,
                    label="Label",
                    train_end=int(found[1]),
                )
            )
    return made


def _plain(folder: Path) -> list[Labelled]:
    """Take every table below a folder, or one file, for a series."""
    files = [folder] if folder.is_file() else _files(folder)
    return [
        Labelled(path=path, set=path.parent.name or ".", name=path.name.partition(".")[0])
        for path in files
    ]


LAYOUTS: dict[str, Callable[[Path], list[Labelled]]] = {
    "index": _index,
    "nab": _nab,
    "tsb-ad": _tsb,
    "plain": _plain,
}
_FITS: dict[str, Callable[[Path], bool]] = {
    "index": _is_index,
    "nab": _is_nab,
    "tsb-ad": _is_tsb,
    "plain": lambda _folder: True,
}


def with_options(
    series: Iterable[Labelled],
    *,
    columns: Sequence[str] = (),
    label: str | None = None,
    time: str | None = None,
    train_end: int | None = None,
) -> list[Labelled]:
    """Return series with what a caller set for all of them."""
    given: dict[str, Any] = {
        "columns": tuple(columns) or None,
        "label": label,
        "time": time,
        "train_end": train_end,
    }
    changes = {name: value for name, value in given.items() if value is not None}
    if label is not None:
        changes["spans"] = None
    return [replace(one, **changes) for one in series]


def _files(folder: Path) -> list[Path]:
    paths = [folder] if folder.is_file() else sorted(folder.rglob("*"))
    return [path for path in paths if path.is_file() and path.name.lower().endswith(SUFFIXES)]


def _number(cell: object) -> float | None:
    try:
        value = float(str(cell))
    except ValueError:
        return None
    return value if np.isfinite(value) else None


def _inside(table: Table, spans: Sequence[tuple[str, str]]) -> NDArray[np.bool_]:
    """Return which points lie in a span of times."""
    marked = np.zeros(len(table), np.bool_)
    if not spans:
        return marked
    moments = read_moments(pl.Series("label", [text for span in spans for text in span]))
    if moments is None:
        msg = f"labels must be times, got {spans[0][0]!r}"
        raise ConfigError(msg)
    for begin, end in moments.ms.reshape(-1, 2).tolist():
        marked |= (table.batch.time_ms >= begin) & (table.batch.time_ms <= end)
    return marked
