"""A message that takes the process with it is set aside, on a real broker, by real deaths."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from typing import Any

import pytest
from kafka import KafkaProducer
from kafka.admin import ConfigResource, KafkaAdminClient

import jobs.plain.loops
from jobs.plain.run import run
from tests.integration.poisons import check_letters, send_poisons

POISON = b"poison"


class Deadly:
    """A decoder that dies of one payload, as of a fault in native code."""

    def __init__(self, codec: Any) -> None:
        self._codec = codec

    def decode(self, payloads: Any, offsets: Any, broker_ms: Any) -> Any:
        if POISON in payloads:
            os.kill(os.getpid(), signal.SIGKILL)
        return self._codec.decode(payloads, offsets, broker_ms)


def deadly_run(*args: Any, **given: Any) -> None:
    """`jobs.plain.run.run`, with such a decoder; in a process that tests start."""
    codec_of = jobs.plain.loops.codec_of
    jobs.plain.loops.codec_of = lambda config: Deadly(codec_of(config))  # type: ignore[assignment]
    run(*args, **given)


def test_the_job_continues_without_a_message_that_kills_it(pipeline, rows):
    job = pipeline()
    series = rows(points=300)
    job.create()
    job.send(series[: len(series) // 2])
    process = job.start(target=deadly_run)
    job.until(lambda: len(job.scores()) > 50, what="the first life works")
    job.send_raw(POISON)
    job.send(series[len(series) // 2 :])
    deaths, deadline = 0, time.monotonic() + 90
    while not job.done():
        assert time.monotonic() < deadline, f"not past the poison after {deaths} deaths"
        time.sleep(0.1)
        if not process.is_alive():
            assert process.exitcode == -signal.SIGKILL
            deaths += 1
            process = job.start(target=deadly_run)
    process.terminate()
    process.join(20)
    assert process.exitcode == 0
    assert deaths in (4, 5), "the life it came to may have noted nothing yet"
    assert [reason for reason, _ in job.dead()] == ["quarantined"]
    (told,) = [
        one for one in job.alerts().values() if b"quarantine" in one and b'"anomaly"' not in one
    ]
    assert f"{job.input}/0".encode() in told
    # What is good is judged as if the message had never been there.
    expected = job.expected()
    assert len(expected.scores) > 100
    assert list(map(repr, job.scores())) == list(map(repr, expected.scores))


def test_no_poison_costs_more_than_itself(pipeline, rows):
    job = pipeline(partitions=1, series={"late": "topic"})
    series = rows(keys=2)
    job.create()
    process = job.start()
    job.send(series[:300])
    send_poisons(job)
    late = [(key, ts - 120_000, value) for key, ts, value in series[:2]] * 10_000
    job.send(late, per_message=10_000)
    job.send(series[300:])
    job.until(job.done, timeout_s=120, what="it works on")
    assert process.is_alive()
    process.terminate()
    process.join(20)
    assert process.exitcode == 0
    check_letters(job)
    job.check()


@pytest.mark.parametrize("codec", ["gzip", "snappy", "lz4", "zstd"])
def test_a_topic_the_broker_keeps_compressed_is_read(pipeline, rows, codec: str):
    job = pipeline()
    with contextlib.closing(KafkaAdminClient(**job.settings.client())) as admin:
        given = {"compression.type": codec}
        admin.alter_configs([ConfigResource("topic", job.input, configs=given)])
    job.send(rows(keys=4))
    job.run()
    job.check()


class Name(str):
    """A header name whose bytes are not UTF-8."""

    __slots__ = ()

    def encode(self, *_: Any) -> bytes:  # type: ignore[override]
        return b"od\xffd"


def test_batches_and_headers_that_cannot_be_read_cost_only_themselves(pipeline, rows):
    job = pipeline(partitions=1)
    series = rows(keys=2)
    job.send(series[:200])
    options = job.settings.client() | {"compression_type": "gzip", "max_request_size": 2**28}
    with contextlib.closing(KafkaProducer(**options)) as producer:
        producer.send(job.input, value=bytes(70 * 2**20))
        producer.flush()
        producer.send(job.input, value=b"{}", headers=[("", b"")] * 10_001)
        key, ts, value = series[200]
        line = f'{{"key": "{key}", "ts": {ts}, "value": {value!r}}}'
        producer.send(job.input, value=line.encode(), headers=[(Name("x"), b"1")])
        producer.flush()
    job.send(series[201:])
    job.run()
    job.check()
    dead = job.dead()
    assert [reason for reason, _ in dead] == ["unreadable", "unreadable"]
    told = [dict(record.headers)["streamad.error.detail"].decode() for _, record in dead]
    assert "gzip" in told[0]
    assert "10001 headers" in told[1]
