"""Arrays whose first axis is the key: they grow, empty, leave and come back together."""

from __future__ import annotations

from collections.abc import Iterable, MutableMapping
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

NEVER = np.int64(-(2**62))
"""A time before all times: no clock has been set yet."""
MAX_COUNT = 2**53
"""No count of rows comes to more."""


GROWTH = 8
"""Arrays grow by an eighth: rows that no key has yet cost no more than that share."""


def longer(held: int, wanted: int, least: int = 16) -> int:
    """Return how many rows to make room for where there is room for ``held`` of ``wanted``.

    Examples
    --------
    >>> longer(0, 1), longer(800, 801), longer(800, 2_000)
    (16, 900, 2000)
    """
    return max(wanted, held + held // GROWTH, least)


def lengthen(held: MutableMapping[str, Any], names: Iterable[str], n: int) -> None:
    """Make arrays ``n`` rows long, each by itself; new rows are zeros.

    A large array is lengthened where it lies: the allocator moves pages, not bytes, and there are
    never two copies. One that anybody else refers to is copied.
    """
    for name in names:
        array = held[name]
        held[name] = None
        if not array.size:
            # Zeros that come from the system take no memory until they are written.
            held[name] = np.zeros((n, *array.shape[1:]), array.dtype)
            continue
        try:
            array.resize((n, *array.shape[1:]))
        except ValueError:
            grown = np.zeros((n, *array.shape[1:]), array.dtype)
            grown[: len(array)] = array
            array = grown
        held[name] = array


class KeyedArrays:
    """Named arrays with one row a key. Rows of new and emptied keys hold the given fill.

    Arrays must be read anew after `reserve`, which may move them. They are longer than what was
    reserved: rows behind that hold anything.
    """

    def __init__(self, spec: dict[str, tuple[tuple[int, ...], DTypeLike, Any]]) -> None:
        self._spec = spec
        self._n = self._size = 0
        self.arrays: dict[str, NDArray[Any]] = {
            name: np.full((0, *shape), fill, dtype) for name, (shape, dtype, fill) in spec.items()
        }

    def __getitem__(self, name: str) -> NDArray[Any]:
        return self.arrays[name]

    def reserve(self, n: int) -> None:
        """Make room for rows ``0 .. n-1``."""
        if n <= self._n:
            return
        if n > self._size:
            self._size = longer(self._size, n, 256)
            lengthen(self.arrays, self._spec, self._size)
        for name, (_, _, fill) in self._spec.items():
            self.arrays[name][self._n : n] = fill
        self._n = n

    def reset(self, rows: NDArray[np.int32]) -> None:
        """Empty these rows."""
        for name, (_, _, fill) in self._spec.items():
            self.arrays[name][rows] = fill

    def state(self, rows: NDArray[np.int32]) -> dict[str, NDArray[Any]]:
        """Return copies of these rows."""
        return {name: array[rows] for name, array in self.arrays.items()}

    def load(self, rows: NDArray[np.int32], state: dict[str, NDArray[Any]]) -> None:
        """Take back what `state` returned, into these rows."""
        for name in self._spec:
            self.arrays[name][rows] = state[name]

    @property
    def bytes_per_row(self) -> int:
        """Return what one key costs."""
        return sum(
            int(np.prod(shape, dtype=np.int64)) * np.dtype(dtype).itemsize
            for shape, dtype, _ in self._spec.values()
        )
