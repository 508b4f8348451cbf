"""Dead letters say where and why, keep no secrets, and can be read back for a replay."""

from __future__ import annotations

from connectors.records import dead_letters
from connectors.records.dead_letters import Letter, Origin, from_record, to_record
from streamad.records import Rejected

ORIGIN = Origin(
    topic="metrics",
    partition=3,
    offset=99,
    key=b"k",
    headers=[("traceparent", b"00-1"), ("Authorization", b"Bearer x"), ("empty", None)],
    pipeline="shop",
    stage="detect",
    time_ms=1_700_000_000_000,
)
REJECTED = Rejected(message=0, row=2, reason="wrong_type", detail="value: got 'x'", payload=b"{}")


def test_a_dead_letter_says_where_and_why_for_us_and_for_connect():
    record = to_record(REJECTED, ORIGIN)
    assert (record.topic, record.key, record.value) == ("metrics.dlq", b"k", b"{}")
    assert dict(record.headers) == {
        "traceparent": b"00-1",
        "Authorization": b"(redacted)",
        "empty": b"",
        "streamad.error.reason": b"wrong_type",
        "streamad.error.detail": b"value: got 'x'",
        "streamad.error.topic": b"metrics",
        "streamad.error.partition": b"3",
        "streamad.error.offset": b"99",
        "streamad.error.row": b"2",
        "streamad.error.pipeline": b"shop",
        "streamad.error.stage": b"detect",
        "streamad.error.time": b"1700000000000",
        "streamad.error.payload": b"kept",
        "__connect.errors.topic": b"metrics",
        "__connect.errors.partition": b"3",
        "__connect.errors.offset": b"99",
        "__connect.errors.stage": b"detect",
        "__connect.errors.exception.message": b"wrong_type: value: got 'x'",
    }


def test_a_dead_letter_reads_back():
    record = to_record(REJECTED, ORIGIN)
    letter = from_record(record.key, record.value, record.headers)
    assert letter == Letter(
        reason="wrong_type",
        detail="value: got 'x'",
        topic="metrics",
        partition=3,
        offset=99,
        row=2,
        pipeline="shop",
        stage="detect",
        time_ms=1_700_000_000_000,
        pointer=False,
        key_pointer=False,
        key=b"k",
        value=b"{}",
        headers=(("traceparent", b"00-1"), ("Authorization", b"(redacted)"), ("empty", b"")),
    )


def test_an_oversized_payload_becomes_a_pointer_to_its_offset():
    oversized = Rejected(message=0, reason="oversized", detail="5 MB")
    record = to_record(oversized, ORIGIN, pattern="dead.{topic}")
    letter = from_record(record.key, record.value, record.headers)
    assert record.topic == "dead.metrics"
    assert isinstance(letter, Letter)
    assert (letter.pointer, letter.value, letter.row, letter.offset) == (True, b"", None, 99)


def test_a_letter_that_fails_again_says_only_where_it_failed_last():
    first = to_record(REJECTED, ORIGIN)
    again = Origin(
        **{**{f: getattr(ORIGIN, f) for f in ORIGIN.__slots__}, "headers": first.headers}
    )
    names = [name for name, _ in to_record(REJECTED, again).headers]
    assert len(names) == len(set(names))


def test_detail_and_original_headers_are_bounded():
    long = Rejected(message=0, reason="wrong_type", detail="\N{GRINNING FACE}" * 5000, payload=b"x")
    many = [(f"h{i}", b"v" * 1000) for i in range(1000)]
    origin = Origin(**{**{f: getattr(ORIGIN, f) for f in ORIGIN.__slots__}, "headers": many})
    record = to_record(long, origin)
    size = sum(len(name) + len(value) for name, value in record.headers)
    limit = dead_letters.MAX_ORIGINAL_HEADER_BYTES + 3 * dead_letters.MAX_DETAIL_BYTES + 1000
    assert size < limit


def test_what_is_no_dead_letter_is_rejected():
    assert isinstance(from_record(None, b"x", [("streamad.error.reason", b"\xff")]), Rejected)
    headers = [
        (n, v if "offset" not in n else b"x") for n, v in to_record(REJECTED, ORIGIN).headers
    ]
    assert isinstance(from_record(None, None, headers), Rejected)
