"""Detect over an engine's state: what it refuses, what it forgets, and when it judges at once."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping

import pytest

from connectors.memory import MemoryTopics
from connectors.records import scores_log
from connectors.records.detect import KafkaDetectRecords
from jobs.build import build_detect
from jobs.offline.replay import codec_of
from streamad.config import PipelineConfig
from streamad.errors import OffsetOutOfRangeError, SourceUnavailableError, StateError
from streamad.ports import Messages, Source
from streamad.runtime import snapshots
from streamad.runtime.decoding import PORTION_BYTES
from streamad.runtime.keyed.detect import KeyedDetect
from streamad.runtime.keyed.journal import Entry
from streamad.testing.keyed_state import Cells, MemoryEngine

SOURCE, OTHER = Source("in", 0), Source("in", 1)
BEGIN_MS = 1_700_000_000_000
STEP_MS = 1_000
TTL_MS = 60_000


class Broker(MemoryTopics):
    """Topics that may be away."""

    away = False
    marked = emptied = False

    def bounds(self, topic: str) -> Mapping[Source, tuple[int, int]]:
        if self.away:
            msg = "nobody answers"
            raise SourceUnavailableError(msg)
        # A transaction ends with a mark, an offset without a record.
        found = {
            source: (first, after + self.marked)
            for source, (first, after) in super().bounds(topic).items()
        }
        return {source: (b if self.emptied else a, b) for source, (a, b) in found.items()}

    def read(self, source: Source, start: int, stop: int) -> Iterator[Messages]:
        if self.away:
            msg = "nobody answers"
            raise SourceUnavailableError(msg)
        return super().read(source, start, min(stop, super().bounds(source.topic)[source][1]))


class Job:
    """A pipeline on the engine; ``sections`` may change under its state."""

    def __init__(self, **sections: dict[str, object]) -> None:
        self.sections: dict[str, dict[str, object]] = {
            "series": {"ttl": "60s", "silence": "20s"},
            **sections,
        }
        self.topics = Broker(partitions=2)
        self.topics.make("in", 2)
        self.engine = MemoryEngine(self.make, now_ms=BEGIN_MS)

    @property
    def config(self) -> PipelineConfig:
        tree = {
            "name": "keyed",
            "input": {"topics": "in"},
            "detector": "robust_z",
            "windows": {"size": 16},
            "scoring": {"min_windows": 8},
        }
        merged = {**tree}
        for name, section in self.sections.items():
            merged[name] = {**tree.get(name, {}), **section}
        return PipelineConfig.model_validate(merged)

    def make(self) -> KeyedDetect:
        config = self.config
        return KeyedDetect(
            config,
            build_detect(config),
            decoder=codec_of(config),
            records=KafkaDetectRecords(
                config, detector="robust_z", artifact="", partitions=1, wall_ms=lambda: 0
            ),
            log=self.topics,
        )

    def feed(self, *payloads: bytes | None, source: Source = SOURCE) -> None:
        offset = self.topics.bounds("in")[source][1]
        self.topics.put(source, payloads)
        entries = [
            Entry(offset=offset + i, broker_ms=-1, payload=payload)
            for i, payload in enumerate(payloads)
        ]
        self.engine.feed(source, *entries)

    def pass_time(self, ms: int) -> None:
        self.engine.advance(self.engine.now_ms + ms)

    def fail(self) -> None:
        self.engine.fail_and_restore()

    @property
    def cells(self) -> Cells:
        return self.engine.cells[0]

    @property
    def timers(self) -> set[int]:
        return self.engine.timers.get(0, set())

    def scored(self) -> list[tuple[str, int]]:
        rows: list[tuple[str, int]] = []
        for one in self.engine.outputs:
            if one.topic == self.config.topic("scores"):
                _, batch = scores_log.decode(one.value)
                rows += zip(batch.keys.to_list(), batch.end_ms.tolist(), strict=True)
        return rows

    def kinds(self) -> list[str]:
        found = [one for one in self.engine.outputs if one.topic == self.config.topic("findings")]
        return [json.loads(one.value)["kind"] for one in found]


def points(n: int, *, start: int = 0, key: str = "a") -> list[bytes]:
    return [
        json.dumps({"key": key, "ts": BEGIN_MS + t * STEP_MS, "value": 1.0 + t % 7}).encode()
        for t in range(start, start + n)
    ]


def about(job: Job) -> dict[str, object]:
    return json.loads(job.cells.chunks[-1])


# ---------------------------------------------------------------------- configuration


@pytest.mark.parametrize("resume", ["message", "timer"])
@pytest.mark.parametrize("journal_bytes", [4096, 10**6])
def test_state_of_another_configuration_is_refused_and_both_are_told(resume, journal_bytes):
    job = Job(flink={"journal_bytes": journal_bytes})
    job.feed(*points(200))
    job.pass_time(200)
    job.engine.checkpoint()
    job.sections["scoring"] = {"first_day": "2h"}
    job.fail()
    with pytest.raises(StateError) as refused:
        job.feed(*points(1, start=200)) if resume == "message" else job.pass_time(60_000)
    said = str(refused.value)
    assert "scoring.first_day: 1d -> 2h" in said
    assert "delivery.on_state_mismatch" in said


@pytest.mark.parametrize("resume", ["message", "timer"])
@pytest.mark.parametrize("journal_bytes", [4096, 10**6])
def test_fresh_begins_anew_with_nothing_stale(resume, journal_bytes):
    job = Job(flink={"journal_bytes": journal_bytes}, delivery={"on_state_mismatch": "fresh"})
    job.feed(*points(200))
    job.pass_time(200)
    job.engine.checkpoint()
    assert len(job.cells.journal) > 100 or len(job.cells.chunks) > 1
    job.sections["scoring"] = {"first_day": "2h"}
    job.fail()
    if resume == "timer":
        job.pass_time(TTL_MS)
        assert (job.cells.journal, list(job.cells.chunks)) == ([], [-1])
        # The wiped state can be restored in its turn: it waits for no offset yet.
        job.engine.checkpoint()
        job.topics.capacity = 5
        job.topics.put(SOURCE, [])
        job.fail()
        job.pass_time(TTL_MS)
    n_scored = len(job.scored())
    job.feed(*points(30, start=200))
    job.pass_time(200)
    assert about(job)["checksum"] == job.config.state_checksum()
    # 16 samples make the first window of a key that is new.
    assert len(job.scored()) - n_scored == 30 - 16 + 1
    job.engine.checkpoint()
    job.fail()
    job.feed(*points(5, start=230))
    job.pass_time(200)
    assert job.engine.subtask(0).shards[0].position == 235


def test_fresh_judges_what_waited():
    job = Job(delivery={"on_state_mismatch": "fresh"})
    job.feed(*points(20))
    job.pass_time(200)
    job.feed(*points(10, start=20))
    job.engine.checkpoint()
    job.sections["scoring"] = {"first_day": "2h"}
    job.fail()
    n_scored = len(job.scored())
    job.feed(*points(20, start=30))
    job.pass_time(200)
    # The source has passed offsets 20 to 29: they come from the journal, or not at all.
    assert len(job.scored()) - n_scored == 30 - 16 + 1


def test_another_layout_or_state_version_is_refused():
    for name in ("layout", "version"):
        job = Job()
        job.feed(*points(3))
        job.engine.checkpoint()
        job.fail()
        job.cells.chunks[-1] = json.dumps({**about(job), name: 99}).encode()
        with pytest.raises(StateError, match="99"):
            job.feed(*points(1, start=3))


def test_settings_that_decide_nothing_may_change():
    job = Job()
    job.feed(*points(40))
    job.engine.checkpoint()
    job.sections["flink"] = {"linger": "5s", "journal_bytes": 4096}
    job.fail()
    job.feed(*points(40, start=40))
    job.pass_time(6_000)
    assert len(job.scored()) == len(set(job.scored())) > 60


def test_a_key_given_input_of_another_partition_is_refused():
    job = Job()
    job.feed(*points(3))
    job.engine.key_of = lambda _: 0
    with pytest.raises(StateError, match=r"state of in/0 would be given input of in/1"):
        job.feed(*points(3), source=OTHER)


def test_a_key_given_input_of_another_partition_after_a_restart_is_refused():
    job = Job()
    job.feed(*points(3))
    job.engine.checkpoint()
    job.fail()
    job.engine.key_of = lambda _: 0
    with pytest.raises(StateError, match=r"flink\.max_parallelism"):
        job.feed(*points(3), source=OTHER)


def test_a_snapshot_that_lacks_a_chunk_is_refused():
    job = Job(flink={"journal_bytes": 4096})
    job.feed(*points(200))
    job.pass_time(200)
    job.engine.checkpoint()
    job.fail()
    del job.cells.chunks[0]
    with pytest.raises(StateError, match="damaged"):
        job.pass_time(60_000)


# ---------------------------------------------------------------------- the input's bounds


def out_of_range(policy: str) -> Job:
    job = Job(input={"topics": "in", "on_out_of_range": policy})
    job.feed(*points(40))
    job.pass_time(200)
    job.engine.checkpoint()
    # What follows was written and has been deleted, but for the last two.
    job.topics.capacity = 2
    job.topics.put(SOURCE, [b"{}"] * 60)
    job.engine.fail_and_restore()
    return job


def test_input_that_is_gone_stops_the_job():
    job = out_of_range("fail")
    with pytest.raises(OffsetOutOfRangeError) as refused:
        job.pass_time(5_000)
    said = str(refused.value)
    assert "in/0: offset 40 is out of range, the topic holds 98 to 100" in said
    assert "input.on_out_of_range" in said


@pytest.mark.parametrize("policy", ["earliest", "latest"])
def test_input_that_is_gone_is_a_gap_by_policy(policy, caplog):
    job = out_of_range(policy)
    job.feed(*points(20, start=40))
    job.pass_time(200)
    assert "continuing with a gap" in caplog.text
    assert job.engine.subtask(0).shards[0].position == 120
    # The key is the one it was: every sample closes a window.
    assert len(job.scored()) == 60 - 16 + 1


def test_a_topic_made_anew_is_out_of_range():
    job = Job()
    job.feed(*points(40))
    job.engine.checkpoint()
    job.topics = Broker()
    job.topics.put(SOURCE, points(3))
    job.fail()
    with pytest.raises(OffsetOutOfRangeError, match=r"offset 40 .* holds 0 to 3"):
        job.pass_time(5_000)


@pytest.mark.parametrize("quiet", [True, False])
@pytest.mark.parametrize("journal_bytes", [4096, 10**6])
def test_a_transactions_mark_that_retention_deleted_is_no_gap(quiet, journal_bytes):
    job = Job(flink={"journal_bytes": journal_bytes}, series={"ttl": "7d"})
    job.engine.put(SOURCE)
    job.engine.wake()
    job.feed(*points(200))
    job.topics.marked = True
    job.pass_time(60_000)
    if quiet:
        job.engine.wake()
    job.engine.checkpoint()
    job.topics.emptied = True
    job.fail()
    if quiet:
        job.engine.wake()
        assert job.engine.subtask(0).shards[0].position == 201
    else:  # it is not known that only the mark is missing
        with pytest.raises(OffsetOutOfRangeError):
            job.engine.wake()


def test_a_topic_made_anew_is_not_measured_by_what_was_known_of_the_old_one():
    job = Job(input={"on_out_of_range": "earliest"}, series={"ttl": "7d"})
    job.feed(*points(40))
    job.pass_time(60_000)
    job.engine.wake()
    job.engine.checkpoint()
    for number in (1, 2):
        if number == 1:
            job.topics = Broker(partitions=2)
            job.topics.make("in", 2)
        job.engine.fail_and_restore()
        job.feed(*points(2, start=40 + 2 * number))
        job.pass_time(200)
        job.engine.checkpoint()
        assert job.engine.subtask(0).shards[0].position == 2 * number


# ---------------------------------------------------------------------- silence


def test_a_broker_that_is_away_makes_no_tick(caplog):
    job = Job()
    job.feed(*points(40))
    job.pass_time(200)
    job.topics.away = True
    n = len(job.engine.outputs)
    job.pass_time(100_000)
    assert len(job.engine.outputs) == n
    assert "nobody answers" in caplog.text
    job.topics.away = False
    job.pass_time(5_000)
    assert job.kinds()[-1] == "no_data"


def test_a_topic_that_is_gone_makes_no_tick():
    job = Job()
    job.feed(*points(40))
    job.pass_time(200)
    job.topics = job.engine.subtask(0)._log = Broker()
    job.pass_time(100_000)
    assert "no_data" not in job.kinds()


def test_a_backlog_makes_no_tick():
    job = Job()
    job.feed(*points(40))
    job.pass_time(200)
    job.topics.put(SOURCE, points(1, start=40))
    job.pass_time(100_000)
    assert "no_data" not in job.kinds()


def test_silence_counts_from_the_restart_for_nobody_listened_before():
    job = Job(series={"ttl": "10m", "silence": "20s"})
    # Input whose times lag behind the wall clock, as behind a slow producer.
    job.pass_time(100_000)
    job.feed(*points(40))
    job.pass_time(200)
    job.engine.checkpoint()
    job.engine.advance(job.engine.now_ms - job.engine.now_ms % 5_000 + 4_700)
    job.feed(*points(1, start=40))
    job.pass_time(200)
    job.engine.checkpoint()
    job.fail()
    job.pass_time(200)
    assert "no_data" not in job.kinds()
    job.pass_time(10_000)
    assert job.kinds() == ["no_data"]


def test_ticks_do_not_pile_up():
    job = Job(flink={"journal_bytes": 4096}, series={"ttl": "7d", "silence": "1s"})
    job.feed(*points(40))
    job.pass_time(200)
    job.pass_time(2_000_000)
    assert sum(map(len, job.cells.journal)) < 10_000, "2,000 ticks are more than that"
    assert job.kinds() == ["no_data"]


# ---------------------------------------------------------------------- forgetting


@pytest.mark.parametrize("fail", [False, True])
def test_once_all_keys_are_forgotten_state_shrinks_and_no_timer_is_left(fail, monkeypatch):
    monkeypatch.setattr(snapshots, "CHUNK_BYTES", 1_500)
    job = Job(flink={"journal_bytes": 4096})
    for key in "abcdef":
        job.feed(*points(60, key=key))
    job.pass_time(200)
    held, n_chunks = job.engine.n_bytes, len(job.cells.chunks)
    assert job.timers
    job.pass_time(60 * STEP_MS + TTL_MS + 20_000)
    assert not job.timers
    assert job.cells.journal == []
    assert job.engine.n_bytes < min(held / 2, 10_000)
    assert sorted(job.cells.chunks) == list(range(-1, about(job)["chunks"]))
    assert len(job.cells.chunks) < n_chunks
    assert job.kinds().count("no_data") == 12, "each fell silent, and was forgotten"
    job.engine.checkpoint()
    if fail:
        job.fail()
    n_bytes, n_scored = job.engine.n_bytes, len(job.scored())
    job.pass_time(10 * TTL_MS)
    assert job.engine.n_bytes == n_bytes
    start = (job.engine.now_ms - BEGIN_MS) // STEP_MS
    job.feed(*points(40, start=start))
    assert job.timers
    job.pass_time(200)
    assert len(job.scored()) > n_scored
    job.pass_time(40 * STEP_MS + TTL_MS + 20_000)
    assert not job.timers


def test_messages_no_one_can_read_leave_no_timer():
    job = Job()
    job.feed(b"{", None, b"\xff")
    job.pass_time(200)
    assert not job.timers
    assert job.cells.journal == []
    assert [one.topic for one in job.engine.outputs] == ["in.dlq"] * len(job.engine.outputs)
    assert len(job.engine.outputs) >= 2


def test_state_that_shrank_to_nothing_is_left_alone_when_it_is_woken():
    job = Job()
    job.feed(*points(30))
    job.pass_time(2 * TTL_MS)
    job.engine.checkpoint()
    job.engine.fail_and_restore(timers=False)
    n = len(job.engine.outputs)
    job.engine.wake()
    assert not job.timers
    assert len(job.engine.outputs) == n


def test_a_timer_of_a_key_without_state_does_nothing():
    job = Job()
    job.engine.timers[5] = {BEGIN_MS + 1}
    job.pass_time(10)
    assert job.engine.outputs == []
    assert job.engine.timers[5] == set()


# ---------------------------------------------------------------------- when it is judged


def test_messages_wait_for_others_and_no_longer_than_they_should():
    job = Job(flink={"linger": "700ms"})
    job.feed(*points(40))
    assert job.engine.outputs == []
    job.pass_time(699)
    job.pass_time(1)
    assert len(job.scored()) > 20


def test_what_waits_at_a_failure_is_judged_by_the_timer_that_was_set():
    job = Job()
    job.feed(*points(40))
    job.engine.checkpoint()
    job.fail()
    job.pass_time(200)
    assert len(job.scored()) == len(set(job.scored())) > 20


def test_what_waits_at_a_failure_that_lost_its_timer_is_judged_once_it_is_woken():
    job = Job()
    job.feed(*points(40))
    job.engine.checkpoint()
    job.engine.fail_and_restore(timers=False)
    job.pass_time(60_000)
    assert job.scored() == [], "nothing came that would have opened the shard"
    job.engine.wake()
    assert len(job.scored()) == len(set(job.scored())) > 20
    n = len(job.engine.outputs)
    job.engine.wake()
    assert len(job.engine.outputs) == n
    job.pass_time(30_000)
    assert "no_data" in job.kinds(), "from here on time passes as ever"


def test_to_be_woken_changes_nothing_where_nothing_was_lost_and_nothing_is():
    job = Job(flink={"linger": "700ms"})
    job.engine.put(Source("in", 7))
    job.feed(*points(40))
    timers = set(job.timers)
    for _ in range(3):
        job.engine.wake()
    assert job.engine.outputs == []
    assert job.timers == timers
    assert job.engine.cells[7] == Cells(), "it was woken, and has nothing"


def test_a_message_of_more_than_a_portion_is_judged_at_once():
    job = Job(series={"ttl": "7d"})
    lines = b"\n".join(points(25_000))
    assert len(lines) > PORTION_BYTES
    job.feed(lines)
    assert len(job.scored()) > 24_900
    job.engine.checkpoint()
    job.fail()
    job.feed(*points(5, start=25_000))
    job.pass_time(200)
    rows = job.scored()
    assert len(rows) == len(set(rows)) > 24_950
