"""What the input itself marks as anomalous, and what became of it.

Nothing is adjusted to the labels: an anomaly is found by a page that came while it lasted, or
within a window's length of its end; an alert that was open already finds nothing.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import orjson
import polars as pl

from connectors.files import LABEL_NAMES, label_of, read_sheet
from connectors.files.roles import FIELDS_TOO
from connectors.files.series import is_lines
from connectors.files.sheet import require_column
from jobs.offline.replay import Part
from jobs.offline.tables import LABELLED
from streamad.config import PipelineConfig
from streamad.incidents import Incident
from streamad.records import Decoded, SignalBatch

_SCHEMA = {"key": pl.String, "time": pl.Int64, "marked": pl.Boolean}


@dataclass(frozen=True, slots=True, kw_only=True)
class Anomaly:
    """A labelled time of one series, or of several at once."""

    keys: tuple[str, ...]
    begin_ms: int
    end_ms: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Fate:
    """What became of an anomaly: ``paged``, ``withheld`` or ``missed``.

    after_ms : from its begin to the page, or to the incident that did not page; None: it was missed
    """

    anomaly: Anomaly
    what: str
    after_ms: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Detected:
    """Anomalies and pages against each other; ``true`` are incident ids that touch an anomaly."""

    fates: tuple[Fate, ...]
    true: frozenset[str]
    true_pages: int
    false_pages: int

    def count(self, what: str) -> int:
        """Return the number of anomalies that met a fate."""
        return sum(fate.what == what for fate in self.fates)

    @property
    def delays_ms(self) -> list[int]:
        """Return how long after its begin each anomaly paged, ascending."""
        return sorted(
            f.after_ms for f in self.fates if f.what == "paged" and f.after_ms is not None
        )


class Labels:
    """Collect the labels of a replay's input; they never reach the detector."""

    def __init__(self, column: str) -> None:
        self.column = column
        self.n_filled = 0
        self._parts: list[pl.DataFrame] = []
        self._open: set[str] = set()

    def asked(self, config: PipelineConfig) -> PipelineConfig:
        """Return the settings that read the column beside the others."""
        fields = config.input.fields
        if self.column in fields.tags:
            return config
        fields = fields.model_copy(update={"tags": (*fields.tags, self.column)})
        return config.model_copy(
            update={"input": config.input.model_copy(update={"fields": fields})}
        )

    def taken(self, parts: Iterator[Part], config: PipelineConfig) -> Iterator[Part]:
        """Yield input as the pipeline of ``config`` reads it, and keep its labels."""
        own = self.column in config.input.fields.tags
        for part in parts:
            batch = part.decoded.batch
            if self.column in batch.tags:
                self._take(batch)
                if not own:
                    tags = {n: tag for n, tag in batch.tags.items() if n != self.column}
                    batch = replace(batch, tags=tags)
            yield replace(part, decoded=Decoded(batch=batch, rejected=part.decoded.rejected))

    def _take(self, batch: SignalBatch) -> None:
        texts = batch.tags[self.column].str.to_lowercase().str.strip_chars()
        self.n_filled += int((texts != "").sum())
        marked = texts.is_in(LABELLED)
        if not (self._open or marked.any()):
            return
        # A row after a marked one ends its run, also where it comes in the next batch.
        before = pl.col("marked").shift(1).over("key")
        was_open = pl.col("key").is_in(list(self._open))
        frame = pl.DataFrame({"key": batch.keys, "time": batch.time_ms, "marked": marked})
        kept = frame.filter(pl.col("marked") | before.fill_null(was_open))
        self._parts.append(kept)
        last = frame.group_by("key").agg(pl.col("marked").last())
        self._open -= set(last.filter(~pl.col("marked"))["key"])
        self._open |= set(last.filter(pl.col("marked"))["key"])

    @property
    def marked(self) -> pl.DataFrame:
        """Return the ``key`` and ``time`` of every marked row, in order of time."""
        return self._rows.filter(pl.col("marked")).select("key", "time").sort("time")

    @property
    def _rows(self) -> pl.DataFrame:
        return pl.concat([pl.DataFrame(schema=_SCHEMA), *self._parts])

    def anomalies(self, *, begin_ms: int | None, end_ms: int | None) -> list[Anomaly]:
        """Return the labelled times of what was replayed; equal ones of several series are one."""
        runs = (
            self._rows.sort("key", "time", maintain_order=True)
            .with_columns(run=(~pl.col("marked")).cum_sum().over("key"))
            .filter(pl.col("marked"))
            .group_by("key", "run")
            .agg(begin=pl.col("time").min(), end=pl.col("time").max())
        )
        together = runs.group_by("begin", "end").agg(pl.col("key").sort()).sort("begin", "end")
        made = [
            Anomaly(keys=tuple(keys), begin_ms=begin, end_ms=end)
            for begin, end, keys in together.select("begin", "end", "key").iter_rows()
        ]
        return [
            one
            for one in made
            if (begin_ms is None or one.end_ms >= begin_ms)
            and (end_ms is None or one.begin_ms <= end_ms)
        ]


