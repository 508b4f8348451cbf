"""Where an explanation is read from: the topics of a pipeline, or files of a back-test."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar, cast

import numpy as np
import orjson
import polars as pl

from connectors.records import cloudevents, scores_log
from connectors.records.typed_json import ShapeError, to_record
from jobs.explain.account import Account, explain_rows
from jobs.explain.window import AROUND
from streamad.config import PipelineConfig
from streamad.errors import ConfigError
from streamad.ports import Log, Messages
from streamad.records import Alert, Finding, Rejected, ScoreBatch

SPAN_MS = 3_600_000
"""How much event time on either side is looked at."""

EPISODE_MS = 7 * 86_400_000
"""How long ago an episode may have begun and still be found."""

MAX_OTHER_KEYS = 100_000

COLUMNS: dict[str, type[np.generic]] = {
    "end_ms": np.int64,
    "ordinal": np.int64,
    "score": np.float32,
    "p_value": np.float32,
    "level": np.float32,
    "newest": np.float32,
    "newest_p": np.float32,
    "newest_level": np.float32,
    "severity": np.float32,
    "flags": np.uint8,
}

ADDED = {"ordinal": 0, **dict.fromkeys(("newest", "newest_p", "newest_level", "severity"), np.nan)}
"""What stands for a column that logs of earlier versions lack."""

R = TypeVar("R", Finding, Alert)


@dataclass(slots=True, kw_only=True)
class Evidence:
    """All that is needed to explain one window."""

    scores: ScoreBatch
    findings: list[Finding]
    alerts: list[Alert]

    def explain(self, *, key: str, at_ms: int, config: PipelineConfig) -> Account:
        """Tell what became of the window of ``key`` nearest to ``at_ms``."""
        return explain_rows(
            self.scores,
            key=key,
            at_ms=at_ms,
            config=config,
            findings=self.findings,
            alerts=self.alerts,
        )


# ---------------------------------------------------------------------- files


def from_files(scores: Path, *, findings: Path | None, alerts: Path | None) -> Evidence:
    """Read evidence from files: scores as Parquet or Arrow, the others as JSON lines."""
    return Evidence(
        scores=read_scores(scores),
        findings=_read_records(findings, Finding),
        alerts=_read_records(alerts, Alert),
    )


def read_scores(path: Path) -> ScoreBatch:
    """Read a scores log from Parquet, an Arrow (Feather) file, or an Arrow stream."""
    try:
        frame = _reader(path)(path)
    except (OSError, pl.exceptions.PolarsError) as error:
        msg = (
            f"{path}: cannot be read as scores ({error}); give Parquet, or Arrow (.arrow, .feather)"
        )
        raise ConfigError(msg) from error
    added = {name: pl.lit(value) for name, value in ADDED.items() if name not in frame.columns}
    frame = frame.with_columns(**added)
    missing = [name for name in ("key", *COLUMNS) if name not in frame.columns]
    if missing:
        msg = f"{path}: is no scores log, it lacks the columns {missing}; it has {frame.columns}"
        raise ConfigError(msg)
    if isinstance(frame.schema["end_ms"], pl.Datetime):
        frame = frame.with_columns(pl.col("end_ms").dt.epoch("ms"))
    numbers: dict[str, Any] = {
        name: frame[name].to_numpy().astype(dtype) for name, dtype in COLUMNS.items()
    }
    return ScoreBatch(keys=frame["key"].cast(pl.String), **numbers)


def scores_frame(batches: Sequence[ScoreBatch]) -> pl.DataFrame:
    """Return scores as a table that `read_scores` reads."""
    every = [*batches, _names_only(set())]  # for the types, where there are none
    frames = []
    for batch in every:
        columns = {name: getattr(batch, name) for name in COLUMNS}
        if batch.certainty is not None:
            columns["certainty"] = batch.certainty
        frames.append(pl.DataFrame({"key": batch.keys, **columns}))
    return pl.concat(frames, how="diagonal")


def _reader(path: Path) -> Callable[[Path], pl.DataFrame]:
    with path.open("rb") as file:
        head = file.read(6)
    if head[:4] == b"PAR1":
        return pl.read_parquet
    return pl.read_ipc if head == b"ARROW1" else pl.read_ipc_stream


def _read_records(path: Path | None, kind: type[R]) -> list[R]:
    if path is None:
        return []
    try:
        lines = path.read_bytes().splitlines()
    except OSError as error:
        msg = f"{path}: cannot be read ({error.strerror})"
        raise ConfigError(msg) from error
    return [_record(path, n, line, kind) for n, line in enumerate(lines, 1) if line.strip()]


def _record(path: Path, line: int, text: bytes, kind: type[R]) -> R:
    try:
        body = orjson.loads(text)
        # A CloudEvent in structured mode carries the record as its data.
        data = body.get("data", body) if isinstance(body, dict) else body
        return to_record(kind, data)
    except (ValueError, ShapeError) as error:
        msg = f"{path}:{line}: is no {kind.__name__.lower()}: {error}"
        raise ConfigError(msg) from error


# ---------------------------------------------------------------------- topics


def from_topics(log: Log, config: PipelineConfig, *, key: str, at_ms: int) -> Evidence:
    """Read evidence on one key from a pipeline's topics."""
    findings = _events(log, config.topic("findings"), key=key, since_ms=at_ms - EPISODE_MS)
    alerts = _events(log, config.topic("alerts"), key=key, since_ms=at_ms - EPISODE_MS)
    return Evidence(
        scores=_scores(log, config, key=key, at_ms=at_ms),
        findings=[event for event in findings if isinstance(event, Finding)],
        alerts=[event for event in alerts if isinstance(event, Alert)],
    )


