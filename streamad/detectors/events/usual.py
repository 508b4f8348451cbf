"""What the numbers of ordinary rows usually are, and which numbers of a row are far from that."""

from __future__ import annotations

from typing import Final, Self

import numpy as np
from numpy.typing import NDArray

from streamad.detectors.contract import Arrays, Floats, Ints
from streamad.events.numbers import NumberScale
from streamad.events.rows import EventRows
from streamad.events.vocabulary import as_numbers
from streamad.records import Explanation, Part

MOST_PARTS: Final = 10
NAMED: Final = 3
"""Numbers that the reason names."""
FAR: Final = 3.0
"""Deviations from which on a number is strange by itself."""
LEAST_SPREAD: Final = 0.05
"""A deviation near a centre is at least this share of one among all rows."""


class Usual:
    """Middle and spread of each number among the ordinary rows nearest to each centre.

    Attributes
    ----------
    middle, spread : float64 ``(k, d)``, in standard deviations of all rows
    """

    def __init__(self, middle: NDArray[np.float64], spread: NDArray[np.float64]) -> None:
        self.middle, self.spread = middle, spread

    @classmethod
    def fit(cls, rows: Floats, which: Ints, n_centres: int) -> Self:
        """Measure ordinary rows ``(n, d)``, of which each is nearest to centre ``which``."""
        whole = rows.astype(np.float64)
        middle = np.tile(np.median(whole, axis=0), (n_centres, 1))
        spread = np.ones_like(middle)
        for centre in range(n_centres):
            own = whole[which == centre]
            if len(own):
                low, middle[centre], high = np.quantile(own, (0.16, 0.5, 0.84), axis=0)
                # Half the width of the middle two thirds: a deviation, where tails are usual.
                spread[centre] = (high - low) / 2
        return cls(middle, np.maximum(spread, LEAST_SPREAD))

    def like(self, rows: Floats) -> Ints:
        """Return the centre whose ordinary rows each row is most like, ``(n,)``.

        No number counts for more than `FAR`: one that is very strange must not choose what the row
        is compared with.
        """
        apart = [self.far(rows, centre) for centre in range(len(self.middle))]
        sums = [(np.minimum(one, FAR) ** 2).sum(axis=1) for one in apart]
        return np.asarray(np.argmin(np.stack(sums, axis=1), axis=1), np.int32)

    def far(self, rows: Floats, which: Ints | int) -> NDArray[np.float64]:
        """Return how far each number is from that of ordinary rows, in their deviations."""
        return np.asarray(np.abs(rows - self.middle[which]) / self.spread[which])

    def state(self) -> Arrays:
        """Return both arrays."""
        return {"middle": self.middle, "spread": self.spread}

    @classmethod
    def from_state(cls, state: Arrays, n_centres: int, n_features: int) -> Self:
        """Read back what `state` returned; ValueError where it does not fit."""
        middle, spread = (np.asarray(state[name], np.float64) for name in ("middle", "spread"))
        if middle.shape != spread.shape or middle.shape[1:] != (n_features,):
            msg = f"usual numbers {middle.shape} and {spread.shape} of {n_features} fields"
            raise ValueError(msg)
        if len(middle) > n_centres or not len(middle) or not (spread > 0).all():
            msg = f"usual numbers of {len(middle)} centres, expected 1 to {n_centres}"
            raise ValueError(msg)
        return cls(middle, spread)


def explain_numbers(
    items: EventRows, scale: NumberScale, usual: Usual, rows: Floats
) -> list[Explanation]:
    """Explain rows by the numbers that are farthest from those of ordinary rows most like them."""
    which = usual.like(rows)
    far = usual.far(rows, which)
    expected = scale.back(usual.middle)
    raw = np.stack([as_numbers(items.fields[name]) for name in scale.names], axis=1)
    return [
        _explain(items, scale.names, row, far[row], raw[row], expected[which[row]])
        for row in range(len(items))
    ]


def _explain(
    items: EventRows,
    names: tuple[str, ...],
    row: int,
    far: NDArray[np.float64],
    raw: NDArray[np.float64],
    expected: NDArray[np.float64],
) -> Explanation:
    order = np.argsort(-far, kind="stable")[:MOST_PARTS].tolist()
    parts = far[order] ** 2
    total = float(parts.sum())
    shares = parts / total if total > 0 else np.full(len(order), 1 / len(order))
    observed: dict[str, Part] = {names[at]: float(raw[at]) for at in order if np.isfinite(raw[at])}
    strange = [at for at in order if far[at] >= FAR][:NAMED]
    told = "; ".join(_told(names[at], raw[at], expected[at]) for at in strange or order[:NAMED])
    how = "unlike ordinary rows" if strange else "an unusual combination of ordinary numbers"
    return Explanation(
        observed=observed,
        expected={names[at]: float(f"{expected[at]:.3g}") for at in order if names[at] in observed},
        variates={names[at]: float(s) for at, s in zip(order, shares, strict=True)},
        time_ms=int(items.time_ms[row]),
        text=f"{how}: {told}",
    )


def _told(name: str, value: float, usual: float) -> str:
    given = f"{value:g}" if np.isfinite(value) else "missing"
    return f"{name} is {given}, usually about {usual:.3g}"
