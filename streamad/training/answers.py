"""Answers of people as periods of training data: what was anomalous is not learned as ordinary.

A period that was answered as ``real`` or ``expected`` (maintenance) is left out; one answered as
``false_positive`` is ordinary data and stays, whatever else was said of it.
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
    rows = pl.DataFrame({"key": batch.keys, "at": batch.time_ms}).with_row_index("row")
    anomalous = _inside(rows, [p for p in periods if p.verdict in LEFT_OUT])
    return anomalous & ~_inside(rows, [p for p in periods if p.verdict in KEPT])


def _inside(rows: pl.DataFrame, periods: Sequence[Period]) -> NDArray[np.bool_]:
    inside = np.zeros(len(rows), np.bool_)
    if not periods:
        return inside
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
    own = rows.filter(pl.col("key").is_in(spans["key"].unique())).sort("at")
    hit = own.join_asof(
        spans, left_on="at", right_on="began", by="key", check_sortedness=False
    ).filter(pl.col("at") <= pl.col("until"))
    inside[hit["row"].to_numpy()] = True
    return inside
