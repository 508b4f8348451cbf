"""The figures of `evaluate` for one file that was scored: ``streamad score`` with labels."""

from __future__ import annotations

from jobs.evaluate.measure import as_record, figures_by_key
from jobs.evaluate.summary import Summary, summarise
from jobs.offline.score import Scored
from jobs.offline.tables import Table


def summary_of(table: Table, scored: Scored, *, train_end: int | None, name: str) -> Summary | None:
    """Return the figures over the series of a table with labels; None where no row counts."""
    records = [
        {"set": name, "series": key, "detector": scored.detector, "seconds": 0.0,
         **as_record(figures)}
        for key, figures, _ in figures_by_key(table, scored, train_end=train_end or 0)
    ]  # fmt: skip
    if not records:
        return None
    return summarise(
        records, [scored.detector], source=name, layout="file", reference=scored.detector
    )
