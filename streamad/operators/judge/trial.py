"""Whether a new artifact can judge what comes, before it does."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from streamad.detectors.contract import ItemDetector, Memory
from streamad.operators.judge.looks import NOT_FINITE

MOST_TRIED = 256
"""Items a new artifact is tried on."""


class Trial:
    """Whether a detector of another artifact can judge what comes: tried beside the one at work.

    result : None as long as nothing came; "": it can; else why not
    """

    def __init__(self, detector: ItemDetector[Any]) -> None:
        self._detector = detector
        self.result: str | None = None

    def run(self, values: Any, memory: Memory | None, slots: NDArray[np.int32]) -> None:
        """Score some items that were just judged; nothing is learned."""
        few = slice(0, MOST_TRIED)
        try:
            items = self._detector.prepared(values[few])
            looks = self._detector.looks(items, memory=memory, slots=slots[few])
        except Exception as error:  # noqa: BLE001 - a plug-in may fail in any way
            self.result = f"it fails on what comes: {type(error).__name__}: {error}"
            return
        info = self._detector.info
        expected = (len(slots[few]), info.n_looks + info.certain)
        if looks.shape != expected:
            self.result = f"its scores have the shape {looks.shape}, expected {expected}"
        elif not np.isfinite(looks).all():
            self.result = NOT_FINITE
        else:
            self.result = ""
