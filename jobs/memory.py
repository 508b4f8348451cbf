"""How much memory a process may take, and what that leaves for the keys of a partition."""

from __future__ import annotations

import logging
import os
from pathlib import Path
from typing import NamedTuple

from streamad.config import PipelineConfig
from streamad.config.values import format_size

logger = logging.getLogger(__name__)

MEBIBYTE = 2**20
PROCESS_BYTES = 512 * MEBIBYTE
"""What a process takes beside the keys: libraries, kernels, messages that are being worked on."""
LEAST_BYTES = 16 * MEBIBYTE
"""Of a partition, however many there are."""

_CGROUP = Path("/sys/fs/cgroup")
_LIMITS = ("memory.max", "memory/memory.limit_in_bytes")
"""Of version 2 and 1 of control groups."""


class Limit(NamedTuple):
    """What a process may take: bytes, and whether they are its own (a container's limit)."""

    n_bytes: int
    own: bool


def limit_of_process(root: Path = _CGROUP) -> Limit:
    """Return the limit of this process's control group, else the memory of the machine."""
    physical = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    for name in _LIMITS:
        try:
            limit = int((root / name).read_text(encoding="ascii"))
        except (OSError, ValueError):
            continue  # another version, or "max": none is set
        if limit < physical:
            return Limit(limit, own=True)
    return Limit(physical, own=False)


def per_partition(limit: Limit, partitions: int, *, most: int) -> int:
    """Return the bytes for the keys of each partition, were one process to read them all.

    Of a limit of the process's own that is all but `PROCESS_BYTES`, of a machine's memory half of
    that; a quarter of the limit where that is more. When a partition is brought back, its snapshot
    is beside it: of memories of noise, which compress least, six tenths of it.

    Examples
    --------
    >>> [per_partition(Limit(2 * 2**30, own=True), n, most=2**32) // 2**20 for n in (1, 6)]
    [960, 232]
    """
    ours = max(limit.n_bytes - PROCESS_BYTES, limit.n_bytes // 4)
    if not limit.own:
        ours //= 2
    each = 10 * ours // (10 * max(partitions, 1) + 6) // MEBIBYTE * MEBIBYTE
    return min(max(each, LEAST_BYTES), most)


def bounded(config: PipelineConfig, partitions: int) -> PipelineConfig:
    """Return a pipeline with ``series.max_memory`` by what this process may take, if it is not set.

    partitions : of its input
    """
    series = config.series
    if "max_memory" in series.model_fields_set:
        return config
    limit = limit_of_process()
    each = per_partition(limit, partitions, most=series.max_memory)
    logger.info(
        "series.max_memory is not set: %s for the keys of each of %d partitions, of the %s of %s",
        format_size(each),
        partitions,
        format_size(limit.n_bytes // MEBIBYTE * MEBIBYTE),
        "this container" if limit.own else "this machine",
    )
    given = series.model_copy(update={"max_memory": each})
    return config.model_copy(update={"series": given})
