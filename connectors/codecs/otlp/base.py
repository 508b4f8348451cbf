"""OTLP metrics in either encoding: what names their series, and what makes rows of them.

Gauges and sums are series; histograms and summaries give their count and sum. What a metric is
(gauge, counter, delta) stands in the payload and travels as the tag ``kind``.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Any, NamedTuple

import numpy as np
from google.protobuf.message import DecodeError
from numpy.typing import NDArray

from connectors.codecs.fields import FieldMap
from connectors.codecs.json_lines import admit
from connectors.codecs.labels import (
    DELTA,
    MAX_REMEMBERED_BYTES,
    REMEMBERED_BYTES,
    Identity,
    Points,
    bounded_ms,
    canonical,
    identify,
    lookup,
    nameless,
    require_labels,
    size_of,
)
from connectors.codecs.rows import MAX_KEY_BYTES, Fault, shorten
from streamad.records import Decoded, Rejected

DELTA_TEMPORALITY = (1, "AGGREGATION_TEMPORALITY_DELTA")
NO_RECORDED_VALUE = 1
RESOURCE = "resource."
NS_A_MS = 1_000_000
NAN = float("nan")

MAX_PARTS = 4
"""Resources, scopes, metrics and points of a message together: so many times its rows."""

MAX_RESOURCE_LABELS = 10_000

DESCRIBING = frozenset(
    {
        "service.name",  # it stands before the metric
        "service.version",
        "host.arch", "host.type", "host.ip", "host.mac", "host.image.id", "host.image.name",
        "host.image.version", "container.command", "container.runtime",
        "k8s.container.restart_count",
    }
)  # fmt: skip
DESCRIBING_PREFIXES = ("telemetry.", "process.", "os.", "webengine.", "container.image.")
DESCRIBING_SUFFIXES = (".uid", ".start_time", "_args", ".command_line")
IDENTIFYING = frozenset({"service.namespace", "service.instance.id", "host.name", "k8s.pod.name"})

Table = dict[str, str]


@dataclass(frozen=True, slots=True)
class Origin:
    """A resource and a scope, and the series of theirs that were named already."""

    resource: Resource
    scope: str
    known: dict[tuple[str, str, bytes | tuple[bytes, ...]], Identity] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Resource:
    """A resource, its attributes under both of their names, and its scopes by name.

    shown : the attributes that tell it from others of its service, see `identifying`
    """

    table: Table
    shown: Table = field(default_factory=dict)
    scopes: dict[str, Origin] = field(default_factory=dict)


class TooManyError(ValueError):
    """A message has more parts than its rows could need."""


@dataclass(slots=True)
class Parts:
    """How many more parts a message may have: even empty ones cost time and memory."""

    left: int

    def take(self, number: int) -> None:
        """Take some; raises `TooManyError` where there are no more."""
        self.left -= number
        if self.left < 0:
            raise TooManyError


class Reading(NamedTuple):
    """One number of a metric: ``path`` is where its data point stands in the request.

    labels : the point's attributes as they came; they are read once a series, not once a point:
        bytes, or a tuple of bytes
    """

    path: tuple[int, int, int, int]
    origin: Origin
    name: str
    kind: str
    labels: bytes | tuple[bytes, ...]
    time_ns: int | None
    value: float | None


class OtlpCodec(ABC):
    """What both encodings share: naming series and turning readings into rows.

    The default key is ``service/metric{attribute="value",...}``, with the attributes of the point
    and those by which its resource differs from others of the service. ``fields.key``, ``variate``
    and ``tags`` may name ``metric``, ``scope``, an attribute of the point or, with or without the
    prefix ``resource.``, one of the resource; ``fields.key`` also ``key``, which is the default.

    The scope is not in the default key: it names the library that measures, not what is measured.
    An update renames it (the collector's own receivers were), and every series would begin anew.
    Whether it separates two streams shows only beside other records, and a key must follow from its
    record alone. Where it does, points are merged and counted: ``fields.key: [key, scope]``.
    """

    def __init__(
        self, fields: FieldMap, *, max_message_bytes: int, max_rows_per_message: int
    ) -> None:
        require_labels("otlp", fields)
        self._fields = fields
        self._max_bytes, self._max_rows = max_message_bytes, max_rows_per_message
        self._too_many = f"more than {max_rows_per_message} points; send smaller batches"
        # Caches by content: what they hold never changes a result.
        self._resources: dict[Hashable, Resource] = {}
        self._known_bytes = 0

    @abstractmethod
    def _parse(self, text: bytes) -> Any:
        """Return the request; raises ValueError where it is none."""

    @abstractmethod
    def _readings(self, request: Any, parts: Parts) -> Iterator[Reading]:
        """Yield every number of a request, in order; raises as `_parse`, or `TooManyError`."""

    @abstractmethod
    def _attributes(self, labels: Any) -> Table:
        """Read the attributes of a point; raises ValueError or DecodeError where they are none."""

    @abstractmethod
    def _alone(self, request: Any, path: tuple[int, int, int, int]) -> bytes | None:
        """Return a request of one data point, so that it can be replayed without the others.

        None where it cannot be written: the whole message stands for the point.
        """

    def decode(
        self,
        payloads: Sequence[bytes | None],
        offsets: NDArray[np.int64],
        broker_ms: NDArray[np.int64],
    ) -> Decoded:
        """Return the usable points of ``payloads`` and what had to be rejected; never raises."""
        points = Points(self._fields)
        origins: list[tuple[Any, Reading]] = []
        admitted = admit(payloads, points.rejected, max_bytes=self._max_bytes)
        for text, place in zip(admitted.texts, admitted.place.tolist(), strict=True):
            try:
                request = self._parse(text)
                parts = Parts(MAX_PARTS * self._max_rows)
                readings = list(islice(self._readings(request, parts), self._max_rows + 1))
            except TooManyError:
                points.rejected.append(refuse(place, text, "too_many_rows", self._too_many))
                continue
            except (ValueError, DecodeError, RecursionError, UnicodeError) as error:
                points.rejected.append(refuse(place, text, "invalid_otlp", str(error)))
                continue
            if len(readings) > self._max_rows:
                points.rejected.append(refuse(place, text, "too_many_rows", self._too_many))
                continue
            self._take(readings, place, points)
            origins.extend((request, reading) for reading in readings)

        def explain(index: int, reason: str) -> Fault:
            request, reading = origins[index]
            if reading.value is None:
                reason = "wrong_type"
            detail = f"{reading.name}: {reason}: {reading.value} at {reading.time_ns} ns"
            return Fault(reason, detail, self._alone(request, reading.path))

        return points.decoded(offsets, broker_ms, explain)

    def _take(self, readings: Sequence[Reading], place: int, points: Points) -> None:
        for row, reading in enumerate(readings):
            identity = reading.origin.known.get((reading.name, reading.kind, reading.labels))
            # No time is 0 in protobuf, and never meant to be 1970.
            time_ms = bounded_ms((reading.time_ns or -1) // NS_A_MS)
            value = NAN if reading.value is None else reading.value
            points.taken.append((place, row, identity or self._identity(reading), time_ms, value))

    def _resource(self, table: Table) -> Resource:
        key = tuple(table.items())
        known = self._resources.get(key)
        if known is None:
            self._remember(sum(2 * (len(label) + len(text)) + 200 for label, text in key))
            known = self._resources[key] = Resource(_with_prefix(table), identifying(table))
        return known

    def _origin(self, resource: Resource, scope: str) -> Origin:
        origin = resource.scopes.get(scope)
        if origin is None:
            self._remember(len(scope) + REMEMBERED_BYTES)
            origin = resource.scopes[scope] = Origin(resource, scope)
        return origin

    def _remember(self, n_bytes: int) -> None:
        """Forget everything where it would become too much."""
        self._known_bytes += n_bytes
        if self._known_bytes <= MAX_REMEMBERED_BYTES:
            return
        for resource in self._resources.values():
            for origin in resource.scopes.values():
                origin.known.clear()
            resource.scopes.clear()
        self._resources.clear()
        self._known_bytes = n_bytes

    def _identity(self, reading: Reading) -> Identity:
        identity, labels = self._name(reading), reading.labels
        n_labels = sum(map(len, labels)) if isinstance(labels, tuple) else len(labels)
        self._remember(size_of(identity) + len(reading.name) + n_labels)
        reading.origin.known[reading.name, reading.kind, labels] = identity
        return identity

    def _name(self, reading: Reading) -> Identity:
        fields, resource = self._fields, reading.origin.resource.table
        try:
            attributes = self._attributes(reading.labels)
        except (ValueError, DecodeError, RecursionError):
            return nameless(fields, reading.kind)
        shown = [item for item in attributes.items() if item[0] != fields.variate]
        name = "" if fields.variate == "metric" else reading.name
        service = resource.get("service.name")
        name = f"{service}/{name}" if service else name
        default = canonical(name, [*reading.origin.resource.shown.items(), *shown])
        if len(default.encode()) > MAX_KEY_BYTES:
            default = canonical(name, [*_least(reading.origin.resource.shown).items(), *shown])
        own = {"metric": reading.name, "scope": reading.origin.scope, "key": default}
        return identify(fields, default, lookup(attributes, own, resource), reading.kind)


def identifying(resource: Table) -> Table:
    """Return the attributes of a resource by which streams are told apart.

    In OTLP every attribute of a resource is part of a stream's identity. What only describes the
    software, or changes with each restart, would begin a new series there.

    Examples
    --------
    >>> identifying({"service.name": "api", "host.name": "a", "telemetry.sdk.name": "otel"})
    {'host.name': 'a'}
    """
    return {
        label: text
        for label, text in resource.items()
        if label not in DESCRIBING
        and not label.startswith(DESCRIBING_PREFIXES)
        and not label.endswith(DESCRIBING_SUFFIXES)
    }


def _least(shown: Table) -> Table:
    """Return what of a resource is in a key that would be too long with all of it."""
    return {label: text for label, text in shown.items() if label in IDENTIFYING}


def _with_prefix(resource: Table) -> Table:
    """Let resource attributes be found by both of their names."""
    return {**resource, **{f"{RESOURCE}{label}": text for label, text in resource.items()}}


def refuse(place: int, text: bytes, reason: str, detail: str) -> Rejected:
    """Return a rejection of a whole message."""
    return Rejected(message=place, reason=reason, detail=shorten(detail), payload=text)


def kind_of(temporality: object, *, cumulative: str) -> str:
    """Return the kind of a sum or histogram; ``cumulative`` is what it is unless it is a delta."""
    return DELTA if temporality in DELTA_TEMPORALITY else cumulative


def check_resource(n_attributes: int) -> None:
    """Refuse a resource with too many attributes: raises ValueError."""
    if n_attributes > MAX_RESOURCE_LABELS:
        msg = f"a resource has {n_attributes} attributes, at most {MAX_RESOURCE_LABELS} are read"
        raise ValueError(msg)
