"""What each key does itself, in about 4 KB per key: values counted in a sketch that forgets.

A count sketch of two rows: a value's count is the lesser of its two cells, never too small. Events
count from the second multiple of `EVERY` after them, so that neither the cut of batches nor an
anomaly that has just begun matters.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Final

import numpy as np
import polars as pl
from numpy.typing import NDArray

from streamad.detectors.contract import Arrays, Floats, Ints
from streamad.detectors.events.kernels import judge_keys, learn_keys
from streamad.detectors.slots import SlotMemory
from streamad.errors import ArtifactError, WindowError
from streamad.events.kernels import hash_cells, hash_texts
from streamad.events.rows import EventRows
from streamad.events.vocabulary import TextBytes, Vocabulary, as_numbers, bytes_of

WIDTH: Final = 336
EVERY: Final = 256
N_HABITS: Final = 8
HALF_LIFE: Final = 16_384
"""Events of the key after which a count has halved."""
LEAST: Final = 128.0
"""Events a key needs before it is judged by its own."""

Hashes = NDArray[np.uint64]


class PeerMemory(SlotMemory):
    """Counts of the values of each key, decayed; one slot per key.

    Attributes
    ----------
    counts : float32 ``(n_slots, 2, WIDTH)``; totals : float32 ``(n_slots,)``, events counted
    habits : float32 ``(n_slots, m, N_HABITS)``: how often the key's values were how rare for it
    fresh, fresh_totals, fresh_habits : uint8 and uint16, the same of events that do not count yet:
        the newest, and those before them
    banned : uint8 ``(n_slots, 2, WIDTH)``, of events that were not admitted
    n_seen : int64 ``(n_slots,)``
    """

    names: ClassVar[tuple[str, ...]] = (
        "counts", "totals", "habits", "fresh", "fresh_totals", "fresh_habits", "banned", "n_seen",
    )  # fmt: skip

    def __init__(self, n_fields: int) -> None:
        self.n_fields = n_fields
        self.counts = np.zeros((0, 2, WIDTH), np.float32)
        self.totals = np.zeros(0, np.float32)
        self.habits = np.zeros((0, n_fields, N_HABITS), np.float32)
        self.fresh = np.zeros((0, 2, 2, WIDTH), np.uint8)
        self.fresh_totals = np.zeros((0, 2), np.uint16)
        self.fresh_habits = np.zeros((0, 2, n_fields, N_HABITS), np.uint16)
        self.banned = np.zeros((0, 2, WIDTH), np.uint8)
        self.n_seen = np.zeros(0, np.int64)

    @property
    def ranges(self) -> dict[str, tuple[int, int]]:
        """Return the least and the greatest value of arrays that kernels count with."""
        return {"n_seen": (0, 2**53)}

    def _check_fits(self, state: Arrays) -> None:
        for name, own in zip(self.names, self._arrays(), strict=True):
            if state[name].shape[1:] != own.shape[1:]:
                got, expected = state[name].shape[1:], own.shape[1:]
                msg = f"{name} of a memory has the shape {got} per key, expected {expected}"
                raise ArtifactError(msg)

    def judge(self, hashes: Hashes, slots: Ints, share: Floats) -> Floats:
        """Return how strange each value is for its key, and against its peers ``(n, m, 2)``.

        hashes : of `hashes_of` ``(n, m)``; share : of the population with the value ``(n, m)``, or
        ``(0, 0)``. In ``-log10`` of probabilities; 0 for keys with fewer than `LEAST` events.
        """
        self._check(hashes, slots)
        return judge_keys(hashes, _as_compiled(slots), _as_compiled(share), self._held(), LEAST)

    def learn(self, hashes: Hashes, slots: Ints, admit: NDArray[np.bool_]) -> None:
        """Count events just judged; each exactly once, a key's in order."""
        if len(slots):
            self.reserve(int(slots.max()) + 1)
        self._check(hashes, slots)
        learn_keys(
            hashes,
            _as_compiled(slots),
            _as_compiled(admit),
            self._held(),
            (self.fresh, self.fresh_totals, self.fresh_habits),
            self.banned,
            self.n_seen,
            (EVERY, 0.5 ** (EVERY / HALF_LIFE)),
        )

    def adopt(self, slots: Ints) -> None:
        """Count what was not admitted as if it had been, among the newest."""
        held = self.banned[slots]
        newest = self.fresh[slots, 0].astype(np.uint16) + held
        self.fresh[slots, 0] = np.minimum(newest, 255).astype(np.uint8)
        n_held = held[:, 0].sum(axis=1, dtype=np.int64) // max(self.n_fields, 1)
        total = np.minimum(self.fresh_totals[slots, 0] + n_held, 65_535)
        self.fresh_totals[slots, 0] = total.astype(np.uint16)
        self.banned[slots] = 0

    def settle(self) -> None:
        """Let all that waits count now: a training set has no newest events."""
        for line in (1, 0):
            self.counts += self.fresh[:, line]
            self.totals += self.fresh_totals[:, line]
            self.habits += self.fresh_habits[:, line]
        for array in (self.fresh, self.fresh_totals, self.fresh_habits, self.banned):
            array[:] = 0

    def _held(self) -> tuple[Floats, Floats, Floats]:
        return self.counts, self.totals, self.habits

    def _check(self, hashes: Hashes, slots: Ints) -> None:
        """Refuse what would make a kernel read or write outside its arrays."""
        if hashes.shape != (len(slots), self.n_fields):
            msg = (
                f"expected {len(slots)} events of {self.n_fields} fields, "
                f"got {hashes.shape[0]} of {hashes.shape[1]}"
            )
            raise WindowError(msg)
        if len(slots) and not 0 <= int(slots.min()) <= int(slots.max()) < len(self):
            msg = f"slots must lie in 0 .. {len(self) - 1}; reserve() more first"
            raise WindowError(msg)


