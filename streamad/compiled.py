"""One decorator for compiled kernels, so that all of them keep the same rules."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar, cast

import numba

Kernel = TypeVar("Kernel", bound=Callable[..., object])


def compiled(function: Kernel) -> Kernel:
    """Compile a kernel once per machine, strictly in the order of operations it is written in.

    No ``fastmath``: it reorders sums, and scores would then depend on how batches are cut.
    """
    return cast("Kernel", numba.njit(cache=True, nogil=True, error_model="numpy")(function))
