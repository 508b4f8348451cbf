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
        self._looks = np.empty((0, 2), np.float32)
        if not batches:
            return
        keys = pl.concat([batch.keys for batch in batches])
        end_ms = np.concatenate([batch.end_ms for batch in batches])
        ordinal = np.concatenate([batch.ordinal for batch in batches])
        first, second = _hashes(keys, end_ms, ordinal)
        order = np.argsort(first, kind="stable")
        looks = np.stack(
            [
                np.concatenate([batch.score for batch in batches]),
                np.concatenate([batch.newest for batch in batches]),
            ],
            axis=1,
        )[order]
        self._first, self._second = first[order], second[order]
        twice = np.zeros(len(order), np.bool_)
        twice[1:] = self._first[1:] == self._first[:-1]
        twice[:-1] |= twice[1:]
        looks[twice] = np.nan
        self._looks = looks

    def __len__(self) -> int:
        return len(self._looks)

    def lookup(
        self, keys: pl.Series, end_ms: NDArray[np.int64], ordinal: NDArray[np.int64]
    ) -> NDArray[np.float32]:
        """Return both looks of each window as logged ``(n, 2)``, NaN where none was."""
        if not len(self._looks):
            return np.full((len(end_ms), 2), np.nan, np.float32)
        first, second = _hashes(keys, end_ms, ordinal)
        at = np.minimum(np.searchsorted(self._first, first), len(self._first) - 1)
        found = (self._first[at] == first) & (self._second[at] == second)
        return np.where(found[:, None], self._looks[at], np.float32(np.nan))


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
