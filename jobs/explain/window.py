"""One window of a key as the scores log has it, and those about it."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np

from streamad.errors import StreamadError, nearest
from streamad.records import (
    FLAG_CANDIDATE,
    FLAG_ERROR,
    FLAG_INCOMPLETE,
    FLAG_WARMING,
    ScoreBatch,
)

AROUND = 30
"""Windows shown on either side of the one asked for."""

MAX_KEYS_NAMED = 5

Look = Literal["centred", "newest", "frozen", ""]


class NoSuchWindowError(StreamadError):
    """The log holds no window of that key; the message offers the nearest."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Around:
    """The windows about the one asked for, by the look that decided it; NaN: not scored."""

    end_ms: tuple[int, ...]
    score: tuple[float, ...]
    level: tuple[float, ...]
    place: int


@dataclass(frozen=True, slots=True)
class Window:
    """One row of the log."""

    end_ms: int
    score: float
    level: float
    p_value: float
    newest: float
    newest_level: float
    newest_p: float
    severity: float
    flags: int

    def has(self, flag: int) -> bool:
        """Return whether the window has a flag."""
        return bool(self.flags & flag)

    @property
    def has_newest(self) -> bool:
        """Return whether the detector has a look at the newest samples."""
        return not math.isnan(self.newest) and not math.isnan(self.newest_level)

    @property
    def decided_by(self) -> Look:
        """Return the look that decided.

        That is the one furthest beyond its level; the centred one is not evidence where it reached
        its level and the window is no candidate. A candidate below both levels stood still.
        """
        if math.isnan(self.score):
            return ""
        centred = self.score >= self.level
        newest = self.has_newest and self.newest >= self.newest_level
        if self.has(FLAG_CANDIDATE) and not centred and not newest:
            return "frozen"
        if not self.has_newest or centred != newest:
            return "newest" if newest else "centred"
        return "newest" if self.newest * self.level > self.score * self.newest_level else "centred"


def rows_of(scores: ScoreBatch, key: str) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    """Return the rows of a key in the order of its windows, each window once, its newest row."""
    rows = np.flatnonzero((scores.keys == key).to_numpy())
    if not len(rows):
        raise NoSuchWindowError(_no_key(key, scores))
    # From the back, so that of a window logged twice the later row stays.
    windows = np.column_stack([scores.end_ms[rows], scores.ordinal[rows]])
    _, last = np.unique(windows[::-1], axis=0, return_index=True)
    return rows[::-1][last]


def window_in(scores: ScoreBatch, row: int) -> Window:
    """Return a row of the log."""
    return Window(
        int(scores.end_ms[row]),
        float(scores.score[row]),
        float(scores.level[row]),
        float(scores.p_value[row]),
        float(scores.newest[row]),
        float(scores.newest_level[row]),
        float(scores.newest_p[row]),
        float(scores.severity[row]),
        int(scores.flags[row]),
    )


def around(
    scores: ScoreBatch,
    rows: np.ndarray[tuple[int], np.dtype[np.int64]],
    place: int,
    *,
    look: Look,
) -> Around:
    """Return the windows about the one at a place, by one look."""
    newest = look == "newest"
    score, level = (scores.newest, scores.newest_level) if newest else (scores.score, scores.level)
    start = max(0, place - AROUND)
    near = rows[start : place + AROUND + 1]
    return Around(
        end_ms=tuple(scores.end_ms[near].tolist()),
        score=tuple(score[near].astype(float).tolist()),
        level=tuple(level[near].astype(float).tolist()),
        place=place - start,
    )


def candidates_in_a_row(flags: np.ndarray[tuple[int], np.dtype[np.uint8]], place: int) -> int:
    """Count the candidates that end with this window; windows not scored do not break the row."""
    run = 0
    for flag in flags[: place + 1][::-1].tolist():
        if flag & (FLAG_INCOMPLETE | FLAG_WARMING | FLAG_ERROR):
            continue
        if not flag & FLAG_CANDIDATE:
            break
        run += 1
    return run


def _no_key(key: str, scores: ScoreBatch) -> str:
    known = scores.keys.unique().drop_nulls().sort().to_list()
    if not known:
        return "the scores log has no window at that time; check the topic, the file and the time"
    near = nearest(key, known)
    some = ", ".join(known[:MAX_KEYS_NAMED]) + (", ..." if len(known) > MAX_KEYS_NAMED else "")
    hint = f"did you mean {near!r}?" if near else f"its keys are {some}"
    return f"the scores log has no window of {key!r} around that time; {hint}"
