"""Calibration and episodes of many keys, one strictly sequential pass over scored windows.

A window is seen by one or two *looks*: a centred one that ranks best and trails, and one at the
newest samples that is on time. Each look has a law of its own per key, of the maxima of blocks of
that key's history (`streamad.scoring.law`). Decisions compare scores with levels that are linear in
the law; probabilities are output.

What is learned, and when: a block's maximum once the block is over. Windows inside an episode never
update the law but for the one peak of the episode; suppressed windows (``direction``,
``min_effect``) never do. What recurs, by its rate or at its hour of the day or week, raises the law
(`streamad.scoring.block_kernels.refit`). After ``adopt_after`` a lasting level that several
messages showed is adopted.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from streamad.scoring.block_kernels import HOUR_MS, ITEM_MS
from streamad.scoring.kernels import ABOVE, BELOW, BY_NEWEST, OPEN, judge_windows
from streamad.scoring.law import CLUSTER_SHARE, box_cox, law_of_tail
from streamad.scoring.zone import offsets
from streamad.windows.arrays import KeyedArrays

ROOM = 336
"""Blocks of history per key and look: two weeks of hours."""
NO_SEED = -1
DEFAULT_PERIOD_MS = 5 * 86_400_000
"""Return period of the default alert level."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Level:
    """How rare is rare: a probability of a window, or a return period.

    probability : of an ordinary window (None: by ``period_ms``)
    period_ms : an ordinary series reaches the level about once in this time
    bounds : how often a block may reach the default level, at the least and at the most: within
        what a law of a few hundred blocks can say; other return periods are in proportion to it
    power : the level is reached as often as that to this power
    """

    probability: float | None = None
    period_ms: int = DEFAULT_PERIOD_MS
    bounds: tuple[float, float] = (2e-2, 1.2e-1)
    power: float = 1.0

    def row(self) -> list[float]:
        """Return the level as the kernel reads it."""
        low, high = (bound * DEFAULT_PERIOD_MS / self.period_ms for bound in self.bounds)
        return [self.probability or -1.0, float(self.period_ms), low, high, self.power]


@dataclass(frozen=True, slots=True, kw_only=True)
class EpisodePlan:
    """When an episode begins, continues and ends.

    candidate, exit, alert : levels; from ``alert`` on the alert stage acts, so the first window of
        an episode that crosses it is reported at once
    min_windows : windows of a key before one may open an episode
    min_duration, cool_down : consecutive windows it takes to open, to end
    adopt_ms : an episode that lasts so long (and four windows' lengths, and `ADOPT_MESSAGES`
        messages) is the new normal
    first_ms : time for which the centred look of a key without seeds only learns
    update_every : windows between two reports of an episode
    memory_ms : history a law is made of; more where blocks are longer than an hour
    power : of the Box-Cox transform of the centred score, see `streamad.scoring.law.box_cox`
    size, stride : of windows, in samples, and by what they move; window : samples that a window
        holds, where scores go together for fewer (``size``) of them
    step_ms : time between samples (0: measured per key)
    quiet_ms : an episode ends no sooner than so long after its last window that was not calm
    update_ms : time between two reports of an episode that does not grow
    smooth_delay : windows by which the look at the newest samples is delayed before it is evidence
        for the centred one
    learns : the detector keeps a memory, so that scores fall after an adoption
    """

    candidate: Level = Level()
    exit: Level = Level()
    alert: Level = Level()
    min_windows: int = 32
    min_duration: int = 1
    cool_down: int = 5
    adopt_ms: int = 86_400_000
    first_ms: int = 86_400_000
    update_every: int = 60
    memory_ms: int = 14 * 86_400_000
    size: int = 64
    window: int = 0
    stride: int = 1
    step_ms: int = 0
    quiet_ms: int = 0
    update_ms: int = 0
    smooth_delay: int = 0
    learns: bool = False
    power: float = 1.0
    zone: str = "UTC"


