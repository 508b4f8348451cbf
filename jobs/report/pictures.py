"""The windows of a report's incidents as small pictures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import polars as pl
from numpy.typing import NDArray

from jobs.pictures.counts import counts_of
from jobs.pictures.sparkline import sparkline
from jobs.report.records import IncidentLine, Report
from streamad.records import SignalBatch
from streamad.training.fit import rows_of

LEAST_AROUND_MS = 600_000


class Pictures:
    """Draw the leader of each incident, from rows that were kept.

    variates : names of the columns; of records that hold no measured values, their number per time
    """

    def __init__(self, rows: Sequence[SignalBatch], variates: Sequence[str], records: str) -> None:
        self._rows, self._variates, self._records = rows, tuple(variates), records

    def of(self, report: Report, *, window_ms: int) -> dict[str, str]:
        """Return an SVG of each incident by its id; those without rows are left out."""
        leaders = list({one.leader for one in report.incidents})
        rows = self._rows_of(leaders)
        made = {}
        for one in report.incidents:
            if one.leader in rows:
                picture = self._draw(one, *rows[one.leader], window_ms)
                if picture:
                    made[one.id] = picture
        return made

    def _rows_of(
        self, keys: Sequence[str]
    ) -> Mapping[str, tuple[NDArray[np.int64], NDArray[np.float64]]]:
        chosen = [
            rows_of(batch, at)
            for batch in self._rows
            if len(at := np.flatnonzero(batch.keys.is_in(keys).to_numpy()))
        ]
        if self._records != "signals":
            chosen, name = counts_of(chosen, self._records.removesuffix("s"))
            self._variates = (name,)
        if not chosen:
            return {}
        names = pl.concat([batch.keys for batch in chosen])
        time_ms = np.concatenate([batch.time_ms for batch in chosen])
        values = np.concatenate([batch.values for batch in chosen])
        made = {}
        for key in keys:
            own = np.flatnonzero((names == key).to_numpy())
            if len(own):
                order = own[np.argsort(time_ms[own], kind="stable")]
                made[key] = time_ms[order], values[order]
        return made

    def _draw(
        self,
        one: IncidentLine,
        time_ms: NDArray[np.int64],
        values: NDArray[np.float64],
        window_ms: int,
    ) -> str:
        around = max(window_ms, one.until_ms - one.began_ms, LEAST_AROUND_MS)
        first, last = np.searchsorted(
            time_ms, [one.began_ms - around, one.until_ms + around // 2 + 1]
        )
        if first == last:
            return ""
        # The variate with most of the score is what is to be seen.
        shares = {name: share for name, share in one.shares.items() if name in self._variates}
        name = max(shares, key=lambda n: shares[n]) if shares else self._variates[0]
        return sparkline(
            time_ms[first:last],
            values[first:last, self._variates.index(name)],
            event_ms=(one.began_ms, one.until_ms),
            expected=one.expected.get(name),
            name=f"{one.leader} {name}" if len(self._variates) > 1 else one.leader,
        )
