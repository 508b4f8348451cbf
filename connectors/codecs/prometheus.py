"""Prometheus remote write 1.0: a snappy block holding a protobuf ``WriteRequest``.

The message is described here with labels as raw bytes (the same on the wire): a series seen before
is recognised by those bytes, and its labels are decoded once, not once a scrape.
"""

from __future__ import annotations

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
    Identity,
    Points,
    canonical,
    identify,
    lookup,
    require_labels,
)
from connectors.codecs.rows import shorten
from streamad.records import Decoded, Rejected

MAX_EXPANSION = 16
"""A snappy block may say it expands to no more than this many times the largest message."""

MAX_SERIES_REMEMBERED = 200_000

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
        self._known: dict[bytes, Identity] = {}

    def decode(
        self,
        payloads: Sequence[bytes | None],
        offsets: NDArray[np.int64],
        broker_ms: NDArray[np.int64],
    ) -> Decoded:
        """Return the usable samples of ``payloads`` and what had to be rejected; never raises."""
        points = Points(self._fields)
        requests: dict[int, Any] = {}
        admitted = admit(payloads, points.rejected, max_bytes=self._max_bytes)
        for text, place in zip(admitted.texts, admitted.place.tolist(), strict=True):
            request = self._request(text)
            if isinstance(request, str):
                points.rejected.append(_refuse(place, text, "invalid_remote_write", request))
            elif sum(len(series.samples) for series in request.timeseries) > self._max_rows:
                detail = f"more than {self._max_rows} samples; lower max_samples_per_send"
                points.rejected.append(_refuse(place, text, "too_many_rows", detail))
            else:
                requests[place] = request
                self._take(request, place, points)

        def explain(index: int, reason: str) -> tuple[str, str, bytes | None]:
            point = points[index]
            detail = f"{reason}: {point.series.key}: {point.value} at {point.time_ms} ms"
            return reason, detail, _alone(requests[point.message], point.row)

        return points.decoded(offsets, broker_ms, explain)

    def _request(self, text: bytes) -> Any:
        """Return the request, or why it is none."""
        try:
            size = cramjam.snappy.decompress_raw_len(text)
            if size > self._max_bytes * MAX_EXPANSION:
                return f"would expand to {size} bytes, at most {MAX_EXPANSION} times the bound"
            return messages()[0].FromString(bytes(cramjam.snappy.decompress_raw(text)))
        except (cramjam.DecompressionError, DecodeError, ValueError, OverflowError) as error:
            return str(error) or type(error).__name__

    def _take(self, request: Any, place: int, points: Points) -> None:
        row, taken = 0, points.taken
        for series in request.timeseries:
            identity = self._identity(series.labels)
            for sample in series.samples:
                value = sample.value
                # NaN is the only value unlike itself; only then are its bits worth a look.
                if value == value or np.float64(value).view(np.uint64) != STALE:  # noqa: PLR0124
                    taken.append((place, row, identity, sample.timestamp, value))
                row += 1

    def _identity(self, labels: Sequence[bytes]) -> Identity:
        seen = b"\0".join(labels)
        identity = self._known.get(seen)
        if identity is None:
            if len(self._known) >= MAX_SERIES_REMEMBERED:
                self._known.clear()
            identity = self._known[seen] = self._read_labels(labels)
        return identity

    def _read_labels(self, labels: Sequence[bytes]) -> Identity:
        label_class = messages()[1]
        try:
            pairs = [label_class.FromString(label) for label in labels]
        except DecodeError:
            return Identity(None, None, GAUGE, ("",) * len(self._fields.tags))
        table = {pair.name: pair.value for pair in pairs}
        name = table.get("__name__", "")
        spare = {"__name__", self._fields.variate}
        rest = [(label, text) for label, text in table.items() if label not in spare]
        shown = "" if self._fields.variate == "__name__" else name
        kind = COUNTER if name.endswith(COUNTER_SUFFIXES) else GAUGE
        return identify(self._fields, canonical(shown, rest), lookup(table), kind)


def _alone(request: Any, row: int) -> bytes:
    """Return a request of one sample, so that it can be replayed without its neighbours."""
    for series in request.timeseries:
        if row < len(series.samples):
            single = messages()[0]()
            copy = single.timeseries.add(labels=series.labels)
            copy.samples.add().CopyFrom(series.samples[row])
            return bytes(cramjam.snappy.compress_raw(single.SerializeToString()))
        row -= len(series.samples)
    return b""


def _refuse(place: int, text: bytes, reason: str, detail: str) -> Rejected:
    return Rejected(message=place, reason=reason, detail=shorten(detail), payload=text)