def hashes_of(
    items: EventRows,
    vocabulary: Vocabulary | None = None,
    texts: Mapping[str, TextBytes] | None = None,
) -> Hashes:
    """Return a hash of every value ``(n, m)``, the same in every process.

    texts : of `streamad.events.vocabulary.texts_of`, where it is at hand

    Numbers are alike that share a cell of the vocabulary; without one those of one sign that are
    about a quarter or less apart.
    """
    out = np.empty((len(items), len(items.names)), np.uint64)
    for field, name in enumerate(items.names):
        column = items.fields[name]
        if column.dtype == pl.Null:
            column = column.cast(pl.String)
        if column.dtype.is_numeric():
            numbers = as_numbers(column)
            own = vocabulary is not None and bool(vocabulary.numbers[field])
            cells = vocabulary.cells(numbers, field) if own and vocabulary else _log_cells(numbers)
            hash_cells(cells, out, field)
        else:
            known = None if texts is None else texts.get(name)
            hash_texts(*(bytes_of(column) if known is None else known), out, field)
    return out


def _log_cells(numbers: NDArray[np.float64]) -> NDArray[np.int64]:
    """Return numbers by their magnitude, four steps per factor of two; missing ones are alike."""
    known = np.nan_to_num(numbers, nan=0.0, posinf=1e300, neginf=-1e300)
    mantissa, exponent = np.frexp(np.abs(known))
    cell = exponent.astype(np.int64) * 4 + np.floor(mantissa * 8).astype(np.int64) + (1 << 20)
    cell = np.where(known == 0, 0, np.where(known < 0, -cell, cell))
    return np.where(np.isnan(numbers), 1 << 40, cell).astype(np.int64)


def _as_compiled(array: NDArray[Any]) -> NDArray[Any]:
    """Return the array as kernels were compiled for, copied only where read-only or strided."""
    return np.require(array, requirements=["C", "W"])
