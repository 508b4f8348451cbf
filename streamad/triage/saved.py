"""The book of triage as JSON text, and back: nothing in it is run, and all of it is bounded."""

from __future__ import annotations

import base64
import json
from typing import Any, Final, NoReturn

import numpy as np

from streamad.errors import ArtifactError, ConfigError
from streamad.triage.book import (
    ID_CHARS,
    MAX_EXAMPLES,
    MAX_IDS,
    MAX_NAME_CHARS,
    MAX_NAMES,
    MAX_ROWS,
    MAX_SUMMARY_CHARS,
    Book,
    Example,
    Group,
    checked_name,
)
from streamad.triage.describe import MAX_TEXT_CHARS
from streamad.triage.features import N_FEATURES, N_NUMBERS, VERSION, Scaling, Vector
from streamad.triage.grouping import MAX_GROUPS

FORMAT: Final = "streamad.triage.v1"
MAX_BYTES: Final = 32 * 2**20
MAX_VALUE: Final = 1e3
"""Columns are logs, shares and signs; none comes near this."""
MAX_COUNT: Final = 2**53


def dumps(book: Book) -> str:
    """Return the book as JSON text; the same book gives the same text."""
    body = {
        "format": FORMAT,
        "features": VERSION,
        "scaling": {
            "center": book.scaling.center.tolist(),
            "spread": book.scaling.spread.tolist(),
        },
        "named": {name: _group(one) for name, one in book.named.items()},
        "proposed": {name: _group(one) for name, one in book.proposed.items()},
        "silhouette": book.silhouette,
        "n_alone": book.n_alone,
    }
    return json.dumps(body, indent=1, ensure_ascii=False, allow_nan=False) + "\n"


def loads(text: str | bytes, *, where: str) -> Book:
    """Read a book; raises ArtifactError.

    where : how messages name the file
    """
    if len(text) > MAX_BYTES:
        _refuse(where, f"has {len(text)} bytes, at most {MAX_BYTES} are read")
    try:
        body = json.loads(text)
    except (ValueError, RecursionError) as error:
        _refuse(where, f"is no JSON ({error!s:.80})")
    if not isinstance(body, dict) or body.get("format") != FORMAT:
        got = body.get("format") if isinstance(body, dict) else type(body).__name__
        _refuse(where, f"expected format {FORMAT!r}, got {got!r:.40}")
    if body.get("features") != VERSION:
        _refuse(
            where,
            f"was made with version {body.get('features')!r:.20} of the columns, this streamad "
            f"has {VERSION}; group the alerts again and name them",
        )
    try:
        return _book(body)
    except (KeyError, TypeError, ValueError, AttributeError, ConfigError) as error:
        _refuse(where, f"is damaged ({type(error).__name__}: {error!s:.120}); restore a copy")


def _refuse(where: str, why: str) -> NoReturn:
    msg = f"{where}: {why}"
    raise ArtifactError(msg)


def _book(body: dict[str, Any]) -> Book:
    scaling = Scaling(
        center=_numbers(body["scaling"]["center"]), spread=_numbers(body["scaling"]["spread"])
    )
    if (scaling.spread <= 0).any():
        msg = "a spread that is not above 0"
        raise ValueError(msg)
    named = {checked_name(name): _read_group(one) for name, one in body["named"].items()}
    proposed = {_text(name, 8): _read_group(one) for name, one in body["proposed"].items()}
    if len(named) > MAX_NAMES or len(proposed) > MAX_GROUPS:
        msg = f"{len(named)} names and {len(proposed)} proposals"
        raise ValueError(msg)
    silhouette = float(body["silhouette"])
    if not -1.0 <= silhouette <= 1.0:
        msg = f"a silhouette of {silhouette}"
        raise ValueError(msg)
    return Book(
        scaling=scaling,
        named=named,
        proposed=proposed,
        silhouette=silhouette,
        n_alone=_count(body["n_alone"]),
    )


def _group(one: Group) -> dict[str, Any]:
    return {
        "n": one.n,
        "about": one.about,
        "examples": [
            {"id": e.id, "key": e.key, "began_ms": e.began_ms, "summary": e.summary}
            for e in one.examples
        ],
        "opening": _packed(one.opening),
        "whole": _packed(one.whole),
        "ids": list(one.ids),
    }


def _read_group(body: dict[str, Any]) -> Group:
    made = Group(
        n=_count(body["n"]),
        about=_text(body["about"], MAX_TEXT_CHARS),
        opening=_unpacked(body["opening"]),
        whole=_unpacked(body["whole"]),
        ids=tuple(_text(name, ID_CHARS) for name in body["ids"]),
        examples=tuple(
            Example(
                id=_text(one["id"], 128),
                key=_text(one["key"], MAX_SUMMARY_CHARS),
                began_ms=int(one["began_ms"]),
                summary=_text(one["summary"], MAX_SUMMARY_CHARS),
            )
            for one in body["examples"]
        ),
    )
    sizes = len(made.opening), len(made.whole)
    if sizes[0] != sizes[1] or not 1 <= sizes[0] <= MAX_ROWS:
        msg = f"a group of {sizes[0]} and {sizes[1]} vectors"
        raise ValueError(msg)
    if len(made.ids) > MAX_IDS or len(made.examples) > MAX_EXAMPLES:
        msg = f"a group of {len(made.ids)} ids and {len(made.examples)} examples"
        raise ValueError(msg)
    return made


def _packed(rows: Vector) -> str:
    return base64.b85encode(np.ascontiguousarray(rows, "<f4").tobytes()).decode()


def _unpacked(text: str) -> Vector:
    if len(text) > 5 * MAX_ROWS * N_FEATURES:
        msg = f"vectors of {len(text)} characters"
        raise ValueError(msg)
    rows = np.frombuffer(base64.b85decode(text), "<f4").astype(np.float64)
    if len(rows) % N_FEATURES:
        msg = f"{len(rows)} numbers are no rows of {N_FEATURES}"
        raise ValueError(msg)
    if not (np.abs(rows) <= MAX_VALUE).all():
        msg = "a vector with a value that no alert has"
        raise ValueError(msg)
    return rows.reshape(-1, N_FEATURES)


def _numbers(values: list[float]) -> Vector:
    made = np.array(values, np.float64)
    if made.shape != (N_NUMBERS,) or not (np.abs(made) <= MAX_VALUE).all():
        msg = f"a scaling of shape {made.shape}"
        raise ValueError(msg)
    return made


def _count(value: Any) -> int:
    if not isinstance(value, int) or not 0 <= value <= MAX_COUNT:
        msg = f"a count of {value!r:.40}"
        raise ValueError(msg)
    return value


def _text(value: Any, most: int) -> str:
    if not isinstance(value, str) or len(value) > max(most, MAX_NAME_CHARS):
        msg = f"a text {value!r:.40}"
        raise ValueError(msg)
    return value
