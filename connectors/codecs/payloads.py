"""What rows hold: from the columns every codec reads to the rows of a modality."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from streamad.config.input import FieldsConfig
from streamad.events.rows import EventRows
from streamad.graphs.rows import EdgeRows

Texts = Mapping[str, pl.Series]
Numbers = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Payload:
    """The fields of one kind of records.

    texts, numbers : from a pipeline's fields to pairs of a role and the field that plays it
    measured : a row without a number is of no use; needed : roles without which one is; any : one
        role, or number, must be there
    rows : from times ``(n,)``, numbers ``(n, n_numbers)`` and texts by role to rows; columns : and
        back, given the names of numbers and the roles
    """

    texts: Callable[[FieldsConfig], tuple[tuple[str, str], ...]]
    numbers: Callable[[FieldsConfig], tuple[str, ...]]
    measured: bool
    needed: tuple[str, ...]
    any: bool
    rows: Callable[[NDArray[np.int64], Numbers, Texts, tuple[str, ...]], Any]
    columns: Callable[[Any, tuple[str, ...], tuple[str, ...]], tuple[Numbers, dict[str, pl.Series]]]


def _signals(ms: NDArray[np.int64], numbers: Numbers, texts: Texts, names: tuple[str, ...]) -> Any:
    del ms, texts, names
    return numbers


def _of_signals(
    rows: Numbers, names: tuple[str, ...], roles: tuple[str, ...]
) -> tuple[Numbers, dict[str, pl.Series]]:
    del names, roles
    return rows, {}


def _of_events(
    rows: EventRows, names: tuple[str, ...], roles: tuple[str, ...]
) -> tuple[Numbers, dict[str, pl.Series]]:
    numbers = [rows.fields[name].fill_null(np.nan).to_numpy() for name in names]
    made = np.stack(numbers, axis=1) if numbers else np.empty((len(rows), 0))
    return made, {role: rows.fields[role].fill_null("") for role in roles}


def _of_edges(
    rows: EdgeRows, names: tuple[str, ...], roles: tuple[str, ...]
) -> tuple[Numbers, dict[str, pl.Series]]:
    made = rows.weight[:, None] if names else np.empty((len(rows), 0))
    return made, {role: getattr(rows, role).fill_null("") for role in roles}


def _events(ms: NDArray[np.int64], numbers: Numbers, texts: Texts, names: tuple[str, ...]) -> Any:
    frame = pl.DataFrame(dict(texts))
    shortest = frame.select(pl.all().str.len_bytes().min()).row(0) if frame.height else ()
    columns = [
        missing(text) if least == 0 or text.null_count() else text
        for text, least in zip(frame, shortest or [0] * frame.width, strict=True)
    ]
    columns += [
        pl.Series(name, numbers[:, place], nan_to_null=True) for place, name in enumerate(names)
    ]
    return EventRows(ms, pl.DataFrame(columns))


def _edges(ms: NDArray[np.int64], numbers: Numbers, texts: Texts, names: tuple[str, ...]) -> Any:
    none = pl.repeat(None, len(ms), dtype=pl.String, eager=True)
    weight = numbers[:, 0] if names else np.ones(len(ms))
    return EdgeRows(
        time_ms=ms,
        source=texts["source"],
        target=texts["target"],
        source_type=missing(texts.get("source_type", none)),
        target_type=missing(texts.get("target_type", none)),
        weight=np.where(np.isnan(weight), 1.0, weight),
    )


def missing(text: pl.Series) -> pl.Series:
    """Return a column in which an empty text is null: CSV cannot tell them apart."""
    if not text.null_count() and (text.str.len_bytes() > 0).all():
        return text
    return text.set(text.eq(""), None)


def _edge_fields(fields: FieldsConfig) -> tuple[tuple[str, str], ...]:
    roles = ("source", "target", "source_type", "target_type")
    given = [(role, getattr(fields, role)) for role in roles]
    return tuple((role, name) for role, name in given if name is not None)


PAYLOADS: Mapping[str, Payload] = {
    "signals": Payload(
        texts=lambda fields: (), numbers=lambda fields: fields.values, measured=True,
        needed=(), any=True, rows=_signals, columns=_of_signals,
    ),
    "events": Payload(
        texts=lambda fields: tuple((name, name) for name in fields.categories),
        numbers=lambda fields: fields.numbers, measured=False, needed=(), any=True,
        rows=_events, columns=_of_events,
    ),
    "edges": Payload(
        texts=_edge_fields,
        numbers=lambda fields: () if fields.weight is None else (fields.weight,),
        measured=False, needed=("source", "target"), any=False, rows=_edges,
        columns=_of_edges,
    ),
}  # fmt: skip
"""By ``input.records``."""
