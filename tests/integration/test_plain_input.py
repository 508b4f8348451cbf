"""What comes in can be wrong in any way: it is told, kept, and its neighbours are judged."""

from __future__ import annotations

import json
import time

import pytest

from connectors.kafka.admin import make_topics
from jobs.plain.preflight import preflight, require
from jobs.plain.topics import Topic, create_topics
from streamad.errors import ConfigError


def point(**changed) -> bytes:
    now = time.time_ns() // 1_000_000
    return json.dumps({"key": "key-0", "ts": now, "value": 1.0, **changed}).encode()


def test_every_broken_message_is_a_dead_letter_and_its_neighbours_are_scored(pipeline, rows):
    job = pipeline(partitions=1)
    series = rows(keys=2, points=300)
    job.send(series[:300])
    year_ms = 365 * 86_400_000
    ahead = time.time_ns() // 1_000_000 + year_ms
    broken = {
        "invalid_json": b"{not json",
        "null_payload": None,
        "missing_field": b'{"key": "key-0", "ts": 1700000000000}',
        "wrong_type": point(value="four"),
        "bad_time": point(ts=-5),
        "not_finite": b'{"key": "key-0", "ts": 1700000000000, "value": NaN}',
        "too_large_value": point(value=1e300),
        "time_ahead": point(ts=ahead),
        "empty_key": point(key=""),
        "key_too_long": point(key="k" * 600),
    }
    job.send_raw(*broken.values())
    # One good row, one bad one, in one message.
    job.send_raw(point(key="key-1", ts=series[300][1]) + b"\n" + point(value=[]))
    job.send(series[300:])
    job.run()
    dead = job.dead()
    reasons = {reason for reason, _ in dead}
    # JSON knows no NaN, so that one is told as what it is: no JSON.
    assert set(broken) - {"not_finite"} <= reasons
    assert len(dead) == len(broken) + 1
    for _, record in dead:
        headers = dict(record.headers)
        assert headers["streamad.error.topic"] == job.input.encode()
        assert headers["streamad.error.offset"].isdigit()
        assert headers["streamad.error.detail"]
    expected = job.expected()
    assert len(expected.scores) > 400
    assert job.scores() == expected.scores
    assert job.findings() == expected.findings


def test_a_message_too_large_leaves_a_pointer(kafka, pipeline, rows):
    job = pipeline(partitions=1)
    make_topics(
        job.settings,
        [Topic(name=f"{job.input}-large", configs={"max.message.bytes": str(12_000_000)})],
    )
    job.input = job.tree["input"]["topics"] = f"{job.input}-large"
    series = rows(keys=2, points=120)
    job.send(series[:120])
    job.send_raw(b'{"key": "' + b"x" * 10_000_000 + b'"}')
    job.send(series[120:])
    job.run(alert=False)
    ((reason, record),) = job.dead()
    assert reason == "oversized"
    assert record.value == b""
    assert dict(record.headers)["streamad.error.payload"] == b"pointer"
    assert len(job.scores()) == 2 * (120 - 15)


@pytest.mark.parametrize("policy", ["drop", "topic"])
def test_late_rows_follow_the_policy(pipeline, rows, policy):
    job = pipeline(partitions=1, series={"late": policy})
    series = rows(keys=1, points=100)
    late = [(key, ts - 30_000, value) for key, ts, value in series[-3:]]
    job.send([*series, *late])
    job.run(alert=False)
    assert len(job.scores()) == 100 - 15
    if policy == "topic":
        kept = [json.loads(record.value) for record in job.records(f"{job.input}.late")]
        assert [row["time_ms"] for row in kept] == [ts for _, ts, _ in late]


def test_a_flood_of_keys_is_bounded(pipeline, rows):
    job = pipeline(partitions=1, series={"max_keys": 1_000})
    now = time.time_ns() // 1_000_000
    flood = [(f"key-{number}", now, 1.0) for number in range(20_000)]
    job.send(flood, per_message=500)
    job.run(alert=False)
    dead = job.dead()
    # One letter a message: a flood must not be multiplied by what tells of it.
    assert [reason for reason, _ in dead] == ["key_limit"] * 38
    assert b"499 more rows" in dict(dead[0][1].headers)["streamad.error.detail"]


def test_a_backlog_makes_alerts_that_are_marked_as_past(pipeline, rows):
    job = pipeline(partitions=1)
    two_hours_ago = time.time_ns() // 1_000_000 - 2 * 3_600_000
    job.send(rows(start_ms=two_hours_ago))
    job.run()
    alerts = [json.loads(value) for value in job.alerts().values()]
    assert alerts
    assert all(alert["past"] for alert in alerts)


def test_retention_shorter_than_a_snapshot_is_refused(pipeline):
    job = pipeline(delivery={"snapshot_interval": "10m"})
    name = f"{job.input}-short"
    make_topics(job.settings, [Topic(name=name, configs={"retention.ms": "60000"})])
    job.tree["input"]["topics"] = name
    with pytest.raises(ConfigError, match=r"keeps records for 60 s.*raise retention.ms"):
        require(job.config, job.settings)
    # Flink never reads further back than its last checkpoint.
    require(job.config, job.settings, engine="flink")
    job.tree["flink"] = {"checkpoint_interval": "2m"}
    with pytest.raises(ConfigError, match=r"keeps records for 60 s and flink.checkpoint_interval"):
        require(job.config, job.settings, engine="flink")


def test_preflight_tells_of_missing_topics_and_sizes(pipeline):
    job = pipeline()
    assert {problem.level for problem in preflight(job.config, job.settings)} == {"warning"}
    scores = job.config.topic("scores")
    make_topics(job.settings, [Topic(name=scores, configs={"max.message.bytes": "1000"})])
    create_topics(job.config, job.settings)
    (problem,) = preflight(job.config, job.settings)
    assert problem.level == "error"
    assert f"{scores} takes records of at most 1000 bytes" in problem.text
    job.tree["input"]["topics"] = "no-such-topic"
    with pytest.raises(ConfigError, match="no topic no-such-topic"):
        require(job.config, job.settings)
