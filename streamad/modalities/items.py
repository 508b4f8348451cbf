"""Events and edges: rows that are judged one by one."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from streamad.modalities.base import Item, Modality, Span, Windows
from streamad.modalities.levels import levels_of
from streamad.records import Explanation
from streamad.scoring.episodes import EpisodePlan
from streamad.scoring.evidence import add_up
from streamad.scoring.kernels import NEWEST
from streamad.windows.items import ItemWindows
from streamad.windows.signals import WindowPlan

SUMMED = "several events of late, each somewhat rare"
QUIET_MS = 600_000
"""An episode of rows ends once none of its key was strange for so long: a count of rows would be
milliseconds of a busy key and days of an idle one."""
UPDATE_MS = 300_000
"""An open episode is reported again at most so often, but where it grows."""


class Items(Modality):
    """Rows judged one by one, with what ``explain`` returns as it is: a list of explanations."""

    def describe(self) -> str:
        """Return what a row is and what it holds."""
        return f"each {self.unit} by itself: {', '.join(self.config.input.columns)}"

    @property
    def plan(self) -> WindowPlan:
        """Return that a key's first row is judged: nothing waits."""
        return WindowPlan(size=1, stride=1, n_variates=0, lateness_ms=0, reorder=1)

    @property
    def episodes(self) -> EpisodePlan:
        """Return when episodes of a key begin and end: counts are rows, ends go by time."""
        scoring = self.config.scoring
        return EpisodePlan(
            **levels_of(self.config)._asdict(),
            min_windows=scoring.min_windows,
            min_duration=scoring.min_duration,
            cool_down=1,
            adopt_ms=scoring.adopt_after,
            first_ms=0,
            update_every=1,
            memory_ms=scoring.memory,
            size=1,
            stride=1,
            quiet_ms=QUIET_MS,
            update_ms=UPDATE_MS,
            learns=self.detector.info.learns,
            zone=scoring.timezone,
        )

    def windows(self) -> Windows:
        """Return the clocks of keys, empty."""
        return ItemWindows(self.config.series.lateness)

    def explanation(self, why: Sequence[Explanation], i: int, item: Item) -> Explanation:
        """Return the detector's explanation as it is."""
        del item
        return why[i]

    def span(self, why: Sequence[Explanation] | None, i: int, item: Item) -> Span:
        """Return the row's own time as the event's begin, and that of the last strange row."""
        del why, i
        return Span(item.start_ms, item.loud_ms, stands_out=True, both_sides=False, closes=True)


class Events(Items):
    """Categorical events; their scores are decades of a probability, which add up."""

    name = "events"
    records = "events"
    unit = "event"

    @property
    def n_looks(self) -> int:
        """Return two: the event itself, and what those of late have together."""
        return 2

    def add_up(
        self,
        windows: Windows,
        codes: NDArray[np.int32],
        end_ms: NDArray[np.int64],
        looks: NDArray[np.float32],
    ) -> NDArray[np.float32]:
        """Return each score, and the evidence of its key after it."""
        total, total_ms = windows.state["evidence"], windows.state["evidence_ms"]
        summed = add_up(codes, np.ascontiguousarray(looks[:, 0]), end_ms, total, total_ms)
        return np.stack([looks[:, 0], summed], axis=1)

    def reason(self, look: int) -> str:
        """Return that no event was enough by itself."""
        return SUMMED if look == NEWEST else ""


class Edges(Items):
    """Edges of a graph, as they come."""

    name = "edges"
    records = "edges"
    unit = "edge"
