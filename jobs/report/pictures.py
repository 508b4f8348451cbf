"""The windows of a report's incidents as small pictures."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

import numpy as np
import polars as pl

from jobs.offline.replay import between
from jobs.pictures.counts import counts_of
from jobs.pictures.sparkline import sparkline
from jobs.report.records import IncidentLine, Report
from streamad.records import RecordBatch, SignalBatch
from streamad.training.fit import rows_of

LEAST_AROUND_MS = 3_600_000
"""At least so much time before an event is drawn with it."""
COUNTS = 60
"""Most times that events and edges are counted in."""


class Pictures:
    """Draw the leader of each incident, from rows that were kept.

    variates : names of the columns; of records that hold no measured values, their number per time
    """

    def __init__(self, rows: Sequence[SignalBatch], variates: Sequence[str], records: str) -> None:
        self._rows, self._variates, self._records = rows, tuple(variates), records

    def of(self, report: Report, *, window_ms: int) -> dict[str, str]:
        """Return an SVG of each incident by its id; those without rows are left out."""
        held = self._rows_of({one.leader for one in report.incidents})
        made = {}
        for one in report.incidents:
            if one.leader in held:
                picture = self._draw(one, held[one.leader], window_ms)
                if picture:
                    made[one.id] = picture
        return made

    def _rows_of(self, keys: Collection[str]) -> dict[str, list[RecordBatch[Any]]]:
        """Return the rows of some series, in the order they came."""
        made: dict[str, list[RecordBatch[Any]]] = {}
        for batch in self._rows:
            codes = pl.DataFrame({"key": batch.keys}).with_row_index("at")
            chosen = codes.filter(pl.col("key").is_in(list(keys)))
            for (key,), part in chosen.group_by("key"):
                made.setdefault(str(key), []).append(rows_of(batch, part["at"].sort().to_numpy()))
        return made

    def _draw(self, one: IncidentLine, held: Sequence[RecordBatch[Any]], window_ms: int) -> str:
        lasted = one.until_ms - one.began_ms
        around = max(window_ms, lasted, LEAST_AROUND_MS)
        first, last = one.began_ms - around, one.until_ms + around // 2
        inside = [between(batch, first, last + 1) for batch in held]
        near, variates = self._measured([batch for batch in inside if len(batch)])
        if not near:
            return ""
        # The variate with most of the score is what is to be seen.
        shares = {name: share for name, share in one.shares.items() if name in variates}
        name = max(shares, key=lambda n: shares[n]) if shares else variates[0]
        time_ms = np.concatenate([batch.time_ms for batch in near])
        values = np.concatenate([batch.values[:, variates.index(name)] for batch in near])
        order = np.argsort(time_ms, kind="stable")
        return sparkline(
            time_ms[order],
            values[order],
            event_ms=(one.began_ms, one.until_ms),
            expected=one.expected.get(name),
            name=one.leader if variates == self._variates[:1] else f"{one.leader} {name}",
        )

    def _measured(
        self, near: list[RecordBatch[Any]]
    ) -> tuple[Sequence[SignalBatch], tuple[str, ...]]:
        """Return rows as values to draw, and what these are called."""
        if self._records == "signals":
            return near, self._variates
        counted, name = counts_of(near, self._records.removesuffix("s"), bins=COUNTS)
        return counted, (name,)
