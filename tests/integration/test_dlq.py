"""Dead letters are replayed once each, whatever happens to the replay, against a real broker."""

from __future__ import annotations

import contextlib
import json
import uuid
from collections import Counter

import pytest
from kafka import KafkaProducer

from connectors.kafka.client import KafkaSettings
from connectors.kafka.log import KafkaLog
from connectors.kafka.replay import KafkaDesk
from connectors.records.dead_letters import Origin, to_record
from jobs.cli import main
from jobs.dlq.replay import (
    REPLAYED,
    REPLAYED_FOR,
    Found,
    InputSender,
    letters,
    replay,
    summary,
)
from streamad.ports import Source
from streamad.records import Rejected


class Dlq:
    """An input topic of two partitions, its dead letters, and the clients of a test."""

    def __init__(self, kafka, topic) -> None:
        self.input = topic("signals", partitions=2)
        self.dead = f"{self.input}.dlq"
        kafka.create_topic(self.dead, partitions=2)
        self.settings = KafkaSettings(bootstrap=kafka.bootstrap)
        self.name = f"replay-{uuid.uuid4().hex[:8]}"
        self.log = KafkaLog(self.settings, group=self.name)
        self.originals = KafkaLog(self.settings, group=self.name)
        self.producer = KafkaProducer(bootstrap_servers=kafka.bootstrap)

    def put(  # noqa: PLR0913 - what a letter may be, all by keyword
        self, reason: str, *, payload=b"{}", partition=0, headers=(), offset=0, row=None,
        pipeline="hosts",
    ):  # fmt: skip
        origin = Origin(
            topic=self.input, partition=partition, offset=offset, key=b"web-1", headers=headers,
            pipeline=pipeline, stage="decode", time_ms=1_700_000_000_000,
        )  # fmt: skip
        rejected = Rejected(
            message=0, reason=reason, detail="it is wrong", payload=payload, row=row
        )
        letter = to_record(rejected, origin)
        # A producer's answer names partition and offset: the letter is there.
        self.producer.send(
            letter.topic,
            letter.value,
            letter.key,
            headers=list(letter.headers),
            partition=partition,
        ).get(timeout=30)

    def found(self):
        return letters(self.log, [self.dead])

    def replay(self, *, max_attempts=3, **options):
        with KafkaDesk(self.settings, name=self.name) as desk:
            return replay(
                self.found(),
                desk,
                InputSender(
                    pipeline="hosts",
                    targets=self.log.bounds(self.input),
                    originals=self.originals,
                    max_attempts=max_attempts,
                ),
                pipeline="hosts",
                **options,
            )

    def arrived(self):
        """Return (partition, key, value, headers) of what is in the input, committed."""
        return [
            (source.partition, raw.key, payload, dict(raw.headers))
            for source, (first, stop) in sorted(self.log.bounds(self.input).items())
            for messages in self.log.read(source, first, stop)
            for payload, raw in zip(messages.payloads, messages.raw, strict=True)
        ]

    def close(self):
        self.producer.close()
        self.log.close()
        self.originals.close()


@pytest.fixture
def dlq(kafka, topic):
    made = Dlq(kafka, topic)
    yield made
    made.close()


def test_letters_are_counted_by_reason(dlq):
    for reason in ("invalid_json", "time_ahead", "invalid_json"):
        dlq.put(reason)
    dlq.put("invalid_json", pipeline="other")
    dlq.producer.send(dlq.dead, b"a stranger", partition=0).get(timeout=30)
    counts, last = summary(dlq.found(), pipeline="hosts", keep=2)
    assert counts == Counter(
        invalid_json=2, time_ahead=1, not_a_dead_letter=1, of_other_pipelines=1
    )
    assert [found.letter.reason for found in last] == ["time_ahead", "invalid_json"]


def test_a_replay_sends_key_headers_and_partition_back_and_counts_the_attempt(dlq):
    dlq.put("invalid_json", payload=b'{"v": 1}', partition=1, headers=(("trace", b"t1"),))
    made = dlq.replay()
    assert made.replayed == Counter(invalid_json=1)
    headers = {"trace": b"t1", REPLAYED: b"1", REPLAYED_FOR: b"hosts"}
    assert dlq.arrived() == [(1, b"web-1", b'{"v": 1}', headers)]


