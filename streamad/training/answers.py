"""Answers of people as periods of training data: what was anomalous is not learned as ordinary.

A period that was answered as ``real`` or ``expected`` (maintenance) is left out; one answered as
``false_positive`` is ordinary data and stays, whatever else was said of it. A detector that learns
from labels takes ``real`` for anomalous, and ``expected`` and ``false_positive`` for ordinary.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import orjson
import polars as pl
from numpy.typing import NDArray

from streamad.errors import ConfigError
from streamad.records import RecordBatch

LEFT_OUT = ("real", "expected")
KEPT = ("false_positive",)
KNOWN = (*LEFT_OUT, *KEPT, "acknowledged")
MAX_PERIODS = 100_000

Int64s = NDArray[np.int64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Period:
    """A time of one series that was answered to; both ends belong to it."""

    key: str
    began_ms: int
    until_ms: int
    verdict: str


def read_periods(lines: Sequence[bytes], *, name: str) -> list[Period]:
    """Read JSON lines with ``key``, ``began_ms``, ``until_ms`` and ``verdict``.

    name : of the file, for errors. Raises ConfigError that names the line.
    """
    found: list[Period] = []
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        if len(found) >= MAX_PERIODS:
            msg = f"{name}:{number}: more than {MAX_PERIODS:,} answers; give a newer part of them"
            raise ConfigError(msg)
        try:
            given = orjson.loads(line)
        except orjson.JSONDecodeError as error:
            msg = f"{name}:{number}: not JSON: {error}"
            raise ConfigError(msg) from None
        found.append(_period(given, f"{name}:{number}"))
    return found


def _period(given: Any, where: str) -> Period:
    wanted = {"key": str, "began_ms": int, "until_ms": int, "verdict": str}
    for field, kind in wanted.items():
        value = given.get(field) if isinstance(given, dict) else None
        if type(value) is not kind:
            msg = f"{where}: {field} is {value!r:.40}; expected {kind.__name__}"
            raise ConfigError(msg)
    if given["verdict"] not in KNOWN:
        msg = f"{where}: verdict is {given['verdict']!r:.40}; expected one of {', '.join(KNOWN)}"
        raise ConfigError(msg)
    return Period(**{field: given[field] for field in wanted})


def left_out(batch: RecordBatch[Any], periods: Sequence[Period]) -> NDArray[np.bool_]:
    """Return the rows ``(n,)`` that lie in a period that is not ordinary.

    A false positive is stronger than the periods it lies in: what was dismissed is ordinary.
    """
    return spans_left_out(batch.keys, batch.time_ms, batch.time_ms, periods)


def spans_left_out(
    keys: pl.Series, begin_ms: Int64s, end_ms: Int64s, periods: Sequence[Period]
) -> NDArray[np.bool_]:
    """Return which spans ``(n,)`` of keys touch a period that is not ordinary; ends belong to them.

    A false positive that a span touches is stronger.
    """
    rows = _spans(keys, begin_ms, end_ms)
    anomalous = _touches(rows, [p for p in periods if p.verdict in LEFT_OUT])
    return anomalous & ~_touches(rows, [p for p in periods if p.verdict in KEPT])


@dataclass(frozen=True, slots=True, kw_only=True)
class Labels:
    """What answers say of spans; bool ``(n,)`` each.

    anomalous : a ``real`` period touches it, and no dismissed one; answered : some verdict is known
        of it; unknown : somebody has seen it and gave no verdict, so it is neither
    """

    anomalous: NDArray[np.bool_]
    answered: NDArray[np.bool_]
    unknown: NDArray[np.bool_]


def labels_of(
    keys: pl.Series, begin_ms: Int64s, end_ms: Int64s, periods: Sequence[Period]
) -> Labels:
    """Return what people say of spans ``[begin_ms, end_ms]`` of keys, each ``(n,)``.

    Of several verdicts on one span ``false_positive`` is strongest, then ``real``, ``expected``.
    """
    rows = _spans(keys, begin_ms, end_ms)
    touched = {
        verdict: _touches(rows, [p for p in periods if p.verdict == verdict]) for verdict in KNOWN
    }
    answered = touched["real"] | touched["expected"] | touched["false_positive"]
    return Labels(
        anomalous=touched["real"] & ~touched["false_positive"],
        answered=answered,
        unknown=touched["acknowledged"] & ~answered,
    )


def _spans(keys: pl.Series, begin_ms: Int64s, end_ms: Int64s) -> pl.DataFrame:
    frame = pl.DataFrame({"key": keys, "since": begin_ms, "at": end_ms})
    return frame.with_row_index("row")


def _touches(rows: pl.DataFrame, periods: Sequence[Period]) -> NDArray[np.bool_]:
    touches = np.zeros(len(rows), np.bool_)
    if not periods:
        return touches
    spans = (
        pl.DataFrame(
            {
                "key": [p.key for p in periods],
                "began": [p.began_ms for p in periods],
                "until": [max(p.began_ms, p.until_ms) for p in periods],
            }
        )
        .sort("began")
        # One span holds what ends within it: the last that began decides alone.
        .with_columns(pl.col("until").cum_max().over("key"))
    )
    own = rows.filter(pl.col("key").is_in(spans["key"].unique().implode())).sort("at")
    hit = own.join_asof(
        spans, left_on="at", right_on="began", by="key", check_sortedness=False
    ).filter(pl.col("since") <= pl.col("until"))
    touches[hit["row"].to_numpy()] = True
    return touches
