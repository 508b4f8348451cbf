"""Prometheus remote write 1.0: a snappy block holding a protobuf ``WriteRequest``.

The message is described here with labels as raw bytes (the same on the wire): a series seen before
is recognised by those bytes, and its labels are decoded once, not once a scrape.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from functools import cache
from typing import Any

import cramjam
import numpy as np
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from google.protobuf.message import DecodeError
from numpy.typing import NDArray

from connectors.codecs.fields import FieldMap
from connectors.codecs.json_lines import admit
from connectors.codecs.labels import (
    COUNTER,
    GAUGE,
    MAX_LABELS,
    MAX_REMEMBERED_BYTES,
    Identity,
    Points,
    canonical,
    identify,
    lookup,
    nameless,
    require_labels,
    size_of,
)
from connectors.codecs.rows import Fault, shorten
from streamad.records import Decoded, Rejected

MAX_EXPANSION = 16
"""A snappy block may say it expands to no more than this many times the largest message."""

PARSE_BYTES = 4 * 1_048_576
"""Larger requests are parsed in pieces: parsed, empty messages take twenty times their bytes."""

STALE = 0x7FF0000000000002
"""The NaN by which Prometheus says that a series ended: no value, and no error either."""

COUNTER_SUFFIXES = ("_total", "_count", "_sum", "_bucket")


@cache
def messages() -> tuple[Any, Any]:
    """Return the classes of WriteRequest and Label, with only the fields that are read."""
    field = descriptor_pb2.FieldDescriptorProto
    one, many = field.LABEL_OPTIONAL, field.LABEL_REPEATED
    shapes: dict[str, list[tuple[str, int, int, int, str]]] = {
        "Label": [
            ("name", 1, one, field.TYPE_STRING, ""),
            ("value", 2, one, field.TYPE_STRING, ""),
        ],
        "Sample": [
            ("value", 1, one, field.TYPE_DOUBLE, ""),
            ("timestamp", 2, one, field.TYPE_INT64, ""),
        ],
        "TimeSeries": [
            ("labels", 1, many, field.TYPE_BYTES, ""),
            ("samples", 2, many, field.TYPE_MESSAGE, ".streamad.prometheus.Sample"),
        ],
        "WriteRequest": [
            ("timeseries", 1, many, field.TYPE_MESSAGE, ".streamad.prometheus.TimeSeries"),
        ],
    }
    file = descriptor_pb2.FileDescriptorProto(
        name="streamad/prometheus.proto", package="streamad.prometheus", syntax="proto3"
    )
    for name, parts in shapes.items():
        message = file.message_type.add(name=name)
        for part, number, label, kind, type_name in parts:
            message.field.add(
                name=part, number=number, label=label, type=kind, type_name=type_name or None
            )
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    request, label_class = (
        message_factory.GetMessageClass(pool.FindMessageTypeByName(f"streamad.prometheus.{name}"))
        for name in ("WriteRequest", "Label")
    )
    return request, label_class


class RemoteWriteCodec:
    """Decoder of remote write requests; a series' key is ``name{label="value",...}``.

    With other ``fields.key``, ``variate`` and ``tags``, these name labels (``__name__`` is the
    metric). Every row has a tag ``kind``: ``counter`` where the name ends as counters' names do,
    else ``gauge``, for the request itself does not say.
    """

    def __init__(
        self, fields: FieldMap, *, max_message_bytes: int, max_rows_per_message: int
    ) -> None:
        require_labels("prometheus", fields)
        self._fields = fields
        self._max_bytes, self._max_rows = max_message_bytes, max_rows_per_message
        # A cache by content: what it holds never changes a result.
        self._known: dict[tuple[bytes, ...], Identity] = {}
        self._known_bytes = 0

    def decode(
        self,
        payloads: Sequence[bytes | None],
        offsets: NDArray[np.int64],
        broker_ms: NDArray[np.int64],
    ) -> Decoded:
        """Return the usable samples of ``payloads`` and what had to be rejected; never raises."""
        points = Points(self._fields)
        requests: dict[int, _Request] = {}
        admitted = admit(payloads, points.rejected, max_bytes=self._max_bytes)
        for text, place in zip(admitted.texts, admitted.place.tolist(), strict=True):
            n_taken = len(points.taken)
            try:
                requests[place] = self._take(self._expand(text), place, points)
            except _TooManyError:
                detail = f"more than {self._max_rows} samples; lower max_samples_per_send"
                points.rejected.append(_refuse(place, text, "too_many_rows", detail))
            except READER_ERRORS as error:
                detail = str(error) or type(error).__name__
                points.rejected.append(_refuse(place, text, "invalid_remote_write", detail))
            if place not in requests:
                del points.taken[n_taken:]

        def explain(index: int, reason: str) -> Fault:
            point = points[index]
            detail = f"{reason}: {point.series.key}: {point.value} at {point.time_ms} ms"
            return Fault(reason, detail, requests[point.message].alone(point.row))

        return points.decoded(offsets, broker_ms, explain)

    def _expand(self, text: bytes) -> bytes:
        size = cramjam.snappy.decompress_raw_len(text)
        if size > self._max_bytes * MAX_EXPANSION:
            msg = f"would expand to {size} bytes, at most {MAX_EXPANSION} times the bound"
            raise ValueError(msg)
        return bytes(cramjam.snappy.decompress_raw(text))

    def _take(self, raw: bytes, place: int, points: Points) -> _Request:
        """Collect the samples of a request; raises where it is none, or has too many."""
        row, taken, first_rows = 0, points.taken, []
        pieces = _pieces(raw, self._max_rows)
        for piece in pieces:
            first_rows.append(row)
            request = messages()[0].FromString(piece)
            if len(request.timeseries) > self._max_rows:
                raise _TooManyError
            if row + sum(len(series.samples) for series in request.timeseries) > self._max_rows:
                raise _TooManyError
            for series in request.timeseries:
                identity = self._identity(series.labels)
                for sample in series.samples:
                    value = sample.value
                    # NaN is the only value unlike itself; only then are its bits worth a look.
                    if value == value or np.float64(value).view(np.uint64) != STALE:  # noqa: PLR0124
                        taken.append((place, row, identity, sample.timestamp, value))
                    row += 1
        return _Request(pieces, first_rows)

    def _identity(self, labels: Sequence[bytes]) -> Identity:
        seen = tuple(labels)
        identity = self._known.get(seen)
        if identity is None:
            identity = self._read_labels(seen)
            n_bytes = size_of(identity) + sum(map(len, seen)) + 40 * len(seen)
            self._known_bytes += n_bytes
            if self._known_bytes > MAX_REMEMBERED_BYTES:
                self._known.clear()
                self._known_bytes = n_bytes
            self._known[seen] = identity
        return identity

    def _read_labels(self, labels: Sequence[bytes]) -> Identity:
        label_class = messages()[1]
        if len(labels) > MAX_LABELS:
            return nameless(self._fields, GAUGE)
        try:
            pairs = [label_class.FromString(label) for label in labels]
        except DecodeError:
            return nameless(self._fields, GAUGE)
        table = {pair.name: pair.value for pair in pairs}
        name = table.get("__name__", "")
        spare = {"__name__", self._fields.variate}
        rest = [(label, text) for label, text in table.items() if label not in spare]
        shown = "" if self._fields.variate == "__name__" else name
        kind = COUNTER if name.endswith(COUNTER_SUFFIXES) else GAUGE
        return identify(self._fields, canonical(shown, rest), lookup(table), kind)


class _TooManyError(ValueError):
    """A request holds more series or samples than a message may."""


READER_ERRORS = (
    cramjam.DecompressionError,
    DecodeError,
    ValueError,
    OverflowError,
    MemoryError,
)


class _Request:
    """A request of which single samples are wanted: parsed once more, for rejected ones alone.

    first_rows : the number of the first sample of each piece
    """

    def __init__(self, pieces: Sequence[bytes], first_rows: Sequence[int]) -> None:
        self._pieces, self._first_rows = pieces, first_rows
        self._open = -1
        self._series: Sequence[Any] = ()
        self._ends: NDArray[np.int64] = np.empty(0, np.int64)

    def alone(self, row: int) -> bytes:
        """Return a request of one sample, so that it can be replayed without its neighbours."""
        piece = bisect_right(self._first_rows, row) - 1
        if piece != self._open:
            self._open = piece
            self._series = messages()[0].FromString(self._pieces[piece]).timeseries
            sizes = (len(series.samples) for series in self._series)
            self._ends = np.cumsum(np.fromiter(sizes, np.int64, len(self._series)))
        row -= self._first_rows[piece]
        number = int(np.searchsorted(self._ends, row, side="right"))
        series = self._series[number]
        single = messages()[0]()
        copy = single.timeseries.add(labels=series.labels)
        copy.samples.add().CopyFrom(
            series.samples[row - int(self._ends[number])]
        )  # counted from the end
        return bytes(cramjam.snappy.compress_raw(single.SerializeToString()))


def _pieces(raw: bytes, most: int) -> list[bytes]:
    """Cut a request between its fields, so that each piece is a request of bounded size.

    most : fields that a request may have; raises `_TooManyError`, or ValueError where it is none
    """
    if len(raw) <= PARSE_BYTES:
        return [raw]
    pieces, begin, at, number = [], 0, 0, 0
    while at < len(raw):
        start, number = at, number + 1
        if number > most:
            raise _TooManyError
        at = _after_field(raw, at)
        if at - begin > PARSE_BYTES and start > begin:
            pieces.append(raw[begin:start])
            begin = start
        if at - begin > PARSE_BYTES:
            msg = f"a series has {at - begin} bytes, at most {PARSE_BYTES} are read"
            raise ValueError(msg)
    if at > len(raw):
        msg = "the request is cut off"
        raise ValueError(msg)
    return [*pieces, raw[begin:]]


def _after_field(raw: bytes, at: int) -> int:
    """Return where the protobuf field that begins at ``at`` ends; raises ValueError."""
    tag, at = _varint(raw, at)
    kind = tag & 7
    if kind == 2:
        size, at = _varint(raw, at)
        return at + size
    if kind == 0:
        return _varint(raw, at)[1]
    if kind in (1, 5):
        return at + (8 if kind == 1 else 4)
    msg = f"a protobuf field of the unknown wire type {kind}"
    raise ValueError(msg)


def _varint(raw: bytes, at: int) -> tuple[int, int]:
    """Return a number of up to ten bytes, and where it ends."""
    value = shift = 0
    for byte in raw[at : at + 10]:
        value |= (byte & 0x7F) << shift
        at += 1
        if byte < 0x80:
            return value, at
        shift += 7
    msg = "a protobuf number does not end"
    raise ValueError(msg)


def _refuse(place: int, text: bytes, reason: str, detail: str) -> Rejected:
    return Rejected(message=place, reason=reason, detail=shorten(detail), payload=text)
