"""Calibration and episodes of many keys, one strictly sequential pass over scored windows.

Decisions compare scores with stored levels; probabilities are output only. What is being alerted
on is not learned as normal: inside an episode a score enters its key's tail *censored* at the entry
level (it was above, no more), or the level would fall behind its own exclusions. After
``adopt_after`` windows a lasting new level is normal, and said to be.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from streamad.scoring.kernels import REFIT_EVERY, judge_windows
from streamad.scoring.tail import PRIOR_WINDOWS, TOP, fit_tail, level_at, prior_scores
from streamad.windows.arrays import KeyedArrays

_U_FLOOR, _SIGMA_FLOOR = 0.25, 0.25


@dataclass(frozen=True, slots=True, kw_only=True)
class EpisodePlan:
    """When an episode begins, goes on and ends; counts are windows of the key.

    notable : tail probability whose first crossing in an episode is told at once, because the
        alert stage acts on it
    """

    candidate: float = 1e-3
    exit: float = 1e-2
    min_windows: int = 32
    min_duration: int = 1
    cool_down: int = 5
    adopt_after: int = 2_000
    epoch: int = 1_024
    update_every: int = 60
    notable: float = 1e-4


@dataclass(frozen=True, slots=True)
class Judgement:
    """What became of each window, arrays ``(n,)``.

    event : uint8, one of `NOTHING` to `ADOPTED`; p_value, level : float32; candidate, inside : bool
    (at or above the entry level; in an open episode). For windows with an event also the episode's
    opening window, its sequence number, windows so far and peak.
    """

    event: NDArray[np.uint8]
    p_value: NDArray[np.float32]
    level: NDArray[np.float32]
    candidate: NDArray[np.bool_]
    inside: NDArray[np.bool_]
    opened_ms: NDArray[np.int64]
    began_ms: NDArray[np.int64]
    sequence: NDArray[np.int32]
    n_windows: NDArray[np.int32]
    peak: NDArray[np.float32]
    peak_p: NDArray[np.float32]


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenEpisode:
    """What is known of an episode that has not ended; ``sequence`` of its last finding."""

    opened_ms: int
    began_ms: int
    sequence: int
    n_windows: int
    peak: float
    peak_p: float


class Episodes:
    """The tail and the open episode of each key of one shard."""

    def __init__(self, plan: EpisodePlan, tail: tuple[float, ...]) -> None:
        self.plan = plan
        self._prior = prior_scores(tail)
        fitted = np.zeros(4, np.float64)
        fit_tail(self._prior, float(PRIOR_WINDOWS), 0.0, 1e-9, fitted)
        self._floors = np.array([fitted[0] * _U_FLOOR, fitted[1] * _SIGMA_FLOOR], np.float64)
        entry = np.float32(level_at(plan.candidate, *fitted))
        leave = np.float32(level_at(plan.exit, *fitted))
        self.state = KeyedArrays(
            {
                "count": ((), np.int64, 0),
                # n of this epoch, the one before, the open episode's shadow; then how many of each
                # are kept; then the key's own turn for refits.
                "counts": ((7,), np.int32, 0),
                "tops": ((3, TOP), np.float32, -1.0),
                "tail": ((4,), np.float64, 0.0),
                "levels": ((2,), np.float32, 0.0),
                # open, windows above in a row, below in a row, windows, sequence, since update
                "episode": ((6,), np.int32, 0),
                "times": ((3,), np.int64, 0),
                # peak and its p, the least score this epoch keeps, peak and p last reported
                "peaks": ((5,), np.float32, 0.0),
            }
        )
        self._cold = fitted, entry, leave

    def begin(self, codes: list[int], turns: list[int]) -> None:
        """Give new keys the default tail; ``turns`` (any stable number) spread their refits."""
        if not codes:
            return
        rows = np.array(codes, np.int32)
        self.state.reset(rows)
        fitted, entry, leave = self._cold
        self.state["tops"][rows, 1] = self._prior
        self.state["counts"][rows, 1] = PRIOR_WINDOWS
        self.state["counts"][rows, 4] = TOP
        self.state["counts"][rows, 6] = np.array(turns, np.int64) % REFIT_EVERY
        self.state["tail"][rows] = fitted
        self.state["levels"][rows] = (entry, leave)

    def seed(self, code: int, tail: tuple[float, ...]) -> None:
        """Start a key from a tail of its own, as an artifact holds for keys it was fitted on."""
        prior = prior_scores(tail)
        fitted = np.zeros(4, np.float64)
        fit_tail(prior, float(PRIOR_WINDOWS), self._floors[0], self._floors[1], fitted)
        self.state["tops"][code, 1] = prior
        self.state["tail"][code] = fitted
        self.state["levels"][code] = (
            level_at(self.plan.candidate, *fitted),
            level_at(self.plan.exit, *fitted),
        )

    def is_open(self, codes: NDArray[np.int32]) -> NDArray[np.bool_]:
        """Say which keys are in an episode."""
        return np.asarray(self.state["episode"][codes, 0] == 1)

    def open_episode(self, code: int) -> OpenEpisode:
        """Return the open episode of a key."""
        times, counts = self.state["times"][code], self.state["episode"][code]
        return OpenEpisode(
            opened_ms=int(times[0]),
            began_ms=int(times[1]),
            sequence=int(counts[4]),
            n_windows=int(counts[3]),
            peak=float(self.state["peaks"][code, 0]),
            peak_p=float(self.state["peaks"][code, 1]),
        )

    def judge(
        self,
        codes: NDArray[np.int32],
        scores: NDArray[np.float32],
        end_ms: NDArray[np.int64],
        suppressed: NDArray[np.bool_],
    ) -> Judgement:
        """Judge windows in the order their keys closed them; updates tails and episodes.

        suppressed : windows that do not matter (``direction``, ``min_effect``): never above a level
        """
        n, plan = len(codes), self.plan
        made = Judgement(
            np.zeros(n, np.uint8), np.ones(n, np.float32), np.zeros(n, np.float32),
            np.zeros(n, np.bool_), np.zeros(n, np.bool_), np.zeros(n, np.int64),
            np.zeros(n, np.int64), np.zeros(n, np.int32), np.zeros(n, np.int32),
            np.zeros(n, np.float32), np.ones(n, np.float32),
        )  # fmt: skip
        settings = np.array(
            [
                plan.min_windows, plan.min_duration, plan.cool_down, plan.adopt_after, plan.epoch,
                plan.update_every,
            ],
            np.int64,
        )  # fmt: skip
        s = self.state
        judge_windows(
            codes, scores, end_ms, suppressed, settings,
            np.array([plan.candidate, plan.exit, plan.notable], np.float64), self._floors,
            s["count"], s["counts"], s["tops"], s["tail"], s["levels"], s["episode"], s["times"],
            s["peaks"],
            made.event, made.p_value, made.level, made.candidate, made.inside, made.opened_ms,
            made.began_ms, made.sequence, made.n_windows, made.peak, made.peak_p,
        )  # fmt: skip
        return made
