"""Is an alert like those of a named group? Asked as it opens, and once it is over."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np

from streamad.records import Alert
from streamad.triage.features import LATE, LOOKS_LIKE, NUMBERS, Scaling, Vector, vector_of
from streamad.triage.gaussians import Gaussians

_LATE: Final = [at for at, one in enumerate(NUMBERS) if one.name in LATE]


def early(rows: Vector) -> Vector:
    """Return scaled rows without what is not known while an alert opens."""
    out = rows.copy()
    out[:, _LATE] = 0.0
    return out


@dataclass(frozen=True, slots=True, kw_only=True)
class Recogniser:
    """Named groups, ready to recognise alerts of.

    names, counts : of the groups; opening, whole : None where there is no group
    """

    names: tuple[str, ...]
    counts: tuple[int, ...]
    scaling: Scaling
    opening: Gaussians | None
    whole: Gaussians | None

    def names_of(self, rows: Vector) -> list[str]:
        """Return the group of alerts that are over, by raw rows; empty: of none."""
        if self.whole is None:
            return [""] * len(rows)
        found = self.whole.recognise(self.scaling.apply(rows))
        return [self.names[at] if at >= 0 else "" for at in found]

    def name_of(self, alert: Alert, *, breadth: int = 1) -> str:
        """Return the group an alert looks like by what is known of it now; empty: like none.

        breadth : alerts of its group that began together with it
        """
        over = alert.state == "resolved"
        fitted = self.whole if over else self.opening
        if fitted is None:
            return ""
        row = self.scaling.apply(vector_of(alert, breadth=breadth)[np.newaxis])
        at = int(fitted.recognise(row if over else early(row))[0])
        return self.names[at] if at >= 0 else ""

    def line(self, name: str) -> str:
        """Return what the line of an alert ends with: ``; looks like 'disk full' (7 before)``."""
        if name not in self.names:
            return f"{LOOKS_LIKE}{name!r}" if name else ""
        return f"{LOOKS_LIKE}{name!r} ({self.counts[self.names.index(name)]} before)"
