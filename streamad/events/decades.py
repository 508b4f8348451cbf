"""From a score to how often an ordinary event scores as much, counted by events as they happen.

Training keeps distinct events, and most of these are rare ones: a score measured on them promises
too little. Here each event counts as often as it happened.
"""

from __future__ import annotations

from typing import Final, Self

import numpy as np
from numpy.typing import NDArray

from streamad.errors import ArtifactError

MOST_KNOTS: Final = 512
Arrays = dict[str, NDArray[np.float32]]


class Decades:
    """A rising map from scores to ``-log10 P(an ordinary event scores as much)``.

    Beyond the highest score seen, a decade more per unit of the score.

    Attributes
    ----------
    scores, decades : float32 ``(n,)``, both rising; none: scores stay as they are
    """

    def __init__(self, scores: NDArray[np.float32], decades: NDArray[np.float32]) -> None:
        self.scores, self.decades = scores, decades

    @classmethod
    def fit(cls, scores: NDArray[np.float32], weight: NDArray[np.float64]) -> Self:
        """Measure on scores of ordinary events; weight : how many events each stands for.

        Examples
        --------
        >>> made = Decades.fit(np.array([0, 1, 2], np.float32), np.array([90.0, 9.0, 1.0]))
        >>> [round(float(x), 1) for x in made.of(np.array([0, 1, 2, 3], np.float32))]
        [0.0, 1.0, 1.8, 2.8]
        """
        if not len(scores):
            return cls(np.empty(0, np.float32), np.empty(0, np.float32))
        knots, place = np.unique(scores, return_inverse=True)
        mass = np.bincount(place, weight)
        at_least = np.cumsum(mass[::-1])[::-1]
        chance = (at_least + 0.5) / (at_least[0] + 0.5)
        decades = -np.log10(chance)
        if len(knots) > MOST_KNOTS:
            # Evenly in decades: it is the rare end that matters.
            wanted = np.linspace(0, decades[-1], MOST_KNOTS)
            chosen = np.unique(np.searchsorted(decades, wanted).clip(0, len(knots) - 1))
            knots, decades = knots[chosen], decades[chosen]
        return cls(knots.astype(np.float32), decades.astype(np.float32))

    def of(self, scores: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return decades, float32 ``(n,)``, at least 0."""
        if not len(self.scores):
            return scores
        made = np.interp(scores, self.scores, self.decades)
        beyond = np.maximum(scores.astype(np.float64) - self.scores[-1], 0.0)
        return np.asarray(made + beyond, np.float32)

    def state(self) -> Arrays:
        """Return both arrays."""
        return {"scores": self.scores, "decades": self.decades}

    @classmethod
    def from_state(cls, state: Arrays) -> Self:
        """Take back what ``state`` returned; ArtifactError where it does not rise."""
        scores, decades = state["scores"], state["decades"]
        rises = scores.shape == decades.shape and scores.ndim == 1
        rises = rises and bool((np.diff(scores) > 0).all() and (np.diff(decades) >= 0).all())
        if not (rises and np.isfinite(scores).all() and np.isfinite(decades).all()):
            msg = "the map from scores to decades does not rise: the artifact is damaged"
            raise ArtifactError(msg)
        return cls(scores.astype(np.float32), decades.astype(np.float32))