@dataclass(frozen=True, slots=True)
class Judgement:
    """What became of each window, arrays ``(n,)``.

    event : uint8, one of `NOTHING` to `ADOPTED`
    score, p_value, level : float32, of the centred look (transformed and smoothed), and its entry
        level
    newest_p, newest_level : float32, of the look at the newest samples; NaN where there is none
    severity : float32, of the window by the look that makes more of it: 1.0 at the alert level
    candidate, inside : bool (at or above an entry level; in an open episode)
    withheld : bool, at or above an entry level but suppressed: not learned as normal
    adopted : bool, from here on a lasting level is normal; with an event unless it was suppressed
    For windows with an event also the episode's opening window, its sequence number, windows so
    far, peak and its p, the p of the alert level, the look that the peak was seen by, and the end
    of the last window that was not calm.
    """

    event: NDArray[np.uint8]
    score: NDArray[np.float32]
    p_value: NDArray[np.float32]
    level: NDArray[np.float32]
    newest_p: NDArray[np.float32]
    newest_level: NDArray[np.float32]
    severity: NDArray[np.float32]
    candidate: NDArray[np.bool_]
    inside: NDArray[np.bool_]
    withheld: NDArray[np.bool_]
    adopted: NDArray[np.bool_]
    opened_ms: NDArray[np.int64]
    began_ms: NDArray[np.int64]
    sequence: NDArray[np.int32]
    n_windows: NDArray[np.int32]
    peak: NDArray[np.float32]
    peak_p: NDArray[np.float32]
    alert_p: NDArray[np.float32]
    look: NDArray[np.uint8]
    loud_ms: NDArray[np.int64]


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
    """The laws and the open episode of each key of one shard.

    tail : looks at the tail probabilities on ordinary data, for keys without history
    n_looks : 1, or 2 where the detector looks at the newest samples, too
    seeds : block maxima ``(n_groups, n_looks, n)`` of training series, newest first, negative: none
    """

    def __init__(
        self,
        plan: EpisodePlan,
        tail: tuple[float, ...],
        *,
        n_looks: int = 1,
        seeds: NDArray[np.float32] | None = None,
    ) -> None:
        self.plan, self.n_looks = plan, n_looks
        share = CLUSTER_SHARE if plan.size > 1 else ITEM_MS / HOUR_MS
        judged = tuple(box_cox(look, plan.power) for look in tail)
        tails = [judged, *[tail] * (n_looks - 1)]
        self._prior = np.array([law_of_tail(one, share=share) for one in tails], np.float64)
        self._seeds = np.empty((0, n_looks, 0), np.float32) if seeds is None else seeds
        self._zone = offsets(plan.zone)
        self.state = KeyedArrays(
            {
                "count": ((), np.int64, 0),
                "clocks": ((11,), np.int64, 0),
                "tally": ((18,), np.int32, 0),
                "held": ((6,), np.float32, 0.0),
                "recent": ((max(plan.smooth_delay, 0),), np.float32, 0.0),
                "rings": ((n_looks, ROOM), np.uint16, 0),
                "maxima": ((n_looks, 2), np.float32, 0.0),
                "laws": ((n_looks, 3), np.float32, 1.0),
                "marks": ((3,), np.float32, 0.0),
                "peaks": ((2,), np.float32, 0.0),
                "seed": ((), np.int32, NO_SEED),
            }
        )
        self._settings = np.array(
            [
                plan.min_windows, plan.min_duration, plan.cool_down, plan.update_every,
                plan.adopt_ms, max(4 * plan.size // plan.stride, 1), plan.memory_ms // ROOM,
                plan.size, plan.stride, int(plan.learns), plan.smooth_delay, plan.step_ms,
                max(plan.size // plan.stride, 1), plan.first_ms, plan.quiet_ms, plan.update_ms,
            ],
            np.int64,
        )  # fmt: skip
        self._levels = np.array([plan.candidate.row(), plan.exit.row(), plan.alert.row()])

    def continue_from(self, other: Episodes, seed: NDArray[np.int32]) -> None:
        """Go on with the keys of another artifact's episodes, whose arrays are ours from now on.

        seed : int32 ``(n_rows,)``, the training group of each key, `NO_SEED` where it has none
        """
        self.state = other.state
        self.state.arrays["seed"] = np.where(seed < len(self._seeds), seed, NO_SEED)

    @property
    def n_groups(self) -> int:
        """Return how many training groups there are seeds of."""
        return len(self._seeds)

    def begin(self, codes: list[int]) -> None:
        """Give new keys the default law."""
        if codes:
            self.state.reset(np.array(codes, np.int32))

    def seed(self, code: int, group: int) -> None:
        """Start a key from the block maxima an artifact holds of its training group."""
        if group < len(self._seeds):
            self.state["seed"][code] = group

    def seed_all(self, codes: NDArray[np.int32], groups: NDArray[np.int32]) -> None:
        """Do what `seed` does for several keys."""
        known = groups < len(self._seeds)
        self.state["seed"][codes[known]] = groups[known]

    def is_open(self, codes: NDArray[np.int32]) -> NDArray[np.bool_]:
        """Say which keys are in an episode."""
        return np.asarray(self.state["tally"][codes, 0] == 1)

    def open_episode(self, code: int) -> OpenEpisode:
        """Return the open episode of a key."""
        clocks, tally = self.state["clocks"][code], self.state["tally"][code]
        return OpenEpisode(
            opened_ms=int(clocks[3]),
            began_ms=int(clocks[4]),
            sequence=int(tally[4]),
            n_windows=int(tally[3]),
            peak=float(self.state["peaks"][code].max()),
            peak_p=float(self.state["held"][code, 1]),
        )

    def abandon(self, codes: NDArray[np.int32]) -> None:
        """Forget the open episodes of keys whose windows are not judged any more."""
        for place in (OPEN, ABOVE, BELOW, BY_NEWEST):
            self.state["tally"][codes, place] = 0

    def judge(  # noqa: PLR0913 - columns of windows
        self,
        codes: NDArray[np.int32],
        looks: NDArray[np.float32],
        start_ms: NDArray[np.int64],
        end_ms: NDArray[np.int64],
        suppressed: NDArray[np.bool_],
        *,
        final: NDArray[np.bool_] | None = None,
        still: NDArray[np.int32] | None = None,
        sudden: NDArray[np.bool_] | None = None,
        message: NDArray[np.int64] | None = None,
    ) -> Judgement:
        """Judge windows in the order their keys closed them; updates laws and episodes.

        looks : ``(n, n_looks)``, the centred score and the one of the newest samples
        suppressed : windows that do not matter (``direction``, ``min_effect``): never above a level
        final : the centred score was read from the log, where it is smoothed already
        still : samples for which the window's newest values have not changed
        sudden : the window ends with a break, see `streamad.scoring.sudden`; by default each does
        message : offset of the message that closed the window; by default each is of its own
        """
        n = len(codes)
        f, b, i8, i4 = np.float32, np.bool_, np.int64, np.int32
        made = Judgement(
            np.zeros(n, np.uint8), np.zeros(n, f), np.ones(n, f), np.zeros(n, f),
            np.full(n, np.nan, f), np.full(n, np.nan, f), np.zeros(n, f), np.zeros(n, b),
            np.zeros(n, b),
            np.zeros(n, b), np.zeros(n, b), np.zeros(n, i8), np.zeros(n, i8), np.zeros(n, i4),
            np.zeros(n, i4), np.zeros(n, f),
            np.ones(n, f), np.ones(n, f), np.zeros(n, np.uint8), np.zeros(n, i8),
        )  # fmt: skip
        s, plan = self.state, self.plan
        if plan.window > plan.size:
            start_ms = end_ms - (end_ms - start_ms) * (plan.size - 1) // (plan.window - 1)
        judge_windows(
            codes, start_ms, end_ms, np.ascontiguousarray(looks, np.float32),
            np.zeros(n, b) if final is None else final, suppressed,
            np.zeros(n, i4) if still is None else still,
            np.ones(n, b) if sudden is None else sudden,
            end_ms if message is None else message,
            self._settings, self._levels, self._prior, self.plan.power, *self._zone, self._seeds,
            s["seed"],
            s["count"], s["clocks"], s["tally"], s["held"], s["recent"], s["rings"], s["maxima"],
            s["laws"], s["marks"], s["peaks"],
            made.event, made.score, made.p_value, made.level, made.newest_p, made.newest_level,
            made.severity, made.candidate, made.inside, made.withheld, made.adopted,
            made.opened_ms, made.began_ms, made.sequence,
            made.n_windows, made.peak, made.peak_p, made.alert_p, made.look, made.loud_ms,
        )  # fmt: skip
        return made
