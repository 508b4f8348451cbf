"""Calibration and episodes of many keys, one strictly sequential pass over scored windows.

Decisions compare scores with stored levels; probabilities are output only. What is being alerted
on is not learned as normal: inside an episode a score enters its key's tail *censored* at the entry
level (it was above, no more), or the level would fall behind its own exclusions. After
``adopt_after`` windows a lasting new level is normal, and said to be.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numba import njit
from numpy.typing import NDArray

from streamad.scoring.tail import PRIOR_WINDOWS, TOP, fit_tail, level_at, p_value, prior_scores
from streamad.windows.arrays import KeyedArrays

NOTHING, BEGAN, CONTINUES, ENDED, ADOPTED = range(5)
"""What a window means for its key's episode."""

_REFIT_EVERY = 128
_U_FLOOR, _SIGMA_FLOOR = 0.25, 0.25
_RAISED = np.float32(1.1)
"""An episode reports again when its peak has grown by this factor."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EpisodePlan:
    """When an episode begins, goes on and ends; counts are windows of the key."""

    candidate: float = 1e-3
    exit: float = 1e-2
    min_windows: int = 32
    min_duration: int = 1
    cool_down: int = 5
    adopt_after: int = 2_000
    epoch: int = 1_024
    update_every: int = 60


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
                # peak, its p, the peak last reported; the least score this epoch keeps
                "peaks": ((4,), np.float32, 0.0),
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
        self.state["counts"][rows, 6] = np.array(turns, np.int64) % _REFIT_EVERY
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
        _judge(
            codes, scores, end_ms, suppressed, settings,
            np.array([plan.candidate, plan.exit], np.float64), self._floors,
            s["count"], s["counts"], s["tops"], s["tail"], s["levels"], s["episode"], s["times"],
            s["peaks"],
            made.event, made.p_value, made.level, made.candidate, made.inside, made.opened_ms,
            made.began_ms, made.sequence, made.n_windows, made.peak, made.peak_p,
        )  # fmt: skip
        return made


# One function on purpose, as in windows/signals.py: helpers with twenty arrays cost more than they do.
@njit(cache=True)
def _judge(  # type: ignore[no-untyped-def]  # noqa: PLR0912, PLR0913, PLR0915, C901
    codes, scores, end_ms, suppressed, settings, probabilities, floors,
    count, counts, tops, tail, levels, episode, times, peaks,
    event, p_out, level_out, candidate, inside, opened_ms, began_ms, sequence, n_windows, peak,
    peak_p,
):  # fmt: skip
    min_windows, min_duration, cool_down = settings[0], settings[1], settings[2]
    adopt_after, epoch, update_every = settings[3], settings[4], settings[5]
    merged = np.empty(2 * TOP, np.float32)
    for i in range(len(codes)):
        k = codes[i]
        s = scores[i]
        entry, leave = levels[k, 0], levels[k, 1]
        p = p_value(float(s), tail[k, 0], tail[k, 1], tail[k, 2], tail[k, 3])
        p_out[i] = p
        level_out[i] = entry
        above = s >= entry and not suppressed[i]
        candidate[i] = above
        was_open = episode[k, 0] == 1

        # The episode: opens after min_duration above the entry level, ends after cool_down below exit.
        if not was_open:
            if above and count[k] >= min_windows:
                if episode[k, 1] == 0:
                    times[k, 1] = end_ms[i]
                    peaks[k, 0] = s
                    peaks[k, 1] = p
                episode[k, 1] += 1
                if s > peaks[k, 0]:
                    peaks[k, 0] = s
                    peaks[k, 1] = p
                if episode[k, 1] >= min_duration:
                    event[i] = BEGAN
                    times[k, 0] = end_ms[i]
                    episode[k, 0] = 1
                    episode[k, 2] = 0
                    episode[k, 3] = episode[k, 1]
                    episode[k, 4] = 0
                    episode[k, 5] = 0
                    peaks[k, 2] = peaks[k, 0]
                    counts[k, 2] = 0
                    counts[k, 5] = 0
            else:
                episode[k, 1] = 0
        else:
            episode[k, 3] += 1
            episode[k, 5] += 1
            if s > peaks[k, 0] and not suppressed[i]:
                peaks[k, 0] = s
                peaks[k, 1] = p
            if s < leave or suppressed[i]:
                episode[k, 2] += 1
            else:
                episode[k, 2] = 0
            if episode[k, 2] >= cool_down:
                event[i] = ENDED
            elif episode[k, 3] >= adopt_after:
                event[i] = ADOPTED
            elif peaks[k, 0] > peaks[k, 2] * _RAISED or episode[k, 5] >= update_every:
                event[i] = CONTINUES
                episode[k, 5] = 0
                peaks[k, 2] = peaks[k, 0]
            if event[i] != NOTHING:
                episode[k, 4] += 1
        inside[i] = episode[k, 0] == 1
        if event[i] != NOTHING:
            opened_ms[i] = times[k, 0]
            began_ms[i] = times[k, 1]
            sequence[i] = episode[k, 4]
            n_windows[i] = episode[k, 3]
            peak[i] = peaks[k, 0]
            peak_p[i] = peaks[k, 1]
        if event[i] >= ENDED:
            episode[k, 0] = 0
            episode[k, 1] = 0

        # The tail: this epoch takes the score, censored inside an episode; the shadow takes it as is.
        count[k] += 1
        taken = s
        if inside[i]:
            taken = min(s, entry)
            for which in range(0, 3, 2):
                x = taken if which == 0 else s
                kept = counts[k, 3 + which]
                counts[k, which] += 1
                if kept < TOP:
                    tops[k, which, kept] = x
                    counts[k, 3 + which] = kept + 1
                else:
                    low = 0
                    for q in range(1, TOP):
                        if tops[k, which, q] < tops[k, which, low]:
                            low = q
                    if x > tops[k, which, low]:
                        tops[k, which, low] = x
            # Only the branch below keeps the least score current; one too low is merely slower.
            peaks[k, 3] = -3e38
        else:
            kept = counts[k, 3]
            counts[k, 0] += 1
            if kept < TOP:
                tops[k, 0, kept] = taken
                counts[k, 3] = kept + 1
                peaks[k, 3] = taken if kept == 0 else min(peaks[k, 3], taken)
            elif taken > peaks[k, 3]:
                low = 0
                for q in range(1, TOP):
                    if tops[k, 0, q] < tops[k, 0, low]:
                        low = q
                tops[k, 0, low] = taken
                least = taken
                for q in range(TOP):
                    least = min(least, tops[k, 0, q])
                peaks[k, 3] = least

        adopted = event[i] == ADOPTED
        if adopted:  # the lasting level is the new normal: the shadow becomes the history
            for q in range(counts[k, 5]):
                tops[k, 1, q] = tops[k, 2, q]
            counts[k, 1] = counts[k, 2]
            counts[k, 4] = counts[k, 5]
            counts[k, 0] = 0
            counts[k, 3] = 0
        elif counts[k, 0] >= epoch:
            for q in range(counts[k, 3]):
                tops[k, 1, q] = tops[k, 0, q]
            counts[k, 1] = counts[k, 0]
            counts[k, 4] = counts[k, 3]
            counts[k, 0] = 0
            counts[k, 3] = 0

        # Refits at fixed counts of the key's own windows, each key in its own turn.
        due = (count[k] + counts[k, 6]) % _REFIT_EVERY == 0 or count[k] == 32 or count[k] == 64
        if due or adopted:
            n = 0
            for which in range(2):
                for q in range(counts[k, 3 + which]):
                    merged[n] = tops[k, which, q]
                    n += 1
            keep = min(n, TOP)
            # The largest TOP of both epochs, by selection: n is at most 64.
            for a in range(keep):
                best = a
                for b in range(a + 1, n):
                    if merged[b] > merged[best]:
                        best = b
                merged[a], merged[best] = merged[best], merged[a]
            fit_tail(
                merged[:keep], float(counts[k, 0] + counts[k, 1]), floors[0], floors[1], tail[k]
            )
            levels[k, 0] = level_at(probabilities[0], tail[k, 0], tail[k, 1], tail[k, 2], tail[k, 3])
            levels[k, 1] = level_at(probabilities[1], tail[k, 0], tail[k, 1], tail[k, 2], tail[k, 3])
