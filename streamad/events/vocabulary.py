"""The values each field has, as numbers: ids of texts, cells of numbers; bounded, whatever comes.

Ids of a field: 0 unknown (never seen; a number outside the range seen), 1 missing, then for texts
the buckets rare ones share and the frequent ones by their count; for numbers the cells.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Final, Self

import numpy as np
import polars as pl
from numpy.typing import NDArray

from streamad.errors import ArtifactError, TrainingError, WindowError
from streamad.events.kernels import build_table, encode_numbers, encode_texts
from streamad.events.rows import EventRows

Codes = NDArray[np.int32]
TextBytes = tuple[NDArray[np.uint8], NDArray[np.int64], NDArray[np.bool_]]
"""Texts one after the other, where each begins and ends ``(n + 1,)``, which are missing."""
UNKNOWN: Final = 0
MISSING: Final = 1
FIRST: Final = 2
MAX_FIELDS: Final = 256
MAX_BUCKETS: Final = 65_536
QUANTILES: Final = (0.001, 0.01, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.99, 0.999)
"""Where cells of numbers begin: deciles, and the tails, where strange ones are."""
HEAVY: Final = 0.1
"""A number that is this share of all has a cell of its own."""
FEW: Final = 16
"""So have all numbers of a field with no more different ones than this."""


@dataclass(frozen=True, slots=True, kw_only=True)
class VocabularySize:
    """The bounds of a vocabulary.

    min_count : rows a text needs for an id of its own; rarer ones share buckets
    max_values : ids of texts per field at the most; the rest shares buckets
    buckets : per field, by a stable hash of the text
    """

    min_count: int = 2
    max_values: int = 32_768
    buckets: int = 16

    def __post_init__(self) -> None:
        if min(self.min_count, self.max_values) < 1 or not 1 <= self.buckets <= MAX_BUCKETS:
            msg = (
                "min_count and max_values must be 1 or more and buckets in "
                f"1 .. {MAX_BUCKETS}, got {self.min_count}, {self.max_values}, {self.buckets}"
            )
            raise TrainingError(msg)


class Vocabulary:
    """Encode events to ids; see the module for what an id means.

    Attributes
    ----------
    names : fields, in order; numbers : bool ``(m,)``, which of them are numbers
    blob, ends : the texts of all fields, one after the other, uint8 and int64 ``(n_texts,)``
    n_texts, n_edges : int64 ``(m,)``; edges : float64, cells of numbers, one after the other
    counts : float64 ``(n_ids,)``, rows of training per id, fields one after the other. Unknown
        counts as often as there were texts seen once: that is how often a new one is due
        (Good-Turing).
    """

    def __init__(self, names: Sequence[str], state: dict[str, NDArray[Any]]) -> None:
        self.names = tuple(names)
        self.numbers = state["numbers"].astype(np.bool_)
        self.blob = _plain(state["blob"], np.uint8)
        self.ends = _plain(state["ends"], np.int64)
        self.n_texts = _plain(state["n_texts"], np.int64)
        self.edges = _plain(state["edges"], np.float64)
        self.n_edges = _plain(state["n_edges"], np.int64)
        self.counts = _plain(state["counts"], np.float64)
        self.buckets = int(state["buckets"][0])
        self._first_text = np.cumsum(self.n_texts) - self.n_texts
        self._first_edge = np.cumsum(self.n_edges) - self.n_edges
        cells = np.maximum(self.n_edges - 1, 0)
        texts = self.buckets + self.n_texts
        self.sizes: NDArray[np.int64] = FIRST + np.where(self.numbers, cells, texts)
        self.starts: NDArray[np.int64] = np.cumsum(self.sizes) - self.sizes

    @property
    def n_ids(self) -> int:
        """Return how many ids there are over all fields."""
        return int(self.sizes.sum())

    @property
    def due(self) -> NDArray[np.float64]:
        """Return per field the share of events in which a new value is due ``(m,)``."""
        total = np.add.reduceat(self.counts, self.starts)
        share: NDArray[np.float64] = self.counts[self.starts + UNKNOWN] / np.maximum(total, 1.0)
        return share

    @classmethod
    def fit(
        cls,
        items: EventRows,
        *,
        weights: NDArray[np.float64] | None = None,
        size: VocabularySize | None = None,
    ) -> Self:
        """Measure the fields of training events.

        weights : ``(n,)``, how often each row happened (None: once). Raises TrainingError where
        there is no row or no field.
        """
        bounds = VocabularySize() if size is None else size
        if len(items) == 0 or not 0 < len(items.names) <= MAX_FIELDS:
            msg = (
                f"a vocabulary is fitted on at least one event of 1 .. {MAX_FIELDS} fields, "
                f"got {len(items)} events of {len(items.names)} fields"
            )
            raise TrainingError(msg)
        mass = np.ones(len(items)) if weights is None else weights
        numbers = [items.fields[name].dtype.is_numeric() for name in items.names]
        texts, edges = [], []
        for name, number in zip(items.names, numbers, strict=True):
            column = items.fields[name]
            edges.append(_cells(as_numbers(column), mass) if number else np.zeros(0))
            texts.append([] if number else _frequent(column, mass, bounds))
        encoded = [text.encode() for own in texts for text in own]
        state: dict[str, NDArray[Any]] = {
            "numbers": np.array(numbers, np.uint8),
            "blob": np.frombuffer(b"".join(encoded), np.uint8).copy(),
            "ends": np.cumsum([len(one) for one in encoded], dtype=np.int64),
            "n_texts": np.array([len(own) for own in texts], np.int64),
            "edges": np.concatenate(edges),
            "n_edges": np.array([len(own) for own in edges], np.int64),
            "buckets": np.array([bounds.buckets], np.int64),
            "counts": np.zeros(0),
        }
        made = cls(items.names, state)
        made._count(items, mass)
        return made

    @cached_property
    def novelty(self) -> NDArray[np.float64]:
        """Return how strange a new value is by itself, per field ``(m,)``: ``-log10`` of `due`."""
        total = float(self.counts[self.starts[0] :][: self.sizes[0]].sum())
        made: NDArray[np.float64] = -np.log10(np.maximum(self.due, 0.5 / (total + 1.0)))
        return made

    def encode(self, items: EventRows, texts: Mapping[str, TextBytes] | None = None) -> Codes:
        """Return ids ``(n, m)``, int32, every one below ``sizes`` of its field.

        Fields are found by name. Raises WindowError where one is absent, or no longer the kind
        (text, number) it was in training. texts : of `texts_of`, where it is at hand
        """
        out = np.empty((len(items), len(self.names)), np.int32)
        for field, name in enumerate(self.names):
            if name not in items.fields.columns:
                msg = f"events have no field {name!r}; expected {', '.join(self.names)}"
                raise WindowError(msg)
            column = items.fields[name]
            if column.dtype == pl.Null:
                out[:, field] = MISSING
            elif column.dtype.is_numeric() != bool(self.numbers[field]):
                kind = "numbers" if self.numbers[field] else "texts"
                msg = f"field {name!r} held {kind} in training, and is {column.dtype} here"
                raise WindowError(msg)
            elif self.numbers[field]:
                encode_numbers(as_numbers(column), self._cells_of(field), out, field)
            else:
                known = None if texts is None else texts.get(name)
                self._encode_texts(bytes_of(column) if known is None else known, field, out)
        return out

    def cells(self, numbers: NDArray[np.float64], field: int) -> NDArray[np.int64]:
        """Return the ids of numbers of a field ``(n,)``."""
        out = np.empty((len(numbers), 1), np.int32)
        encode_numbers(numbers, self._cells_of(field), out, 0)
        return out[:, 0].astype(np.int64)

    @property
    def single(self) -> NDArray[np.bool_]:
        """Return which ids stand for one text or one cell, not for many texts ``(n_ids,)``."""
        made = np.ones(self.n_ids, np.bool_)
        for start, number in zip(self.starts, self.numbers, strict=True):
            made[start + UNKNOWN] = False
            if not number:
                made[start + FIRST : start + FIRST + self.buckets] = False
        return made

    def text_of(self, field: int, value: int) -> str:
        """Return an id in words: the text itself, or the range of a cell."""
        at = value - FIRST
        if value == UNKNOWN:
            return "a value not seen in training"
        if value == MISSING:
            return "missing"
        if self.numbers[field]:
            cells = self._cells_of(field)
            low, high = cells[at : at + 2]
            if high <= np.nextafter(low, np.inf):
                return f"{low:g}"
            after = at > 0 and low <= np.nextafter(cells[at - 1], np.inf)
            return f"over {cells[at - 1]:g} to {high:g}" if after else f"{low:g} to {high:g}"
        if at < self.buckets:
            return "a rare value"
        text = int(self._first_text[field]) + at - self.buckets
        start = int(self.ends[text - 1]) if text else 0
        return self.blob[start : int(self.ends[text])].tobytes().decode()

    def state(self) -> dict[str, NDArray[Any]]:
        """Return all of it as named arrays."""
        names = json.dumps(self.names, ensure_ascii=False).encode()
        return {
            "names": np.frombuffer(names, np.uint8).copy(),
            "numbers": self.numbers.astype(np.uint8),
            "blob": self.blob,
            "ends": self.ends,
            "n_texts": self.n_texts,
            "edges": self.edges,
            "n_edges": self.n_edges,
            "buckets": np.array([self.buckets], np.int64),
            "counts": self.counts,
        }

    @classmethod
    def from_state(cls, state: dict[str, NDArray[Any]]) -> Self:
        """Read back what `state` returned; ArtifactError where anything in it cannot be."""
        try:
            names = json.loads(state["names"].astype(np.uint8).tobytes().decode())
            problem = _problem(names, state)
            if problem:
                raise ArtifactError(problem)
            made = cls(names, state)
        except (KeyError, ValueError, RecursionError) as error:
            msg = f"the vocabulary is damaged ({type(error).__name__}); fit it again"
            raise ArtifactError(msg) from error
        if made.counts.shape != (made.n_ids,) or not (made.counts >= 0).all():
            msg = f"the vocabulary has {made.n_ids} ids and {len(made.counts)} counts; fit it again"
            raise ArtifactError(msg)
        return made

    @cached_property
    def _tables(self) -> list[Codes]:
        """Return per field a table from the hash of a text to its number, -1 where empty."""
        made = []
        for first, n in zip(self._first_text, self.n_texts, strict=True):
            table = np.full(1 << max(int(2 * n).bit_length(), 3), -1, np.int32)
            build_table(self.blob, self.ends, int(first), int(n), table)
            made.append(table)
        return made

    @cached_property
    def _occupied(self) -> list[NDArray[np.bool_]]:
        """Return per field which buckets held a training value: others hold unknown ones only."""
        return [self.counts[start + FIRST :][: self.buckets] > 0 for start in self.starts]

    def _cells_of(self, field: int) -> NDArray[np.float64]:
        first = int(self._first_edge[field])
        return self.edges[first : first + int(self.n_edges[field])]

    def _encode_texts(
        self,
        texts: TextBytes,
        field: int,
        out: Codes,
        occupied: NDArray[np.bool_] | None = None,
    ) -> None:
        data, offsets, missing = texts
        words = (self.blob, self.ends, int(self._first_text[field]), self._tables[field])
        filled = self._occupied[field] if occupied is None else occupied
        tail = (filled, FIRST, FIRST + self.buckets)
        encode_texts(data, offsets, missing, words, tail, out, field)

    def _count(self, items: EventRows, mass: NDArray[np.float64]) -> None:
        """Count the ids of training rows; unknown counts as what was seen once."""
        out = np.empty((len(items), len(self.names)), np.int32)
        counts = []
        for field, name in enumerate(self.names):
            column = items.fields[name]
            size, once = int(self.sizes[field]), 0.5
            if self.numbers[field]:
                encode_numbers(as_numbers(column), self._cells_of(field), out, field)
            else:
                self._encode_texts(bytes_of(column), field, out, np.ones(self.buckets, np.bool_))
                once = max(once, float((_counted(column, mass)["mass"] <= 1).sum()))
            own = np.bincount(out[:, field], weights=mass, minlength=size)
            own[UNKNOWN] = once
            counts.append(own)
        self.counts = np.concatenate(counts)


def _plain(array: NDArray[Any], dtype: Any) -> NDArray[Any]:
    return np.require(array, dtype=dtype, requirements=["C", "W"])


def as_numbers(column: pl.Series) -> NDArray[np.float64]:
    """Return a column as float64, NaN where missing."""
    numbers = column.cast(pl.Float64).fill_null(float("nan")).to_numpy()
    return _plain(numbers, np.float64)


def texts_of(items: EventRows) -> dict[str, TextBytes]:
    """Return the bytes of each field that holds texts, for those who read them several times."""
    return {
        name: bytes_of(items.fields[name])
        for name in items.names
        if items.fields[name].dtype == pl.String
    }


def bytes_of(column: pl.Series) -> TextBytes:
    """Return the bytes of texts, ``(n + 1,)`` offsets, and which are missing (empty: none)."""
    array = column.cast(pl.String).to_arrow()
    _, offsets, data = array.buffers()
    missing = column.is_null().to_numpy() if column.null_count() else np.zeros(0, np.bool_)
    at = np.frombuffer(offsets, np.int64)[array.offset : array.offset + len(column) + 1]
    text = np.zeros(0, np.uint8) if data is None else np.frombuffer(data, np.uint8)
    # Kernels are compiled for one kind of array: arrow's are read-only.
    return _plain(text, np.uint8), _plain(at, np.int64), _plain(missing, np.bool_)


def _counted(column: pl.Series, mass: NDArray[np.float64]) -> pl.DataFrame:
    """Return the texts of a field as ``value``, and how often each happened as ``mass``."""
    frame = pl.DataFrame({"value": column.cast(pl.String), "mass": mass}).drop_nulls("value")
    return frame.group_by("value").agg(pl.col("mass").sum())


def _frequent(column: pl.Series, mass: NDArray[np.float64], bounds: VocabularySize) -> list[str]:
    """Return texts with ids of their own: the most frequent first, equal ones by their bytes."""
    counted = _counted(column, mass).filter(pl.col("mass") >= bounds.min_count)
    ordered = counted.sort(["mass", "value"], descending=[True, False])
    return ordered["value"].head(bounds.max_values).to_list()


def _cells(numbers: NDArray[np.float64], mass: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return where the cells of a field's numbers begin, and where the last one ends.

    Quantiles, and a cell of its own for each frequent number; all numbers of a field with few.
    """
    known = np.isfinite(numbers)
    usable, own = numbers[known], mass[known]
    if len(usable) == 0:
        return np.zeros(0)
    values, of_value = np.unique(usable, return_inverse=True)
    counts = np.bincount(of_value, own)
    alone = values if len(values) <= FEW else values[counts >= HEAVY * own.sum()]
    at = np.searchsorted(np.cumsum(counts), np.array(QUANTILES) * own.sum())
    cut = values[np.minimum(at, len(values) - 1)]
    # Of the greatest number there is none beyond.
    with np.errstate(over="ignore"):
        after = np.nextafter(np.concatenate([alone, values[-1:]]), np.inf)
    begins = [values[:1], cut, alone, after[:-1]]
    last = after[-1:]
    made: NDArray[np.float64] = np.unique(np.concatenate([*begins, last]))
    return made