def test_a_second_replay_sends_nothing_and_one_by_reason_forgets_no_other(dlq):
    for number in range(3):
        dlq.put("invalid_json", payload=b"a%d" % number)
        dlq.put("time_ahead", payload=b"b%d" % number)
    assert dlq.replay(reason="time_ahead").replayed == Counter(time_ahead=3)
    again = dlq.replay()
    assert again.replayed == Counter(invalid_json=3)
    assert again.before == Counter(time_ahead=3)
    assert dlq.replay().total == 0
    sent = sorted(value for _, _, value, _ in dlq.arrived())
    assert sent == [b"a0", b"a1", b"a2", b"b0", b"b1", b"b2"]


def test_a_limited_replay_goes_on_where_it_stopped(dlq):
    for number in range(5):
        dlq.put("invalid_json", payload=b"%d" % number)
    assert dlq.replay(limit=2).total == 2
    assert dlq.replay(limit=2).total == 2
    assert dlq.replay(limit=2).total == 1
    assert [value for _, _, value, _ in dlq.arrived()] == [b"0", b"1", b"2", b"3", b"4"]


def test_a_message_refused_for_several_rows_is_sent_once(dlq):
    for row in (0, 1):
        dlq.put("time_ahead", payload=b"[1, 2]", row=row)
    dlq.put("time_ahead", payload=b"[1, 2]", offset=1, row=0)
    made = dlq.replay(limit=1)
    assert (made.replayed.total(), made.merged.total()) == (1, 1)
    assert dlq.replay().total == 1
    assert [value for _, _, value, _ in dlq.arrived()] == [b"[1, 2]"] * 2


def test_letters_of_other_pipelines_are_left_alone(dlq):
    dlq.put("invalid_json", payload=b"ours")
    dlq.put("invalid_json", payload=b"theirs", pipeline="other")
    dlq.put("invalid_json", payload=b"of an older release", pipeline="")
    made = dlq.replay()
    assert (made.replayed.total(), made.foreign) == (2, 1)
    assert [value for _, _, value, _ in dlq.arrived()] == [b"ours", b"of an older release"]
    assert {headers[REPLAYED_FOR] for *_, headers in dlq.arrived()} == {b"hosts"}


def test_replays_of_two_pipelines_on_one_topic_multiply_nothing(pipeline, rows):
    one = pipeline(partitions=1)
    two = pipeline(partitions=1, input={"topics": one.input})
    two.input = one.input
    one.create()
    bad = b'{"key": "a", "ts": "noon", "value": 1}'
    one.send(rows(keys=1)[:30])
    one.send_raw(bad)
    log = KafkaLog(one.settings, group="test")
    with contextlib.closing(log):
        for attempt in range(3):
            for job in (one, two):
                job.run()
                found = [f for f in letters(log, [f"{one.input}.dlq"]) if f.is_of(job.config.name)]
                assert len(found) == attempt + 1
            for job in (one, two):
                with KafkaDesk(job.settings, name=job.config.name) as desk:
                    made = replay(
                        letters(log, [f"{one.input}.dlq"]),
                        desk,
                        InputSender(
                            pipeline=job.config.name,
                            targets=log.bounds(one.input),
                            originals=log,
                        ),
                        pipeline=job.config.name,
                    )
                assert (made.total, made.foreign) == (1, attempt + 1)


def test_a_dry_run_changes_nothing(dlq):
    dlq.put("invalid_json")
    assert dlq.replay(dry_run=True).total == 1
    assert dlq.arrived() == []
    assert dlq.replay().total == 1


def test_what_failed_too_often_is_left_alone(dlq):
    dlq.put("invalid_json", headers=((REPLAYED, b"3"),))
    dlq.put("invalid_json", headers=((REPLAYED, b"2"),))
    made = dlq.replay()
    assert (made.given_up.total(), made.replayed.total()) == (1, 1)
    assert [headers[REPLAYED] for *_, headers in dlq.arrived()] == [b"3"]


