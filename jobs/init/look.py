"""What messages or a table hold: their format, and which field is what."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import orjson
import polars as pl

from connectors.codecs import FieldMap, make_codec
from connectors.codecs.fields import PER_SECOND, TimeUnit
from connectors.codecs.json_wrappers import bare, framing
from connectors.codecs.otlp.logs_table import rows_of_logs
from connectors.files import find_roles, is_lines, read_sheet
from connectors.files.documents import is_otlp, table_of, unpacked
from connectors.files.roles import Roles
from connectors.files.sheet import ARROW, ARROW_STREAM, PARQUET, ZIP, Sheet, read_bytes
from jobs.init.items import Items, look_for_items
from jobs.offline.item_files import pipeline_of
from jobs.offline.replay import field_map
from streamad.errors import ConfigError

MAX_RECORDS = 20_000
MAX_VALUES = 8
"""Fields of one series that are worth judging together; of more the first are taken."""

MAX_KEYS = 3
IDENTITY = frozenset({
    "host", "hostname", "instance", "node", "pod", "container", "device", "sensor", "machine",
    "server", "service", "app", "application", "job", "name", "metric", "id", "entity", "source",
})  # fmt: skip
"""Names of fields that usually name a series."""

LOGS = "otlp_logs"
NO_FIELDS = frozenset({
    "specversion", "id", "datacontenttype", "dataschema", "data_base64", "traceparent",
    "tracestate", "partitionkey", "sequence",
})  # fmt: skip
"""Attributes of CloudEvents that say nothing of an event."""

ARROW_STARTS = (ARROW, ARROW_STREAM)
TABLES = (PARQUET, ZIP, *ARROW_STARTS)
BINARY = ("prometheus", "otlp_proto")
BEGINS = 4096
"""Bytes of a file by which it is known."""
ENVELOPES = (b'"resourceLogs"', b'"specversion"')
"""What files of log records and of CloudEvents hold at their beginning."""


@dataclass(slots=True, kw_only=True)
class Look:
    """What was found.

    format : of the messages; fields : None where the codec's own names serve; table : the fields
    are columns of a file, and every numeric one may be a series; items : what is found of events or
    edges, None of signals; notes : what else a reader must know
    """

    format: str
    fields: FieldMap | None = None
    table: bool = False
    items: Items | None = None
    notes: list[str] = field(default_factory=list)

    @property
    def records(self) -> str:
        """Return what records hold, as ``input.records`` says it."""
        return "signals" if self.items is None else self.items.records


def look_at_file(path: Path, records: str | None = None) -> tuple[Look, list[bytes]]:
    """Return what a file holds, and its messages where it holds some.

    records : the kind of records it is to hold; None: what it looks like
    """
    raw = read_bytes(path)
    enveloped = is_otlp(raw) or any(mark in raw[:BEGINS] for mark in ENVELOPES)
    if not is_lines(path):
        if (known := _one_message(raw)) is not None:
            return _of_signals(known, path.name, records), [raw]
        # The first field of a request in protobuf, which a text seldom begins with.
        if raw.startswith(b"\n") and not enveloped and rows_of_logs([raw], most=1):
            return look_at([raw], path.name, records), [raw]
        if enveloped and raw.lstrip().startswith(b"["):
            return look_at([raw], path.name, records), [raw]
        messages = raw.lstrip().startswith(b"{") and (path.suffix != ".json" or enveloped)
        if not messages:
            look = _of_table(read_sheet(path), records)
            look.format = "arrow" if raw.startswith(ARROW_STARTS) else look.format
            return look, []
    lines = [line for line in raw.split(b"\n") if line.strip()][:MAX_RECORDS]
    if enveloped and not _is_json(lines[0]):
        lines = [raw]
    return look_at(lines, path.name, records), lines


def _one_message(raw: bytes) -> str | None:
    """Return the format of a file that is one binary message of a topic, None where it is not."""
    if b"\0" not in raw[:4096] or raw.startswith(TABLES):
        return None
    return next((codec for codec in BINARY if _reads(codec, [raw])), None)


def _reads(codec: str, payloads: Sequence[bytes | None]) -> bool:
    """Say whether a codec finds points in messages."""
    n = len(payloads)
    return (
        len(make_codec(codec, FieldMap()).decode(payloads, np.arange(n), np.full(n, -1)).batch) > 0
    )


def _is_json(text: bytes) -> bool:
    try:
        orjson.loads(text)
    except orjson.JSONDecodeError:
        return False
    return True


def _of_signals(form: str, name: str, records: str | None) -> Look:
    """Return that a format holds metrics, and nothing else."""
    if records not in (None, "signals"):
        msg = f"{name}: its format, {form}, holds metrics; --records {records} cannot read it"
        raise ConfigError(msg)
    return Look(format=form)


def look_at(payloads: Sequence[bytes | None], name: str, records: str | None = None) -> Look:
    """Return what the messages of a topic hold.

    records : the kind of records; None: what they look like

    Raises
    ------
    ConfigError
        where their format is none that is read, or no field can be the time, the key or a value
    """
    given = [payload for payload in payloads if payload]
    if not given:
        msg = f"{name} holds no message to look at"
        raise ConfigError(msg)
    first = bare(given[0])
    if first.startswith((b"{", b"[")):
        return _of_json(given, name, records)
    if first.startswith(ARROW_STARTS):
        sheet = read_arrow(given[0], name)
        return _of_sheet(sheet, "arrow", records)
    if (known := framing(given[0])) is not None:
        msg = f"{name}: {known}"
        raise ConfigError(msg)
    if rows_of_logs(given[:20], most=1):
        return _of_logs(given, name, records)
    if (known := next((codec for codec in BINARY if _reads(codec, given[:20])), None)) is not None:
        return _of_signals(known, name, records)
    msg = (
        f"{name}: its messages begin with {given[0][:8]!r}, which is none of the formats that are "
        "read (JSON, CloudEvents, Arrow, OTLP, Prometheus remote write)"
    )
    raise ConfigError(msg)


def _of_json(payloads: Sequence[bytes], name: str, records: str | None) -> Look:
    objects = _records(payloads)
    first = objects[:10]
    if any("resourceMetrics" in one for one in first):
        return _of_signals("otlp_json", name, records)
    if any("resourceLogs" in one for one in first):
        return _of_logs(payloads, name, records)
    if first and all("specversion" in one and "source" in one for one in first):
        return _of_cloudevents(objects, name, records)
    return _of_records(objects, name, records)


def read_arrow(payload: bytes, name: str) -> Sheet:
    """Return the table of an Arrow message."""
    reader = pl.read_ipc if payload.startswith(b"ARROW1") else pl.read_ipc_stream
    try:
        return Sheet(name=name, frame=reader(payload))
    except (pl.exceptions.PolarsError, OSError) as error:
        msg = f"{name}: is no Arrow message ({str(error).splitlines()[0]})"
        raise ConfigError(msg) from error


def _records(payloads: Sequence[bytes]) -> list[dict[str, Any]]:
    records: list[Any] = []
    for payload in payloads:
        for text in _texts(bare(payload)):
            try:
                record = orjson.loads(text)
            except orjson.JSONDecodeError:
                continue
            records += record if isinstance(record, list) else [record]
            if len(records) >= MAX_RECORDS:
                return [one for one in records if isinstance(one, dict)]
    return [one for one in records if isinstance(one, dict)]


def _texts(text: bytes) -> list[bytes]:
    return [text] if _is_json(text) else text.split(b"\n")


def _of_records(objects: list[dict[str, Any]], name: str, records: str | None) -> Look:
    if not objects:
        msg = f"{name}: no message is a JSON object"
        raise ConfigError(msg)
    objects, rows = unpacked(objects)
    look = _of_sheet(Sheet(name=name, frame=table_of(objects[:MAX_RECORDS])), "json", records)
    if rows is not None and look.fields is not None:
        look.fields = replace(look.fields, rows=rows)
    return look


def _of_cloudevents(objects: list[dict[str, Any]], name: str, records: str | None) -> Look:
    """Return the look at CloudEvents: as JSON, but for what says nothing of an event."""
    kept = [{k: v for k, v in one.items() if k not in NO_FIELDS} for one in objects]
    look = _of_records(kept, name, records)
    look.format = "cloudevents"
    return look


def _of_logs(payloads: Sequence[bytes], name: str, records: str | None) -> Look:
    """Return the look at log records of OpenTelemetry: events, or edges where they have two ends.

    Raises
    ------
    ConfigError
        where they are to be signals, or no record has a time
    """
    rows = rows_of_logs(payloads, most=MAX_RECORDS)
    if not rows:
        msg = f"{name}: holds log records, and none of them has a time"
        raise ConfigError(msg)
    if records == "signals":
        msg = (
            f"{name}: holds log records; --records events or edges reads them. For signals write "
            "the pipeline by hand: format: otlp_logs, and fields.values with numeric attributes"
        )
        raise ConfigError(msg)
    sheet = Sheet(name=name, frame=table_of(rows))
    look = _of_items(sheet, LOGS, records, table=False)
    look = look or _of_items(sheet, LOGS, "events", table=False)
    if look is None or look.items is None:
        msg = f"{name}: its log records have no field to judge by"
        raise ConfigError(msg)
    # The codec takes the record's own time.
    del look.items.fields["time"], look.items.fields["time_unit"]
    look.fields = field_map(pipeline_of(look.records, look.items.fields, detector=""))
    return look


def _of_items(sheet: Sheet, codec: str, records: str | None, *, table: bool) -> Look | None:
    """Return the look at events or edges, None where a table holds signals."""
    roles = find_roles(sheet, measure=False)
    found = look_for_items(replace(sheet, frame=roles.frame), roles, file=table, asked=records)
    if found is None:
        return None
    default = FieldMap()
    own = roles.time is None or roles.time in sheet.frame.columns
    unit = _unit_of_table(roles) if table else _unit(roles, sheet.name)
    time = {"time": found.fields["time"], "time_unit": unit}
    if not own:
        time = {"time": default.time, "time_unit": default.time_unit}
    found.fields.update(time)
    return Look(
        format=codec,
        fields=field_map(pipeline_of(found.records, found.fields, detector="")),
        table=table,
        items=found,
        notes=[*(sheet.notes if table else ()), *found.notes],
    )


def _of_sheet(sheet: Sheet, codec: str, records: str | None) -> Look:
    """Find the fields of records, of the commonest measurement where there are several."""
    found_items = _of_items(sheet, codec, records, table=False)
    if found_items is not None:
        return found_items
    frame, notes = sheet.frame, list[str]()
    where: tuple[tuple[str, str], ...] = ()
    found = _measurements(frame)
    if found is not None:
        column, value, others = found
        where = ((column, value),)
        notes.append(f"other measurements of the topic are left out: {', '.join(others[:5])}")
        frame = frame.filter(pl.col(column) == value)
        frame = frame.select(c for c in frame.columns if frame[c].null_count() < len(frame))
    roles = find_roles(Sheet(name=sheet.name, frame=frame))
    if roles.time is None or roles.moments is None:
        msg = f"{sheet.name}: no field holds times; it has: {', '.join(frame.columns)}"
        raise ConfigError(msg)
    key = roles.key or _only_text(frame, roles, taken=[asked for asked, _ in where])
    if not key:
        msg = (
            f"{sheet.name}: no field of texts names the series; it has: {', '.join(frame.columns)}"
        )
        raise ConfigError(msg)
    values = [name for name in roles.values if name not in key]
    if len(values) > MAX_VALUES:
        notes.append(f"{len(values) - MAX_VALUES} other numeric fields are left out")
    fields = FieldMap(
        key=tuple(key),
        time=roles.time,
        time_unit=_unit(roles, sheet.name),
        values=tuple(values[:MAX_VALUES]),
        where=where,
    )
    return Look(format=codec, fields=fields, notes=[*notes, *roles.notes])


def _unit(roles: Roles, name: str) -> TimeUnit:
    unit = "" if roles.moments is None else roles.moments.unit
    if unit in PER_SECOND or unit == "iso":
        return cast("TimeUnit", unit)
    msg = (
        f"{name}: the times of {roles.time!r} are no epochs and not ISO 8601; have the producer "
        "write either"
    )
    raise ConfigError(msg)


def _only_text(frame: pl.DataFrame, roles: Roles, taken: Sequence[str]) -> tuple[str, ...]:
    """Return what there is to name series by: texts in every record that few values have."""
    texts: list[str] = []
    for name in frame.columns:
        column = frame[name]
        if column.dtype != pl.String or name in (roles.time, *roles.values, *taken):
            continue
        few = column.null_count() == 0 and column.n_unique() <= max(2, len(frame) // 4)
        if few and not any(column.equals(frame[other]) for other in texts):
            texts.append(name)
    telling = [name for name in texts if name.lower().split(".")[-1] in IDENTITY]
    return tuple((telling or texts)[:MAX_KEYS])


def _measurements(frame: pl.DataFrame) -> tuple[str, str, list[str]] | None:
    """Return the column that tells measurements apart, its commonest value, and the others.

    Each value of it stands with the same numeric fields, and not all with the same; None where
    there is no such column.
    """
    numeric = [c for c in frame.columns if frame[c].dtype.is_numeric()]
    partly = [c for c in numeric if 0 < frame[c].null_count() < len(frame)]
    if not partly:
        return None
    shapes = frame.select(pl.concat_str([pl.col(c).is_null() for c in partly]).alias("shape"))
    for column in frame.columns:
        if frame[column].dtype != pl.String or frame[column].null_count():
            continue
        both = frame.select(pl.col(column).alias("name")).with_columns(shapes["shape"])
        names, pairs = both["name"].n_unique(), both.n_unique()
        if 1 < names == pairs <= MAX_VALUES * 4 and both["shape"].n_unique() > 1:
            order = both["name"].value_counts(sort=True)["name"].to_list()
            return column, str(order[0]), [str(name) for name in order[1:]]
    return None


def _unit_of_table(roles: Roles) -> TimeUnit:
    """Return the unit of a file's times; ticks count as seconds, rows as whatever they are."""
    if roles.moments is None:
        return "s"
    unit = roles.moments.unit
    return cast("TimeUnit", unit) if unit in PER_SECOND else "iso"


def _of_table(sheet: Sheet, records: str | None) -> Look:
    found_items = _of_items(sheet, "json", records, table=True)
    if found_items is not None:
        return found_items
    roles = find_roles(sheet)
    if roles.time is None or roles.moments is None:
        msg = f"{sheet.name}: no column holds times; it has: {', '.join(sheet.frame.columns)}"
        raise ConfigError(msg)
    unit = _unit_of_table(roles)
    own = roles.time in sheet.frame.columns
    fields = FieldMap(
        key=roles.key or FieldMap().key,
        time=roles.time if own else FieldMap().time,
        time_unit=unit if own else FieldMap().time_unit,
        values=tuple(roles.values) if len(roles.values) == 1 else FieldMap().values,
    )
    return Look(format="json", fields=fields, table=True, notes=[*sheet.notes, *roles.notes])
