"""OTLP log records, as the collector's Kafka exporter writes them: protobuf or JSON, told apart."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from typing import Any

import numpy as np
import orjson
import polars as pl
from google.protobuf.message import DecodeError
from numpy.typing import NDArray

from connectors.codecs.fields import BAD_TIME, FieldMap, plausible
from connectors.codecs.json_lines import admit
from connectors.codecs.labels import DEFAULT_KEY, bounded_ms
from connectors.codecs.otlp.base import MAX_PARTS, NS_A_MS, Parts, TooManyError, refuse
from connectors.codecs.otlp.logs import (
    MAX_ATTRIBUTES,
    OWN_TABLE,
    Entry,
    LogEncoding,
    Path,
    Place,
    Read,
    UnreadableError,
    find,
    number_of,
    places_of,
    text_of,
)
from connectors.codecs.otlp.logs_json import JsonLogs
from connectors.codecs.otlp.logs_proto import ProtoLogs
from connectors.codecs.rows import (
    CUT_KEY_BYTES,
    Candidates,
    Fault,
    cut_text,
    empty,
    finish,
    joined_key,
    mark_unheld,
    pass_over,
    settle,
    shorten,
    spread,
)
from streamad.errors import ConfigError
from streamad.records import Decoded, Rejected

SERVICE = "service.name"


class OtlpLogsCodec:
    """Decoder of OTLP log records (encodings ``otlp_proto`` and ``otlp_json``): one row each.

    Their fields: ``severity``, ``severity_number``, ``body``, ``event_name``, ``trace_id``,
    ``span_id``, ``scope``, and attributes by name, of the record, its resource or its scope. The
    default key is the resource's ``service.name``; the time is the record's.
    """

    def __init__(
        self, fields: FieldMap, *, max_message_bytes: int, max_rows_per_message: int
    ) -> None:
        if fields.rows is not None:
            msg = "codec otlp_logs: each log record is a row; leave input.fields.rows out"
            raise ConfigError(msg)
        self._fields = fields
        self._key = (SERVICE,) if fields.key == DEFAULT_KEY else fields.key
        self._max_bytes, self._max_rows = max_message_bytes, max_rows_per_message
        self._too_many = f"more than {max_rows_per_message} log records; send smaller batches"
        names = dict.fromkeys((*self._key, *fields.texts, *fields.values))
        self._places = {name: places_of(name) for name in names}
        wanted = frozenset(
            way[0]
            for places in self._places.values()
            for place in places
            if place.table != OWN_TABLE
            for way in place.ways
        )
        self._json, self._proto = JsonLogs(wanted), ProtoLogs(wanted)

    def decode(
        self,
        payloads: Sequence[bytes | None],
        offsets: NDArray[np.int64],
        broker_ms: NDArray[np.int64],
    ) -> Decoded:
        """Return the usable records of ``payloads`` and what had to be rejected; never raises."""
        rejected: list[Rejected] = []
        taken = _Taken(self._places, self._fields.values)
        origins: list[tuple[LogEncoding, Any, Path]] = []
        admitted = admit(payloads, rejected, max_bytes=self._max_bytes)
        for text, place in zip(admitted.texts, admitted.place.tolist(), strict=True):
            encoding: LogEncoding = self._json if is_json(text) else self._proto
            try:
                parts = Parts(MAX_PARTS * self._max_rows)
                request, found = encoding.entries(text, parts)
                entries = list(islice(found, self._max_rows + 1))
            except TooManyError:
                rejected.append(refuse(place, text, "too_many_rows", self._too_many))
                continue
            except (ValueError, DecodeError, RecursionError, UnicodeError) as error:
                rejected.append(refuse(place, text, "invalid_otlp", str(error)))
                continue
            if len(entries) > self._max_rows:
                rejected.append(refuse(place, text, "too_many_rows", self._too_many))
                continue
            for row, entry in enumerate(entries):
                taken.add(encoding, entry, place, row)
                origins.append((encoding, request, entry.path))
        rows = self._candidates(taken)

        def explain(index: int, reason: str) -> Fault:
            encoding, request, path = origins[index]
            detail, column = taken.detail(index, reason, self._key)
            return Fault(reason, detail, encoding.alone(request, path), column)

        rows, refused = settle(rows, explain)
        rejected += refused
        return finish(rows, rejected, self._fields, offsets=offsets, broker_ms=broker_ms)

    def _candidates(self, taken: _Taken) -> Candidates:
        fields = self._fields
        number = len(taken.message)
        if not number:
            return empty(fields.carried, len(fields.variate_names), fields)
        texts = {
            name: pl.Series(name, taken.texts(name), dtype=pl.String)
            for name in dict.fromkeys((*self._key, *fields.carried, *fields.texts))
        }
        values = np.empty((number, len(fields.values)))
        wrong, absent = taken.wrong_key(self._key), np.zeros(number, np.bool_)
        for place, name in enumerate(fields.values):
            read = taken.numbers(name)
            values[:, place] = [np.nan if one is None else one for one in read]
            wrong |= np.array([one is None for one in read])
        time_ms = np.array(taken.time_ms, np.int64)
        rows = Candidates(
            keys=joined_key([texts[name] for name in self._key]),
            time_ms=np.where(plausible(time_ms), time_ms, BAD_TIME),
            values=values,
            message=np.array(taken.message, np.int32),
            row=np.array(taken.row, np.int32),
            tags={name: texts[name].fill_null("") for name in fields.carried},
            measured=fields.payload.measured,
        )
        pass_over(rows, texts, fields.where)
        for reason, mask in taken.marks():
            rows.mark(mask, reason)
        if rows.measured:
            absent = np.isnan(values).all(axis=1)
        if fields.variate is not None:
            spread(rows, values[:, 0], texts[fields.variate], fields.variates)
        rows.mark(wrong, "wrong_type")
        rows.mark(absent, "missing_field")
        if not rows.measured:
            mark_unheld(rows, fields)
        return rows


class _Taken:
    """Records in message order, the fields asked for as columns."""

    def __init__(self, places: Mapping[str, tuple[Place, ...]], numbers: Sequence[str]) -> None:
        self._places, self._numbers = tuple(places.items()), numbers
        self.columns: dict[str, list[Any]] = {name: [] for name in places}
        self.message: list[int] = []
        self.row: list[int] = []
        self.time_ms: list[int] = []
        self._times_ns: list[int | None] = []
        self._unreadable: dict[int, str] = {}
        self._crowded: dict[int, int] = {}

    def add(self, encoding: LogEncoding, entry: Entry, message: int, row: int) -> None:
        """Take the fields asked for of a record."""
        index = len(self.message)
        try:
            read = encoding.read(entry.record)
        except (ValueError, RecursionError) as error:
            self._unreadable[index] = str(error)
            read = Read({}, {}, None, 0)
        if read.n_attributes > MAX_ATTRIBUTES:
            self._crowded[index] = read.n_attributes
        origin = entry.origin
        own = {**origin.own, **read.own}
        tables = (own, read.attributes, origin.resource, origin.scope)
        for name, places in self._places:
            self.columns[name].append(find(tables, places))
        self.message.append(message)
        self.row.append(row)
        # No time is 0 in protobuf, and never meant to be 1970.
        self.time_ms.append(bounded_ms((read.time_ns or -1) // NS_A_MS))
        self._times_ns.append(read.time_ns)

    def texts(self, name: str) -> list[str | None]:
        """Return a field as texts, cut before they are copied to a column."""
        made: list[str | None] = []
        for index, value in enumerate(self.columns[name]):
            try:
                text = text_of(value)
            except UnreadableError as error:
                self._unreadable.setdefault(index, f"{name}: {error}")
                text = None
            made.append(None if text is None else cut_text(text, CUT_KEY_BYTES))
        return made

    def numbers(self, name: str) -> list[float | None]:
        """Return a field as numbers, NaN where absent, None where it holds another thing."""
        return [number_of(value) for value in self.columns[name]]

    def wrong_key(self, key: Sequence[str]) -> NDArray[np.bool_]:
        """Say which records have an object or an array where a part of the key should be."""
        wrong = np.zeros(len(self.message), np.bool_)
        for name in key:
            wrong |= np.array([isinstance(one, (dict, list)) for one in self.columns[name]])
        return wrong

    def marks(self) -> Iterator[tuple[str, NDArray[np.bool_]]]:
        """Yield what is held against records as a whole, by reason."""
        for reason, found in (("invalid_otlp", self._crowded), ("wrong_type", self._unreadable)):
            mask = np.zeros(len(self.message), np.bool_)
            mask[list(found)] = True
            yield reason, mask

    def detail(self, index: int, reason: str, key: Sequence[str]) -> tuple[str, str]:
        """Say what is wrong with a record ("": its columns show it), and with which field."""
        if index in self._unreadable:
            return self._unreadable[index], ""
        if index in self._crowded:
            return f"{self._crowded[index]:,} attributes, at most {MAX_ATTRIBUTES:,} are read", ""
        if reason == "bad_time":
            given = self._times_ns[index]
            shown = "neither is set" if not given else f"got {given} ns"
            detail = f"no time in timeUnixNano, nor in observedTimeUnixNano: {shown}"
            return detail, "timeUnixNano"
        values = {name: column[index] for name, column in self.columns.items()}
        if reason == "missing_field":
            names = [name for name in key if values[name] is None] or list(values)
            where = "among its attributes, those of its resource and of its scope"
            return f"the log record has no {', '.join(names[:10])} {where}", names[0]
        if reason == "wrong_type":
            odd = [name for name in key if isinstance(values[name], (dict, list))]
            odd += [name for name in self._numbers if number_of(values[name]) is None]
            got = {name: shorten(str(values[name]), 60) for name in odd}
            detail = f"expected a text in the key and numbers elsewhere, got {got}"
            return detail, odd[0] if odd else ""
        return "", ""


def is_json(text: bytes) -> bool:
    """Say whether a request is JSON: it begins with a brace, maybe behind blanks.

    A protobuf request may begin with a line feed, its first field, but what follows is a length: it
    is taken for JSON only where all that stands before the brace is blank and it ends as JSON does.
    """
    if text[:1] == b"{":
        return True
    bare = text.lstrip(b" \t\r\n\xef\xbb\xbf")
    return bare[:1] == b"{" and text.rstrip(b" \t\r\n")[-1:] == b"}" and _reads(bare)


def _reads(text: bytes) -> bool:
    try:
        orjson.loads(text)
    except ValueError:
        return False
    return True