def _problem(names: Any, state: dict[str, NDArray[Any]]) -> str:
    """Return what is wrong with a state, or an empty text."""
    ends, n_texts = state["ends"], state["n_texts"]
    edges, n_edges = state["edges"], state["n_edges"]
    named = isinstance(names, list) and all(isinstance(name, str) for name in names)
    if not named or len(set(names)) != len(names) or not 0 < len(names) <= MAX_FIELDS:
        return "the vocabulary names no fields, or one of them twice; fit it again"
    flat = all(array.ndim == 1 for array in state.values())
    per_field = all(len(state[name]) == len(names) for name in ("numbers", "n_texts", "n_edges"))
    if not flat or not per_field or len(state["buckets"]) != 1:
        return f"the vocabulary does not fit its {len(names)} fields; fit it again"
    if not 1 <= int(state["buckets"][0]) <= MAX_BUCKETS:
        return f"the vocabulary must have 1 .. {MAX_BUCKETS} buckets; fit it again"
    rises = len(ends) == 0 or (ends[0] >= 0 and (np.diff(ends) >= 0).all())
    whole = (ends[-1] if len(ends) else 0) == len(state["blob"])
    sums = n_texts.sum() == len(ends) and n_edges.sum() == len(edges)
    if not rises or not whole or not sums or min(n_texts.min(), n_edges.min()) < 0:
        return "the vocabulary's texts do not end where they should; fit it again"
    first = np.cumsum(n_edges) - n_edges
    inner = np.setdiff1d(np.arange(1, len(edges)), first)
    if not np.isfinite(edges).all() or not (edges[inner] > edges[inner - 1]).all():
        return "the vocabulary's cells of numbers do not rise; fit it again"
    return ""
