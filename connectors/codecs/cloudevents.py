"""CloudEvents 1.0 as they lie on Kafka: structured mode as it is, binary mode brought to that form.

Source: the Kafka protocol binding of CloudEvents 1.0.2. In binary mode attributes are headers
(``ce_type``, ``ce_time``) and the value is the data; in structured mode the value is one JSON
object of attributes with a member ``data``. Fields go by their names in that object in either mode:
``type``, ``subject``, ``data.user``.
"""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import orjson
from numpy.typing import NDArray

from connectors.codecs.fields import FieldMap
from connectors.codecs.json import JsonCodec
from connectors.codecs.json_wrappers import bare
from connectors.codecs.labels import DEFAULT_KEY
from streamad.records import Decoded

STRUCTURED = "application/cloudevents"
"""Of structured and of batched events; the suffix names the format of the value."""
PREFIX = "ce_"
CONTENT_TYPE = "content-type"
DATA = ("data", "data_base64")
ENVELOPED = b'{"specversion":'
"""An event of binary mode begins so once it was brought to the other form, as in dead letters."""
MAX_ATTRIBUTES = 200
"""Attributes of an event beyond these are left out."""

Headers = Sequence[tuple[str, bytes | None]]


class CloudEventsCodec:
    """Decoder of CloudEvents 1.0 in JSON: structured, batched, or binary with headers ``ce_*``.

    Attributes and data go by their names in structured mode, whatever the mode: ``type``,
    ``subject``, ``data.user``. By default the key is ``source`` and the time is ``time``. With
    ``rows: data`` each element of an array in ``data`` is a row. Data of binary mode that is no
    JSON is ``data_base64``.
    """

    reads_headers = True

    def __init__(
        self, fields: FieldMap, *, max_message_bytes: int, max_rows_per_message: int
    ) -> None:
        default = FieldMap()
        if (fields.time, fields.time_unit) == (default.time, default.time_unit):
            fields = replace(fields, time="time", time_unit="iso")
        if fields.key == DEFAULT_KEY:
            fields = replace(fields, key=("source",))
        self._rows_are_data = fields.rows == DATA[0]
        self._inner = JsonCodec(
            fields, max_message_bytes=max_message_bytes, max_rows_per_message=max_rows_per_message
        )
        self._max_bytes = max_message_bytes

    def decode(
        self,
        payloads: Sequence[bytes | None],
        offsets: NDArray[np.int64],
        broker_ms: NDArray[np.int64],
        headers: Sequence[Headers] | None = None,
    ) -> Decoded:
        """Return the usable rows of ``payloads`` and what had to be rejected; never raises.

        headers : those of each message; without them messages are in structured mode
        """
        if headers is not None:
            payloads = [self.structured(*one) for one in zip(payloads, headers, strict=True)]
        return self._inner.decode(payloads, offsets, broker_ms)

    def structured(self, payload: bytes | None, headers: Headers) -> bytes | None:
        """Return an event of binary mode in structured form, any other message as it is."""
        if payload is None or len(payload) > self._max_bytes or not headers:
            return payload
        given = attributes_of(headers)
        if "specversion" not in given or payload.startswith(ENVELOPED):
            return payload
        head = orjson.dumps(given)[:-1]
        data = bare(payload)
        if not data:
            return head + b"}"
        declared = given.get("datacontenttype")
        if not is_json_type(declared) or (declared is None and not _reads(data)):
            return head + b',"data_base64":"' + base64.b64encode(payload) + b'"}'
        if not _reads(data):
            # It is to be refused, and shown: as what it is, for braces in it could fit our own.
            return data
        if self._rows_are_data and data.startswith(b"{"):
            data = b"[" + data + b"]"
        # A line break in JSON is space between tokens; in the reader's eyes a row ends with it.
        return head + b',"data":' + data.replace(b"\n", b" ") + b"}"


def attributes_of(headers: Headers) -> dict[str, str]:
    """Return the attributes in the headers of binary mode; without any in other messages.

    Examples
    --------
    >>> attributes_of([("content-type", b"application/json"), ("ce_specversion", b"1.0")])
    {'specversion': '1.0', 'datacontenttype': 'application/json'}
    >>> attributes_of([("content-type", b"application/cloudevents+json")])
    {}
    """
    found: dict[str, str] = {}
    for name, value in headers[:MAX_ATTRIBUTES]:
        lower, text = name.lower(), (value or b"").decode("utf-8", "replace")
        if lower == CONTENT_TYPE:
            if text.lower().startswith(STRUCTURED):
                return {}
            found["datacontenttype"] = text
        elif lower.startswith(PREFIX) and lower.removeprefix(PREFIX) not in DATA:
            found.setdefault(lower.removeprefix(PREFIX), text)
    version = found.pop("specversion", None)
    # First: by it an event is known that was brought to structured form before.
    return {} if version is None else {"specversion": version, **found}


def is_json_type(content_type: str | None) -> bool:
    """Say whether data of this media type is JSON; data without one may be.

    Examples
    --------
    >>> is_json_type("application/json; charset=utf-8"), is_json_type("application/avro")
    (True, False)
    """
    media = "json" if content_type is None else content_type.partition(";")[0].strip().lower()
    return media == "json" or media.endswith(("/json", "+json"))


def _reads(text: bytes) -> bool:
    try:
        orjson.loads(text)
    except ValueError:
        return False
    return True
