"""Names of nodes as numbers: the same name has the same one in every process and version."""

from __future__ import annotations

from typing import TypeVar

import numpy as np
import polars as pl
from numpy.typing import NDArray

from streamad.graphs.kernels import Hashes, hash_names

Scalar = TypeVar("Scalar", bound=np.generic)


def buffers_of(names: pl.Series) -> tuple[NDArray[np.int64], NDArray[np.uint8]]:
    """Return names as bytes: offsets int64 ``(n + 1,)`` and UTF-8 data; a null is an empty name."""
    if names.null_count():
        names = names.fill_null("")
    array = names.to_arrow(compat_level=pl.CompatLevel.oldest())
    n = len(array)
    if n == 0:
        return read_only(np.zeros(1, np.int64)), read_only(np.zeros(0, np.uint8))
    _, offsets, data = array.buffers()
    ends = np.frombuffer(offsets, np.int64)[array.offset : array.offset + n + 1]
    letters = np.zeros(0, np.uint8) if data is None else np.frombuffer(data, np.uint8)
    return read_only(ends), read_only(letters)


def read_only(array: NDArray[Scalar]) -> NDArray[Scalar]:
    """Return an array as kernels take all their input, in one piece and not to be written.

    A kernel is compiled anew for every layout it meets, which takes seconds.
    """
    fixed = np.ascontiguousarray(array).view()
    fixed.flags.writeable = False
    return fixed


def hashes_of(names: pl.Series) -> Hashes:
    """Return a stable hash of each name, uint64 ``(n,)``: FNV-1a over UTF-8, mixed.

    Examples
    --------
    >>> int(hashes_of(pl.Series(["web-1"]))[0])
    17687519785067183837
    """
    return hash_names(*buffers_of(names))
