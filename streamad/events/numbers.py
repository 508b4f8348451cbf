"""Numbers of events on one scale: heavy tails folded, in standard deviations, gaps filled."""

from __future__ import annotations

import json
from typing import Any, Final, Self

import numpy as np
from numpy.typing import NDArray

from streamad.errors import ArtifactError, TrainingError, WindowError
from streamad.events.rows import EventRows
from streamad.events.vocabulary import as_numbers

Floats = NDArray[np.float32]
MAX_FIELDS: Final = 1_000
MOST: Final = 8.0
"""Standard deviations; a number beyond counts as this far."""


class NumberScale:
    """From numbers of any unit to standard deviations of training rows.

    ``sign(x) log(1 + |x|)`` first: bytes and durations span decades. A missing number is the mean.
    A field that never varied in training is not scaled, so that what leaves it still shows.

    Attributes
    ----------
    names : fields, in order; shift, scale : float64 ``(d,)``, of the folded numbers
    """

    def __init__(
        self, names: tuple[str, ...], shift: NDArray[np.float64], scale: NDArray[np.float64]
    ) -> None:
        self.names, self.shift, self.scale = names, shift, scale

    @classmethod
    def fit(cls, items: EventRows, mass: NDArray[np.float64]) -> Self:
        """Measure mean and deviation of every field of numbers; mass : how often each row happened.

        Raises TrainingError where no field holds numbers.
        """
        names = tuple(n for n in items.names if items.fields[n].dtype.is_numeric())
        if not names or len(names) > MAX_FIELDS:
            msg = (
                f"expected 1 to {MAX_FIELDS:,} fields with numbers, got {len(names)} among "
                f"{', '.join(items.names[:20])}; name them in input.fields.numbers, or --fields"
            )
            raise TrainingError(msg)
        folded = _folded(items, names)
        known = np.isfinite(folded)
        weight = np.where(known, mass[:, None], 0.0)
        total = np.maximum(weight.sum(axis=0), 1e-300)
        values = np.where(known, folded, 0.0)
        shift = (weight * values).sum(axis=0) / total
        scale = np.sqrt((weight * (values - shift) ** 2).sum(axis=0) / total)
        # Below that it is rounding.
        return cls(names, shift, np.where(scale > 1e-9 * (1 + np.abs(shift)), scale, 1.0))

    def of(self, items: EventRows) -> Floats:
        """Return rows in standard deviations, float32 ``(n, d)``, finite.

        Raises WindowError where a field is absent or holds texts.
        """
        for name in self.names:
            if name not in items.fields.columns or not items.fields[name].dtype.is_numeric():
                msg = f"events have no number {name!r}; expected {', '.join(self.names[:20])}"
                raise WindowError(msg)
        scaled = (_folded(items, self.names) - self.shift) / self.scale
        filled = np.where(np.isnan(scaled), 0.0, scaled)
        return np.ascontiguousarray(np.clip(filled, -MOST, MOST), np.float32)

    def back(self, rows: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return numbers in their own units, of standard deviations ``(..., d)``."""
        folded = rows * self.scale + self.shift
        return np.asarray(np.sign(folded) * np.expm1(np.minimum(np.abs(folded), 700.0)))

    def state(self) -> dict[str, NDArray[Any]]:
        """Return all of it as named arrays."""
        names = json.dumps(self.names, ensure_ascii=False).encode()
        return {
            "names": np.frombuffer(names, np.uint8).copy(),
            "shift": self.shift,
            "scale": self.scale,
        }

    @classmethod
    def from_state(cls, state: dict[str, NDArray[Any]]) -> Self:
        """Read back what `state` returned; ArtifactError where it is damaged."""
        try:
            names = json.loads(state["names"].astype(np.uint8).tobytes().decode())
            shift, scale = (np.asarray(state[name], np.float64) for name in ("shift", "scale"))
        except (KeyError, ValueError, RecursionError) as error:
            msg = f"the scale of numbers is damaged ({type(error).__name__}); fit it again"
            raise ArtifactError(msg) from error
        named = isinstance(names, list) and all(isinstance(name, str) for name in names)
        if not named or not 0 < len(names) <= MAX_FIELDS or len(set(names)) != len(names):
            msg = "the scale of numbers names no fields, or one of them twice; fit it again"
            raise ArtifactError(msg)
        fits = shift.shape == scale.shape == (len(names),)
        if not fits or not (np.isfinite(shift) & np.isfinite(scale) & (scale > 0)).all():
            msg = f"the scale of numbers does not fit its {len(names)} fields; fit it again"
            raise ArtifactError(msg)
        return cls(tuple(names), shift, scale)


def _folded(items: EventRows, names: tuple[str, ...]) -> NDArray[np.float64]:
    raw = np.stack([as_numbers(items.fields[name]) for name in names], axis=1)
    return np.asarray(np.sign(raw) * np.log1p(np.abs(raw)))
