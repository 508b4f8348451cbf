"""Decoding ahead changes nothing but the time it takes."""

import numpy as np
import pytest

from connectors.codecs import FieldMap, make_codec
from connectors.memory import Record
from streamad.ports import Messages, Source
from streamad.runtime.decoding import PORTION_BYTES, Decoding

POINT = b'{"key": "a", "ts": %d, "value": 1.5}'


def messages(n, *, per_message, partition=0):
    payloads = [
        b"\n".join(POINT % (1_600_000_000_000 + i * per_message + j) for j in range(per_message))
        for i in range(n)
    ]
    return Messages(
        source=Source("m", partition),
        payloads=payloads,
        offsets=np.arange(n, dtype=np.int64),
        broker_ms=np.full(n, -1, np.int64),
        raw=[Record(value=None)] * n,
    )


@pytest.mark.parametrize(("n", "per_message"), [(3, 1), (400, 100), (3, 20_000)])
def test_every_message_comes_once_in_order(n, per_message):
    decoding = Decoding(make_codec("json", FieldMap()), pipeline="p")
    polled = [messages(n, per_message=per_message, partition=p) for p in range(2)]
    portions = list(decoding.run(polled))
    for partition in range(2):
        mine = [p for p in portions if p.messages.source.partition == partition]
        offsets = np.concatenate([p.messages.offsets for p in mine])
        times = np.concatenate([p.decoded.batch.time_ms for p in mine])
        assert offsets.tolist() == list(range(n))
        assert (np.diff(times) == 1).all()
        assert len(times) == n * per_message
        assert all(len(p.messages.raw) == len(p.messages) for p in mine)


def test_large_polls_are_cut_and_small_ones_are_not():
    decoding = Decoding(make_codec("json", FieldMap()), pipeline="p")
    assert len(list(decoding.run([messages(5, per_message=10)]))) == 1
    whole = messages(500, per_message=100)
    n_bytes = sum(map(len, whole.payloads))
    assert len(list(decoding.run([whole]))) == pytest.approx(n_bytes / PORTION_BYTES, abs=1)
    assert list(decoding.run([])) == []
