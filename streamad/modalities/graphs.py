"""Graphs: the edges of a window of one key (a tenant, a host) are judged as one graph."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from streamad.config.values import format_duration
from streamad.graphs.rows import Graphs
from streamad.modalities.base import Item, Span, Windows
from streamad.modalities.items import Items
from streamad.records import Explanation
from streamad.scoring.episodes import EpisodePlan
from streamad.windows.graphs import GraphPlan, GraphWindows


class GraphsOfEdges(Items):
    """One graph per window of a key."""

    name = "graphs"
    records = "edges"
    unit = "graph"

    def describe(self) -> str:
        """Return which edges make a graph."""
        graphs = self.config.graphs
        slide = f", every {format_duration(graphs.slide)}" if graphs.slide else ""
        return f"the edges of {format_duration(graphs.span)} of a key as one graph{slide}"

    @property
    def episodes(self) -> EpisodePlan:
        """Return when episodes begin and end: graphs come at fixed times, so they are counted."""
        scoring = self.config.scoring
        return replace(
            super().episodes,
            cool_down=scoring.cool_down,
            update_every=scoring.update_every,
            quiet_ms=0,
            update_ms=0,
        )

    def windows(self) -> Windows:
        """Return the open edges of keys, none."""
        config = self.config.graphs
        return GraphWindows(
            GraphPlan(
                span_ms=config.span,
                slide_ms=config.slide or config.span,
                lateness_ms=self.config.series.lateness,
                max_nodes=config.max_nodes,
                max_edges=config.max_edges,
            )
        )

    def left_out(self, values: Graphs) -> NDArray[np.int64]:
        """Return how many edges each graph lacks: ``graphs.max_nodes`` and ``max_edges``."""
        return values.dropped

    def span(self, why: Sequence[Explanation] | None, i: int, item: Item) -> Span:
        """Return the window as the time of the event: when in it the edges came is not kept."""
        del why, i
        return Span(item.start_ms, item.loud_ms, stands_out=True, both_sides=False, closes=True)