def test_a_letter_too_large_to_keep_is_read_from_the_input_while_it_is_there(dlq):
    dlq.producer.send(dlq.input, b"x" * 1000, b"web-1", partition=0).get(timeout=30)
    dlq.put("oversized", payload=None, offset=0)
    dlq.put("oversized", payload=None, offset=77)
    made = dlq.replay()
    assert (made.replayed.total(), made.gone.total()) == (1, 1)
    assert [value for _, _, value, _ in dlq.arrived()] == [b"x" * 1000] * 2


def test_a_replay_killed_before_its_commit_sends_each_letter_once_in_the_end(dlq):
    for number in range(4):
        dlq.put("invalid_json", payload=b"%d" % number)
    killed = KafkaDesk(dlq.settings, name=dlq.name)
    records = [(f.offset, f) for f in dlq.found() if isinstance(f, Found)]
    killed._producer.begin_transaction()
    progress = {("invalid_json", Source(dlq.dead, 0)): records[-1][0] + 1}
    outgoing = []

    class Spy:
        def done(self, reason):
            return {}

        def send(self, records, done):
            outgoing.extend(records)

    replay(
        dlq.found(),
        Spy(),
        InputSender(
            pipeline="hosts",
            targets=dlq.log.bounds(dlq.input),
            originals=dlq.originals,
        ),
        pipeline="hosts",
    )
    # All was written, offsets too, and then the process is gone: nothing of it may count.
    killed._write(outgoing, progress)
    assert dlq.replay().total == 4
    assert [value for _, _, value, _ in dlq.arrived()] == [b"0", b"1", b"2", b"3"]
    # The one thought dead comes back and tries to commit.
    with pytest.raises(Exception, match=r"(?i)fenced|epoch|abort"):
        killed._producer.commit_transaction()
    killed._producer.close(timeout=1)
    assert len(dlq.arrived()) == 4


def test_the_commands_show_and_replay(dlq, tmp_path, monkeypatch, capsys):
    file = tmp_path / "pipeline.yaml"
    name = f"hosts-{uuid.uuid4().hex[:6]}"
    file.write_text(json.dumps({"name": name, "input": {"topics": dlq.input}}))
    monkeypatch.setenv("KAFKA_BOOTSTRAP_SERVERS", dlq.settings.bootstrap)
    dlq.put("invalid_json", payload=b'{"card": "4111"', pipeline=name)
    assert main(["dlq", "show", str(file)]) == 0
    shown = capsys.readouterr().out
    assert "1  invalid_json" in shown
    assert "4111" not in shown, "payloads are shown on request only"
    assert main(["dlq", "show", str(file), "--payloads", "--json"]) == 0
    assert "4111" in json.loads(capsys.readouterr().out)["last"][0]["payload"]
    assert main(["dlq", "replay", str(file), "--dry-run"]) == 0
    assert "1  invalid_json: would be replayed" in capsys.readouterr().out
    assert main(["dlq", "replay", str(file)]) == 0
    assert "1  invalid_json: replayed" in capsys.readouterr().out
    assert len(dlq.arrived()) == 1


def test_a_pipeline_that_never_ran_has_no_dead_letters(kafka, tmp_path, monkeypatch, capsys):
    file = tmp_path / "pipeline.yaml"
    nowhere = f"nowhere-{uuid.uuid4().hex[:6]}"
    file.write_text(json.dumps({"name": nowhere, "input": {"topics": nowhere}}))
    monkeypatch.setenv("KAFKA_BOOTSTRAP_SERVERS", kafka.bootstrap)
    assert main(["dlq", "show", str(file)]) == 0
    assert "no dead-letter records" in capsys.readouterr().err
    assert main(["dlq", "replay", str(file)]) == 0
    assert "nothing to replay" in capsys.readouterr().err
    assert main(["explain", "web-1", str(file), "--at", "now"]) == 1
    assert "the scores log has no window" in capsys.readouterr().err
