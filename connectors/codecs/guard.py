"""The last line of every decoder: whatever goes wrong inside, each message is accounted for.

A decoder is meant to be total. Where one is not, the messages it fails on become dead letters, and
their neighbours are decoded as if nothing had happened. No message vanishes: one that yields
neither rows nor rejections is counted.
"""

from __future__ import annotations

import logging
import traceback
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import PurePath
from typing import Any, Protocol

import numpy as np
import polars as pl
from numpy.typing import NDArray

from streamad.ports import HeaderDecoder
from streamad.records import NO_ROWS, Decoded, RecordBatch, Rejected, joined_rows

logger = logging.getLogger(__name__)

Headers = Sequence[tuple[str, bytes | None]]
UNFORESEEN = (Exception, pl.exceptions.PanicException)
"""A panic of polars is no Exception; an interrupt from outside must still get through."""


class Decodes(Protocol):
    """What is guarded."""

    def decode(
        self,
        payloads: Sequence[bytes | None],
        offsets: NDArray[np.int64],
        broker_ms: NDArray[np.int64],
    ) -> Decoded:
        """Return rows and rejections in message order."""
        ...


class GuardedCodec:
    """A codec that cannot raise, and from which no message vanishes.

    name : of the codec, for the log
    """

    def __init__(self, codec: Decodes, name: str) -> None:
        self.inner, self._name = codec, name

    @property
    def reads_headers(self) -> bool:
        """Whether what messages hold depends on their headers."""
        return isinstance(self.inner, HeaderDecoder) and self.inner.reads_headers

    def decode(
        self,
        payloads: Sequence[bytes | None],
        offsets: NDArray[np.int64],
        broker_ms: NDArray[np.int64],
        headers: Sequence[Headers] | None = None,
    ) -> Decoded:
        """Return the usable rows of ``payloads`` and what had to be rejected; never raises.

        offsets, broker_ms : int64 ``(n_messages,)``; headers : those of each message, of use to
        codecs with ``reads_headers``
        """
        failures: Counter[str] = Counter()
        decoded = self._part(_Part(payloads, offsets, broker_ms, headers), failures)
        for what, number in failures.items():
            logger.error(
                "decoder %s failed on %d messages with %s; they become dead-letter records",
                self._name,
                number,
                what,
            )
        return _accounted(decoded, len(payloads))

    def _part(self, part: _Part, failures: Counter[str]) -> Decoded:
        """Decode; where that fails, each half, down to the messages at fault."""
        try:
            return self._decode(part)
        except UNFORESEEN as error:
            what = _what(error)
        if len(part) > 1:
            half = len(part) // 2
            left = self._part(part[:half], failures)
            right = self._part(part[half:], failures)
            return _joined(left, right, half, part.offsets, part.broker_ms)
        failures[what] += 1
        nothing = self._decode(part[:0])
        refused = Rejected(
            message=0,
            reason="decoder_error",
            detail=f"the decoder failed with {what}",
            payload=part.payloads[0],
        )
        batch = replace(nothing.batch, offsets=part.offsets, broker_ms=part.broker_ms)
        return Decoded(batch=batch, rejected=[refused])

    def _decode(self, part: _Part) -> Decoded:
        given = (part.payloads, part.offsets, part.broker_ms)
        if isinstance(self.inner, HeaderDecoder) and part.headers is not None:
            return self.inner.decode(*given, part.headers)
        return self.inner.decode(*given)


@dataclass(frozen=True, slots=True)
class _Part:
    """Consecutive messages."""

    payloads: Sequence[bytes | None]
    offsets: NDArray[np.int64]
    broker_ms: NDArray[np.int64]
    headers: Sequence[Headers] | None

    def __len__(self) -> int:
        return len(self.payloads)

    def __getitem__(self, at: slice) -> _Part:
        headers = None if self.headers is None else self.headers[at]
        return _Part(self.payloads[at], self.offsets[at], self.broker_ms[at], headers)


def _what(error: BaseException) -> str:
    """Name an exception and where it was raised; its text may hold the payload and is left out."""
    frames = traceback.extract_tb(error.__traceback__)
    where = f" at {PurePath(frames[-1].filename).name}:{frames[-1].lineno}" if frames else ""
    return f"{type(error).__name__}{where}"


def _joined(
    left: Decoded,
    right: Decoded,
    shift: int,
    offsets: NDArray[np.int64],
    broker_ms: NDArray[np.int64],
) -> Decoded:
    one, two = left.batch, right.batch
    batch: RecordBatch[Any] = RecordBatch(
        keys=pl.concat([one.keys, two.keys]).rechunk(),
        time_ms=np.concatenate([one.time_ms, two.time_ms]),
        values=joined_rows([one.values, two.values]),
        message=np.concatenate([one.message, two.message + np.int32(shift)]),
        row=np.concatenate([one.row, two.row]),
        offsets=offsets,
        broker_ms=broker_ms,
        tags={name: pl.concat([tag, two.tags[name]]) for name, tag in one.tags.items()},
    )
    moved = [replace(item, message=item.message + shift) for item in right.rejected]
    return Decoded(batch=batch, rejected=[*left.rejected, *moved])


def _accounted(decoded: Decoded, n_messages: int) -> Decoded:
    """Count the messages that yielded nothing at all."""
    message = decoded.batch.message
    if 8 * n_messages < len(message):
        # Few messages of many rows: each is looked for among the rows, which are in order.
        ends = np.searchsorted(message, np.arange(n_messages + 1, dtype=np.int32))
        seen = ends[1:] > ends[:-1]
    else:
        seen = np.zeros(n_messages, np.bool_)
        seen[message] = True
    if decoded.rejected:
        seen[[item.message for item in decoded.rejected]] = True
    if seen.all():
        return decoded
    passed = [
        Rejected(message=index, reason=NO_ROWS, detail="the message holds no point")
        for index in np.flatnonzero(~seen).tolist()
    ]
    rejected = sorted([*decoded.rejected, *passed], key=lambda item: item.message)
    return Decoded(batch=decoded.batch, rejected=rejected)
