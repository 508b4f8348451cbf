"""Series named by labels (OTLP attributes, Prometheus labels): their keys, and points as rows."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import NamedTuple

import numpy as np
import polars as pl
from numpy.typing import NDArray

from connectors.codecs.fields import BAD_TIME, FieldMap, plausible
from connectors.codecs.rows import (
    CUT_KEY_BYTES,
    MAX_TAG_BYTES,
    Candidates,
    Explain,
    cut_text,
    empty,
    finish,
    settle,
    spread,
)
from streamad.errors import ConfigError
from streamad.names import join_key
from streamad.records import Decoded, Rejected
from streamad.windows.kinds import KIND_TAG, KINDS

GAUGE: str
COUNTER: str
DELTA: str
GAUGE, COUNTER, DELTA = KINDS
DEFAULT_KEY = FieldMap().key

MAX_LABELS = 1_000
"""A series with more labels is not named: its points are rejected."""

MAX_REMEMBERED_BYTES = 128 * 1_048_576
"""What a codec keeps of the series it has named; then it forgets all, and names them once more."""

REMEMBERED_BYTES = 500
"""What one remembered series takes beside its texts."""

ESCAPES = str.maketrans({"\\": r"\\", '"': r"\"", "\n": r"\n"})


@dataclass(frozen=True, slots=True)
class Identity:
    """What all points of a series share; key and variate are None where a label is absent.

    wanted : whether its labels meet ``fields.where``
    """

    key: str | None
    variate: str | None
    kind: str
    tags: tuple[str, ...]
    wanted: bool = True


def canonical(name: str, labels: Iterable[tuple[str, str]]) -> str:
    r"""Return the one spelling of a series' name: labels sorted, quotes escaped.

    >>> canonical("up", [("job", "api"), ("host", 'a"b')])
    'up{host="a\\"b",job="api"}'
    """
    inside = ",".join(f'{label}="{text.translate(ESCAPES)}"' for label, text in sorted(labels))
    return f"{name}{{{inside}}}" if inside else name


def identify(
    fields: FieldMap, default: str, labels: Callable[[str], str | None], kind: str
) -> Identity:
    """Name a series by the labels that ``fields`` asks for, or by ``default``.

    Texts are cut, as they stand in every row of the series; a key that is too long stays so.
    """
    key: str | None = default
    if fields.key != DEFAULT_KEY:
        texts = [labels(name) for name in fields.key]
        key = None if None in texts else join_key(text or "" for text in texts)
    variate = None if fields.variate is None else labels(fields.variate)
    return Identity(
        None if key is None else cut_text(key, CUT_KEY_BYTES),
        None if variate is None else cut_text(variate, CUT_KEY_BYTES),
        kind,
        tuple(cut_text(labels(tag) or "", MAX_TAG_BYTES) for tag in fields.tags),
        all(fnmatchcase(labels(name) or "", pattern) for name, pattern in fields.where),
    )


def nameless(fields: FieldMap, kind: str) -> Identity:
    """Return the identity of a series whose labels cannot be read."""
    return Identity(None, None, kind, ("",) * len(fields.tags))


def size_of(identity: Identity) -> int:
    """Return about how many bytes a remembered identity takes."""
    texts = (identity.key or "", identity.variate or "", *identity.tags)
    return REMEMBERED_BYTES + sum(map(len, texts))


def require_labels(codec: str, fields: FieldMap) -> None:
    """Refuse fields that make no sense where a point has exactly one value."""
    if len(fields.values) > 1:
        msg = (
            f"codec {codec}: a point has one value; to line several metrics up as variates set "
            "fields.variate (the label that names the metric) and fields.variates"
        )
        raise ConfigError(msg)


class Point(NamedTuple):
    """One value of a series; ``message`` and ``row`` say where it stood."""

    message: int
    row: int
    series: Identity
    time_ms: int
    value: float


@dataclass(slots=True)
class Points:
    """Points in message order, as they are collected (as tuples: thousands a message)."""

    fields: FieldMap
    taken: list[tuple[int, int, Identity, int, float]] = field(default_factory=list)
    rejected: list[Rejected] = field(default_factory=list)

    def __getitem__(self, index: int) -> Point:
        return Point(*self.taken[index])

    def decoded(
        self, offsets: NDArray[np.int64], broker_ms: NDArray[np.int64], explain: Explain
    ) -> Decoded:
        """Check the points and make the batch."""
        candidates = self._candidates()
        rows, rejected = settle(candidates, explain)
        rejected = self.rejected + rejected
        return finish(rows, rejected, self.fields, offsets=offsets, broker_ms=broker_ms)

    def _candidates(self) -> Candidates:
        fields = self.fields
        if not self.taken:
            return empty((*fields.tags, KIND_TAG), len(fields.variate_names), fields)
        message, row, series, times, numbers = zip(*self.taken, strict=True)
        time_ms = np.array(times, np.int64)
        value = np.array(numbers, np.float64)
        tags = {
            name: [identity.tags[index] for identity in series]
            for index, name in enumerate(fields.tags)
        }
        tags[KIND_TAG] = [identity.kind for identity in series]
        rows = Candidates(
            keys=pl.Series("key", [identity.key for identity in series], dtype=pl.String),
            time_ms=np.where(plausible(time_ms), time_ms, BAD_TIME),
            values=value.reshape(-1, 1),
            message=np.array(message, np.int32),
            row=np.array(row, np.int32),
            tags={name: pl.Series(name, column, dtype=pl.String) for name, column in tags.items()},
        )
        if fields.where:
            rows.mark(np.array([not identity.wanted for identity in series]), "not_wanted")
        if fields.variate is not None:
            variates = pl.Series([identity.variate for identity in series], dtype=pl.String)
            spread(rows, value, variates, fields.variates)
            # Said here, because a row of a variate alone no longer shows that its value is NaN.
            rows.mark(np.isnan(value), "not_finite")
        return rows


def bounded_ms(time_ms: int) -> int:
    """Return a time that fits 64 bits, ``BAD_TIME`` for others."""
    return time_ms if 0 <= time_ms < 2**62 else int(BAD_TIME)


def lookup(*tables: Mapping[str, str]) -> Callable[[str], str | None]:
    """Return a function that looks a label up in the first table that has it."""

    def find(name: str) -> str | None:
        for table in tables:
            if name in table:
                return table[name]
        return None

    return find
