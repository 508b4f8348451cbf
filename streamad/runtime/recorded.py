"""What the scores log says of windows that were judged before: recovery reads it, not the model."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import polars as pl
from numpy.typing import NDArray

from streamad.records import ScoreBatch


class LoggedScores:
    """Scores by key, end of window and the window's ordinal.

    A window is known by 64 bits of hash and told from others by 64 more, so that no text is kept.
    Where the log holds two scores for one window, neither is used: the detector decides again.
    """

    def __init__(self, batches: Sequence[ScoreBatch]) -> None:
        batches = [batch for batch in batches if len(batch)]
        self._first = np.empty(0, np.uint64)
        self._second = np.empty(0, np.uint64)
        self._score = np.empty(0, np.float32)
        if not batches:
            return
        keys = pl.concat([batch.keys for batch in batches])
        end_ms = np.concatenate([batch.end_ms for batch in batches])
        ordinal = np.concatenate([batch.ordinal for batch in batches])
        first, second = _hashes(keys, end_ms, ordinal)
        order = np.argsort(first, kind="stable")
        score = np.concatenate([batch.score for batch in batches])[order]
        self._first, self._second = first[order], second[order]
        twice = np.zeros(len(order), np.bool_)
        twice[1:] = self._first[1:] == self._first[:-1]
        twice[:-1] |= twice[1:]
        score[twice] = np.nan
        self._score = score

    def __len__(self) -> int:
        return len(self._score)

    def lookup(
        self, keys: pl.Series, end_ms: NDArray[np.int64], ordinal: NDArray[np.int64]
    ) -> NDArray[np.float32]:
        """Return the logged score of each window, NaN where none was logged."""
        if not len(self._score):
            return np.full(len(end_ms), np.nan, np.float32)
        first, second = _hashes(keys, end_ms, ordinal)
        at = np.minimum(np.searchsorted(self._first, first), len(self._first) - 1)
        found = (self._first[at] == first) & (self._second[at] == second)
        return np.where(found, self._score[at], np.float32(np.nan))


def _hashes(
    keys: pl.Series, end_ms: NDArray[np.int64], ordinal: NDArray[np.int64]
) -> tuple[NDArray[np.uint64], NDArray[np.uint64]]:
    columns = (keys, pl.Series(end_ms), pl.Series(ordinal))
    made = []
    for seeds in ((1, 2, 5), (3, 4, 6)):
        a, b, c = (
            column.hash(seed=seed).to_numpy() for column, seed in zip(columns, seeds, strict=True)
        )
        made.append(a ^ b ^ c)
    return made[0], made[1]