def _read_since(log: Log, topic: str, since_ms: int) -> Iterator[Messages]:
    """Read a topic from a time to where it ends now."""
    for source, (first, stop) in sorted(log.bounds(topic).items()):
        start = max(first, log.offset_at(source, max(0, since_ms)))
        yield from log.read(source, start, stop)


def _events(log: Log, topic: str, *, key: str, since_ms: int) -> list[Finding | Alert]:
    found: list[Finding | Alert] = []
    for messages in _read_since(log, topic, since_ms):
        for payload, record in zip(messages.payloads, messages.raw, strict=True):
            event = cloudevents.decode(payload, record.headers)
            if isinstance(event, Finding | Alert) and event.key == key:
                found.append(event)
    return found


def _scores(log: Log, config: PipelineConfig, *, key: str, at_ms: int) -> ScoreBatch:
    """Read the rows of a key about a time, and the names of its neighbours for a hint.

    A score is written after its window's time by the broker's clock, but for what
    ``series.max_ahead`` allows: so reading begins that much earlier, and ends once enough later
    windows of the key were met.
    """
    since_ms = at_ms - SPAN_MS - config.series.max_ahead
    kept, others, later = [], set[str](), 0
    far: ScoreBatch | None = None
    for batch in _score_batches(log, config.topic("scores"), since_ms):
        mine = (batch.keys == key).to_numpy()
        near = mine & (np.abs(batch.end_ms - at_ms) <= SPAN_MS)
        if near.any():
            kept.append(_take(batch, near))
            later += int((batch.end_ms[near] > at_ms).sum())
        elif mine.any():
            far = _nearer(far, _take(batch, mine), at_ms)
        elif not kept and len(others) < MAX_OTHER_KEYS:
            others.update(batch.keys.unique().drop_nulls().to_list())
        if later > AROUND:
            break
    if not kept and far is None:
        return _names_only(others)
    return _concat(kept or [cast("ScoreBatch", far)])


def _nearer(one: ScoreBatch | None, other: ScoreBatch, at_ms: int) -> ScoreBatch:
    """Return the single row nearest to a time: better than nothing, where nothing is near."""
    both = other if one is None else _concat([one, other])
    return _take(both, np.array([int(np.abs(both.end_ms - at_ms).argmin())]))


def _score_batches(log: Log, topic: str, since_ms: int) -> Iterator[ScoreBatch]:
    for messages in _read_since(log, topic, since_ms):
        for payload in messages.payloads:
            decoded = scores_log.decode(payload)
            if not isinstance(decoded, Rejected):
                yield decoded[1]


def _take(batch: ScoreBatch, rows: Any) -> ScoreBatch:
    columns: dict[str, Any] = {name: getattr(batch, name)[rows] for name in COLUMNS}
    return ScoreBatch(keys=batch.keys.gather(np.arange(len(batch))[rows]), **columns)


def _concat(batches: Sequence[ScoreBatch]) -> ScoreBatch:
    columns: dict[str, Any] = {
        name: np.concatenate([getattr(batch, name) for batch in batches]) for name in COLUMNS
    }
    return ScoreBatch(keys=pl.concat([batch.keys for batch in batches]), **columns)


def _names_only(keys: set[str]) -> ScoreBatch:
    columns: dict[str, Any] = {name: np.zeros(len(keys), dtype) for name, dtype in COLUMNS.items()}
    return ScoreBatch(keys=pl.Series("key", sorted(keys), dtype=pl.String), **columns)
