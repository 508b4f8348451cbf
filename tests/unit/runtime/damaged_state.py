"""Change one number of a saved state after the other, restore it, and go on; see the test.

Without a compiler (``NUMBA_DISABLE_JIT=1``) an index out of bounds raises instead of reading, or
ending, whatever lies there.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from jobs.build import build_detect
from jobs.plain.loops import codec_of
from streamad.config import PipelineConfig
from streamad.errors import StateError
from streamad.runtime import snapshots

BEGIN_MS = 1_700_000_000_000


def pipeline(detector: str, series: dict[str, Any]) -> PipelineConfig:
    tree = {
        "name": "p",
        "input": {"topics": "in"},
        "detector": detector,
        "windows": {"size": 16},
        "series": series,
        "scoring": {"candidate": 0.01, "exit": 0.05, "cool_down": 3},
    }
    return PipelineConfig.model_validate(tree)


def rows(config: PipelineConfig, times: range, keys: str) -> Any:
    rng = np.random.default_rng(times.start)
    lines = [
        json.dumps({"key": key, "ts": BEGIN_MS + 1000 * t, "value": 30.0 * (t % 41 == 0) + noise})
        for t in times
        for key, noise in zip(keys, rng.normal(size=len(keys)).tolist(), strict=True)
    ]
    made = codec_of(config).decode(
        ["\n".join(lines).encode()], np.array([times.start]), np.array([BEGIN_MS + 10**6])
    )
    assert not made.rejected
    return made.batch


def extremes(array: NDArray[Any]) -> list[int]:
    info = np.iinfo(array.dtype)
    return sorted({v for v in (info.min, -1, 2, 10**6, info.max) if info.min <= v <= info.max})


def damaged(
    arrays: dict[str, NDArray[Any]], parts: tuple[str, ...]
) -> Iterator[tuple[str, dict[str, NDArray[Any]]]]:
    for name, array in arrays.items():
        flat = array.reshape(len(array), -1) if array.size else array
        if array.dtype.kind not in "iu" or not array.size or not name.startswith(parts):
            continue
        width = flat.shape[1]
        for column in {0, width // 2, width - 1} | set(range(min(20, width))):
            for value in extremes(array):
                changed = {other: kept.copy() for other, kept in arrays.items()}
                changed[name].reshape(len(array), -1)[0, column] = value
                yield f"{name}[0, {column}] = {value}", changed


def main(detector: str) -> int:
    n, n_refused = 0, 0
    # Of the others only what they add: their kernels are slow where they are not compiled.
    parts = ("",) if detector == "robust_z" else ("memory.",)
    for series in ({}, {"step": "1s", "lateness": "3s"}):
        config = pipeline(detector, series)
        operator = build_detect(config)
        state = operator.new_state()
        operator.process(state, rows(config, range(120), "ab"))
        operator.process(state, rows(config, range(120, 124), "abc"))  # `c` waits for a window
        header, names, arrays = state.save(operator.identity)
        assert len(arrays["waiting.n_rows"]) == 1
        more = rows(config, range(124, 150 if detector == "robust_z" else 128), "abc")
        for what, changed in damaged(arrays, parts):
            n += 1
            again = operator.new_state()
            try:
                again.restore(header, names, changed, identity=operator.identity)
            except StateError:
                n_refused += 1
                continue
            except snapshots.DAMAGE:  # `snapshots.restore` tells it as a StateError
                n_refused += 1
                continue
            try:
                operator.process(again, more)
                operator.tick(again, BEGIN_MS + 400_000)
                again.save(operator.identity)
            except Exception as error:
                raise AssertionError(what) from error
    sys.stdout.write(f"{detector}: {n} changes, {n_refused} refused\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
