"""Arrays whose first axis is the key: they grow, empty, leave and come back together."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

NEVER = np.int64(-(2**62))
"""A time before all times: no clock has been set yet."""
MAX_COUNT = 2**53
"""No count of rows comes to more."""


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
            # Twice the room: it is only addresses until a row is written, and copying stays cheap.
            self._size = max(n, 2 * self._size, 256)
            for name, (shape, dtype, _) in self._spec.items():
                grown = np.empty((self._size, *shape), dtype)
                grown[: self._n] = self.arrays[name][: self._n]
                self.arrays[name] = grown
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
