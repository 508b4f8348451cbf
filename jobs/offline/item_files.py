"""Events and edges in files: which columns are what, as a typed batch and a pipeline for it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from connectors.codecs.fields import BAD_TIME
from connectors.codecs.payloads import PAYLOADS
from connectors.codecs.rows import MAX_TAG_BYTES, cut_texts, joined_key
from connectors.files import BY_ROW, ROW_MS, read_sheet
from connectors.files.ends import ends_of, kinds_of
from connectors.files.numbers import read_numbers
from connectors.files.roles import KEY_NAMES, decimal_commas, label_of
from connectors.files.sheet import Sheet, require_column
from connectors.files.times import find_time, is_ticks, tick_column
from jobs.offline.score import FOREVER
from jobs.offline.tables import absent_in, rows_without
from streamad.config import PipelineConfig
from streamad.errors import ConfigError
from streamad.records import RecordBatch

MOST_KINDS = 100
"""A column of so many different whole numbers at the most holds codes of something."""
ALL = "all"
"""The key of rows that no column parts."""
ROLES = ("source", "target", "source_type", "target_type", "weight")
"""What an edge has, in the order in which fields are given."""
WEIGHTS = ("weight", "count", "bytes")
"""Usual names of what an edge counts for."""
MINUTE_MS = 60_000


@dataclass(frozen=True, slots=True, kw_only=True)
class ItemTable:
    """A file as rows to judge one by one.

    frame : a row per row of the file: its time and key as they stand there; batch : the same, typed
    and in the order of the file; usable : rows with a time and with what they must hold; counts :
    how often each row happened; marked : rows that a label calls anomalous (None: no labels);
    fields : as a pipeline names them;
    dated : times are moments, not numbers of rows or ticks; notes : how it was read
    """

    frame: pl.DataFrame
    batch: RecordBatch[Any]
    usable: NDArray[np.bool_]
    counts: NDArray[np.float64] | None
    marked: NDArray[np.bool_] | None
    fields: dict[str, Any]
    dated: bool
    notes: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.batch)


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """What a caller says of a file's columns; what is not said is found.

    normal : the label of ordinary rows
    measured : columns of whole numbers measure something, however few kinds there are
    """

    fields: Sequence[str] = ()
    key: Sequence[str] = ()
    time: str | None = None
    count: str | None = None
    label: str | None = None
    normal: str | None = None
    measured: bool = False


def read_items(
    path: Path, records: str, asked: Asked, *, known: Mapping[str, Any] | None = None
) -> ItemTable:
    """Read a file of events or edges.

    known : fields of the artifact that is to judge the rows; by default they are found: texts, and
        whole numbers of few kinds, are categories, and other numbers are numbers
    """
    sheet = read_sheet(path)
    frame = sheet.frame
    for name, option in _options(asked):
        require_column(frame, name, option)
    label = asked.label or _label_of(frame, records, asked, known)
    if asked.normal is not None and label is None:
        msg = f"--normal: {path.name} has no column of labels; name it with --label"
        raise ConfigError(msg)
    time, ms, dated = _times(sheet, asked)
    taken = {*asked.key, label, asked.count, time} - {None}
    fields = dict(known or _FINDERS[records](frame, asked, taken))
    key = (
        tuple(asked.key)
        or tuple(
            n for n in frame.columns if n.strip().lower() in KEY_NAMES and n not in asked.fields
        )[:1]
    )
    return _table(
        sheet, records, fields, key=key, time=time, ms=ms, dated=dated, label=label, asked=asked
    )


def _label_of(
    frame: pl.DataFrame, records: str, asked: Asked, known: Mapping[str, Any] | None
) -> str | None:
    """Return the column whose name is that of labels; one that is read as a field is none."""
    ends = ends_of(frame.columns) or () if records == "edges" else ()
    fields = _shown(known) if known is not None else ()
    given = (*asked.fields, *asked.key, asked.time, asked.count)
    return label_of(frame, taken={*ends, *fields, *given})


def _options(asked: Asked) -> list[tuple[str, str]]:
    named = [(name, "--fields") for name in asked.fields] + [(name, "--key") for name in asked.key]
    for name, option in ((asked.count, "--count"), (asked.label, "--label")):
        if name is not None:
            named.append((name, option))
    return named


def _times(sheet: Sheet, asked: Asked) -> tuple[str | None, NDArray[np.int64], bool]:
    """Return the column of times, what it holds, and whether these are moments.

    Rows are a step apart where there is none.
    """
    frame = sheet.frame
    tick = asked.time or tick_column(frame)
    if tick is not None and tick != BY_ROW and tick in frame.columns and is_ticks(frame[tick]):
        # Numbers of ticks are no moments: each is a minute, in the order given.
        return tick, frame[tick].cast(pl.Int64, strict=False).to_numpy() * MINUTE_MS, False
    found, moments = find_time(sheet, asked.time, taken={*asked.fields, *asked.key})
    if found is None or moments is None:
        return None, np.arange(frame.height, dtype=np.int64) * ROW_MS, False
    return found, moments.ms, moments.unit != "row"


def _event_fields(frame: pl.DataFrame, asked: Asked, taken: set[Any]) -> dict[str, Any]:
    """Return which columns are categories and which are numbers."""
    names = list(asked.fields) or [name for name in frame.columns if name not in taken]
    numbers = [name for name in names if _is_number(frame[name], asked)]
    categories = [name for name in names if name not in numbers]
    if not names:
        msg = f"no column describes an event; the file has {', '.join(frame.columns)}"
        raise ConfigError(msg)
    return {"categories": categories, "numbers": numbers}


def _is_number(column: pl.Series, asked: Asked) -> bool:
    """Say whether a column measures something: fractions, or whole numbers of very many kinds."""
    numbers = column.cast(pl.Float64, strict=False)
    if numbers.null_count() > column.null_count() or numbers.null_count() == len(numbers):
        return False
    whole = bool((numbers.drop_nulls() == numbers.drop_nulls().floor()).all())
    return not whole or asked.measured or numbers.n_unique() > MOST_KINDS


def _edge_fields(frame: pl.DataFrame, asked: Asked, taken: set[Any]) -> dict[str, Any]:
    """Return which columns are the ends of an edge, their types and its weight."""
    free = [name for name in frame.columns if name not in taken]
    found: dict[str, Any] = dict(zip(ROLES, asked.fields, strict=False))
    if not asked.fields:
        found |= dict(zip(ROLES[:2], ends_of(free) or (), strict=False))
        found |= dict(zip(ROLES[2:4], kinds_of(free) or (), strict=False))
    folded = {name.strip().lower(): name for name in reversed(free)}
    weight = next((folded[one] for one in WEIGHTS if one in folded), None)
    if weight is not None and weight not in found.values():
        found.setdefault("weight", weight)
    if not {"source", "target"} <= found.keys():
        msg = (
            "an edge has a source and a target; name the columns with --fields source,target; the "
            f"file has {', '.join(frame.columns)}"
        )
        raise ConfigError(msg)
    return found


_FINDERS: Mapping[str, Callable[[pl.DataFrame, Asked, set[Any]], dict[str, Any]]] = {
    "events": _event_fields,
    "edges": _edge_fields,
}


def _table(  # noqa: PLR0913 - what was found of a file, all by keyword
    sheet: Sheet,
    records: str,
    fields: dict[str, Any],
    *,
    key: tuple[str, ...],
    time: str | None,
    ms: NDArray[np.int64],
    dated: bool,
    label: str | None,
    asked: Asked,
) -> ItemTable:
    frame, n = sheet.frame, sheet.frame.height
    config = pipeline_of(records, fields, key=key, detector="").input.fields
    payload = PAYLOADS[records]
    texts = {role: _text(frame, name, sheet.name) for role, name in payload.texts(config)}
    names, commas = payload.numbers(config), decimal_commas(sheet)
    numbers = np.empty((n, len(names)))
    for place, name in enumerate(names):
        require_column(frame, name, "--fields")
        numbers[:, place] = read_numbers(frame[name], commas=commas).values.to_numpy()
    keys = [_text(frame, name, sheet.name) for name in key]
    batch: RecordBatch[Any] = RecordBatch(
        keys=joined_key(keys) if keys else pl.repeat(ALL, n, dtype=pl.String, eager=True),
        time_ms=ms,
        values=payload.rows(ms, numbers, texts, names),
        message=np.arange(n, dtype=np.int32),
        row=np.zeros(n, np.int32),
        offsets=np.arange(n, dtype=np.int64),
        broker_ms=np.full(n, -1, np.int64),
    )
    usable = ms != BAD_TIME
    for role in payload.needed:
        usable &= (texts[role].str.len_bytes() > 0).to_numpy()
    if keys:
        usable &= (batch.keys.str.len_bytes() > 0).to_numpy()
    faults = [] if time is None else [*rows_without(frame, time, ms == BAD_TIME, "time")]
    held = dict(payload.texts(config))
    for role in payload.needed:
        absent = absent_in(frame[held[role]])
        faults += rows_without(frame, held[role], absent, role.replace("_", " "))
    for name in key:
        faults += rows_without(frame, name, absent_in(frame[name]), "key")
    own = [frame[name] for name in dict.fromkeys((*([time] if time else []), *key))]
    told = f"{records} of {', '.join(_shown(fields))}; " + (
        f"time {time}" if time else "the row number as time"
    )
    return ItemTable(
        frame=pl.DataFrame(own),
        batch=batch,
        usable=np.asarray(usable),
        counts=None if asked.count is None else _counts(frame[asked.count], asked.count),
        marked=None if label is None else _marked(frame[label], asked.normal),
        fields={**fields, "key": key or ("key",)},
        dated=dated,
        notes=(
            f"{sheet.name}: {n:,} {told}{', keys ' + ' and '.join(key) if key else ''}",
            *sheet.notes,
            *faults,
        ),
    )


def _shown(fields: Mapping[str, Any]) -> list[str]:
    given = (one for one in fields.values() if one)
    return [name for one in given for name in ((one,) if isinstance(one, str) else one)]


def _text(frame: pl.DataFrame, name: str, file: str) -> pl.Series:
    if name not in frame.columns:
        msg = f"{file} has no column {name!r}; it has {', '.join(frame.columns)}"
        raise ConfigError(msg)
    text = frame[name].cast(pl.String)
    return cut_texts(text.fill_null(""), MAX_TAG_BYTES).rename(name)


def _counts(column: pl.Series, name: str) -> NDArray[np.float64]:
    numbers = column.cast(pl.Float64, strict=False)
    if numbers.null_count() or not ((numbers > 0) & numbers.is_finite()).all():
        msg = f"--count: {name} must hold how often each row happened, numbers above 0"
        raise ConfigError(msg)
    return numbers.to_numpy()


ORDINARY = ("0", "0.0", "false", "normal", "no", "-", "benign", "ok", "")
"""What a label of an ordinary row is, where nobody says: in lower case."""


def _marked(column: pl.Series, normal: str | None) -> NDArray[np.bool_]:
    """Return which labels are of anomalies: others than ``normal``, or than what is usually meant.

    Where one label stands for all rows, none is an anomaly; where no label has a usual meaning, the
    commonest is that of ordinary rows.
    """
    texts = column.cast(pl.String).fill_null("").str.strip_chars()
    if normal is not None:
        return (texts != normal).to_numpy()
    folded = texts.str.to_lowercase()
    kinds = set(folded.unique().to_list())
    if len(kinds) == 1:
        return np.zeros(len(folded), np.bool_)
    if kinds == {"-1", "1"}:  # as classifiers of one class label them
        return (folded == "-1").to_numpy()
    usual = [kind for kind in ORDINARY if kind in kinds]
    if not usual:
        usual = [str(folded.value_counts(sort=True, name="n")[folded.name][0])]
    return (~folded.is_in(usual)).to_numpy()


def pipeline_of(
    records: str,
    fields: Mapping[str, Any],
    *,
    key: Sequence[str] = (),
    detector: str,
    params: Mapping[str, Any] | None = None,
    artifact: str | None = None,
) -> PipelineConfig:
    """Return the pipeline a bare file of events or edges stands for."""
    named = {name: value for name, value in fields.items() if name != "key"}
    return PipelineConfig.model_validate(
        {
            "name": "score",
            "input": {
                "records": records,
                "fields": {**named, "key": tuple(key) or fields.get("key", ("key",))},
            },
            "series": {"ttl": FOREVER, "max_ahead": FOREVER},
            "detector": {"name": detector, "params": dict(params or {}), "artifact": artifact},
        }
    )