def find_label(path: Path, config: PipelineConfig, given: str | None) -> str | None:
    """Return the column of labels: the one that was given, or one with a usual name; None: none.

    Raises ConfigError where a table lacks the given one.
    """
    fields = config.input.fields
    taken = {*config.input.columns, *fields.key, *fields.tags, *fields.where, fields.time}
    if is_lines(path):
        usual = (name for name in _labels_in_first(path) if name not in taken)
        return given or next(usual, None)
    frame = read_sheet(path).frame
    if given is not None:
        require_column(frame, given, "--label")
        return given
    return label_of(frame, taken=taken)


def _labels_in_first(path: Path) -> list[str]:
    """Return the fields of the first record that may be labels; a text ``target`` is none."""
    from connectors.files.sheet import read_bytes

    line = read_bytes(path).split(b"\n", 1)[0]
    try:
        record = orjson.loads(line)
    except ValueError:
        return []
    if not isinstance(record, dict):
        return []
    return [
        name
        for name, value in record.items()
        if (folded := name.strip().lower()) in LABEL_NAMES
        and not (folded in FIELDS_TOO and isinstance(value, str))
    ]


# ------------------------------------------------------------------ against incidents


def detect(
    anomalies: Sequence[Anomaly], incidents: Mapping[str, Sequence[Incident]], *, slack_ms: int
) -> Detected:
    """Return what incidents found; slack_ms : how long after its end an anomaly may be found.

    incidents : all records of each, by id, in order
    """
    touched = {name: _touched(anomalies, records, slack_ms) for name, records in incidents.items()}
    fates = []
    for at, anomaly in enumerate(anomalies):
        ours = [incidents[name] for name, hit in touched.items() if at in hit]
        fates.append(_fate(anomaly, ours, slack_ms))
    true = frozenset(name for name, hit in touched.items() if hit)
    paged = {name for name, records in incidents.items() if records[-1].paged_ms is not None}
    return Detected(
        fates=tuple(fates),
        true=true,
        true_pages=len(true & paged),
        false_pages=len(paged - true),
    )


def _touched(anomalies: Sequence[Anomaly], records: Sequence[Incident], slack_ms: int) -> set[int]:
    """Return the places of anomalies whose series and time an incident touches."""
    spans: dict[str, list[tuple[int, int]]] = {}
    for record in records:
        for member in record.members:
            spans.setdefault(member.key, []).append((member.began_ms, member.until_ms))
    return {
        at
        for at, anomaly in enumerate(anomalies)
        if any(
            began <= anomaly.end_ms + slack_ms and until >= anomaly.begin_ms
            for key in anomaly.keys
            for began, until in spans.get(key, ())
        )
    }


def _fate(anomaly: Anomaly, incidents: Sequence[Sequence[Incident]], slack_ms: int) -> Fate:
    """Return the earliest page that is of this anomaly, else the earliest incident."""
    last_ms = anomaly.end_ms + slack_ms
    paged = [records[-1].paged_ms for records in incidents]
    pages = [ms for ms in paged if ms is not None and anomaly.begin_ms <= ms <= last_ms]
    if pages:
        return Fate(anomaly=anomaly, what="paged", after_ms=min(pages) - anomaly.begin_ms)
    opened = [r[0].opened_ms for r in incidents if anomaly.begin_ms <= r[0].opened_ms <= last_ms]
    if opened:
        return Fate(anomaly=anomaly, what="withheld", after_ms=min(opened) - anomaly.begin_ms)
    return Fate(anomaly=anomaly, what="missed", after_ms=None)


def labelled_windows(
    windows: pl.DataFrame, marked: pl.DataFrame, *, window_ms: int
) -> np.ndarray[tuple[int], np.dtype[np.bool_]]:
    """Return which windows (``key``, ``end``) hold a marked row."""
    frame = windows.with_row_index("at").sort("end")
    joined = frame.join_asof(
        marked.rename({"time": "mark"}), left_on="end", right_on="mark", by="key",
        strategy="backward", check_sortedness=False,
    )  # fmt: skip
    inside = (joined["end"] - joined["mark"] <= window_ms).fill_null(value=False)
    made = np.zeros(len(windows), np.bool_)
    made[joined["at"].to_numpy()] = inside.to_numpy()
    return made
