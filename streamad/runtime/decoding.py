"""Decoding one portion ahead of the operator, on the other core where there is one."""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace

import numpy as np

from streamad.ports import Decoder, Headed, HeaderDecoder, Messages
from streamad.records import UNREADABLE, Decoded, Rejected

REPLAYED_FOR = "streamad.replayed-for"
"""Header of a record that was sent again: the pipeline that could not use it the first time."""
OTHER_PIPELINE = "other_pipeline"

PORTION_BYTES = 2**20
"""About 20,000 points: enough for a columnar reader to be quick, and small enough to overlap."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Portion:
    """Consecutive messages of one partition, decoded; ``seconds`` is what that took."""

    messages: Messages
    decoded: Decoded
    seconds: float


class Decoding:
    """Decode portions in order; the next while the caller works on the one it was given.

    The columnar reader and the compiled kernels both leave the interpreter's lock alone, so two
    cores halve the way. Results do not depend on where portions are cut.
    """

    def __init__(self, decoder: Decoder, *, pipeline: str) -> None:
        self._decoder, self._pipeline = decoder, pipeline
        self._pool = ThreadPoolExecutor(1, "streamad-decode")

    def run(self, polled: Iterable[Messages]) -> Iterator[Portion]:
        """Yield every message of ``polled``, decoded, in order."""
        portions = (part for messages in polled for part in _cut(messages))
        head = list(itertools.islice(portions, 2))
        if len(head) == 1:  # nothing to overlap with: a thread would only add its way there
            yield self._decode(head[0])
            return
        waiting = [self._pool.submit(self._decode, part) for part in head]
        while waiting:
            done = waiting.pop(0).result()
            waiting += [self._pool.submit(self._decode, p) for p in itertools.islice(portions, 1)]
            yield done

    def _decode(self, messages: Messages) -> Portion:
        started = time.perf_counter()
        decoded = decode(self._decoder, messages, pipeline=self._pipeline)
        return Portion(messages=messages, decoded=decoded, seconds=time.perf_counter() - started)


def decode(decoder: Decoder, messages: Messages, *, pipeline: str) -> Decoded:
    """Return rows and rejections; what the client could not read is told from a tombstone.

    A message that was sent again for another pipeline is passed over: this one had it before.
    """
    payloads, others = messages.payloads, _for_others(messages, pipeline)
    if others:
        payloads = [None if i in others else one for i, one in enumerate(payloads)]
    if isinstance(decoder, HeaderDecoder) and decoder.reads_headers:
        headers = [raw.headers for raw in messages.raw]
        decoded = decoder.decode(payloads, messages.offsets, messages.broker_ms, headers)
    else:
        decoded = decoder.decode(payloads, messages.offsets, messages.broker_ms)
    if not messages.unreadable and not others:
        return decoded

    def true_reason(one: Rejected) -> Rejected:
        if one.message in others:
            return replace(one, reason=OTHER_PIPELINE, detail="", counts={OTHER_PIPELINE: 1})
        why = messages.unreadable.get(int(messages.offsets[one.message]))
        return one if why is None else replace(one, reason=UNREADABLE, detail=why)

    return replace(decoded, rejected=[true_reason(one) for one in decoded.rejected])


def _for_others(messages: Messages, pipeline: str) -> dict[int, None]:
    """Return the messages whose headers name another pipeline, as the keys of a mapping."""
    ours, records = pipeline.encode(), messages.raw
    places = records.headed() if isinstance(records, Headed) else range(len(records))
    return {
        i: None
        for i in places
        if any(name == REPLAYED_FOR and value != ours for name, value in records[i].headers)
    }


def _cut(messages: Messages) -> Iterator[Messages]:
    """Yield parts of about `PORTION_BYTES`; one larger message is a part of its own."""
    found = messages.payloads
    if None in found:
        found = [one or b"" for one in found]
    sizes = np.fromiter(map(len, found), np.int64, len(found))  # type: ignore[arg-type]
    if sizes.sum() <= PORTION_BYTES:
        yield messages
        return
    number = (np.cumsum(sizes) - 1) // PORTION_BYTES
    bounds = [0, *(np.flatnonzero(np.diff(number)) + 1).tolist(), len(messages)]
    for start, stop in itertools.pairwise(bounds):
        yield replace(
            messages,
            payloads=messages.payloads[start:stop],
            offsets=messages.offsets[start:stop],
            broker_ms=messages.broker_ms[start:stop],
            raw=messages.raw[start:stop],
        )
