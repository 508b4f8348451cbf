"""A pipeline of its own for each test: input, and loops here or in a process that may die."""

from __future__ import annotations

import json
import multiprocessing
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from typing import Any

import numpy as np
import pytest
from kafka import KafkaConsumer, KafkaProducer, TopicPartition

from connectors.kafka.admin import make_topics
from connectors.kafka.batches import guard
from connectors.kafka.client import KafkaSettings
from connectors.kafka.log import KafkaLog
from connectors.records import cloudevents, scores_log
from jobs.build import build_detect
from jobs.offline.replay import codec_of
from jobs.plain import topics as job_topics
from jobs.plain.loops import alert_loop, detect_loop, group_of
from jobs.plain.run import KILL_AT, run
from streamad.alerts.operator import AlertOperator
from streamad.config import PipelineConfig
from streamad.operators.detect import Position
from streamad.ports import Source
from streamad.records import Finding
from streamad.testing.kafka_broker import KafkaBroker

# Processes that may be killed are forked from one that has everything loaded.
FORKS = multiprocessing.get_context("forkserver")
FORKS.set_forkserver_preload(["tests.integration.warm_kernels"])

STEP_MS = 1_000
Rows = list[tuple[str, int, float]]


def make_rows(
    *, keys: int = 8, points: int = 300, seed: int = 1, start_ms: int | None = None
) -> Rows:
    """Noise with a few jumps per key, in time order, ending now."""
    rng = np.random.default_rng(seed)
    if start_ms is None:
        start_ms = time.time_ns() // 1_000_000 - points * STEP_MS
    values = rng.normal(size=(points, keys))
    for key in range(keys):
        for at in rng.integers(points // 3, points - 10, size=3):
            values[at : at + 3, key] += 25
    return [
        (f"key-{key}", start_ms + t * STEP_MS, float(values[t, key]))
        for t in range(points)
        for key in range(keys)
    ]


class Pipeline:
    """One pipeline on the broker, with topics nobody else has."""

    def __init__(
        self,
        bootstrap: str,
        *,
        partitions: int = 2,
        settings: Mapping[str, Any] | None = None,
        **sections: Any,
    ) -> None:
        self.name = f"p{uuid.uuid4().hex[:10]}"
        self.settings = KafkaSettings(
            bootstrap=bootstrap, **{"session_timeout_ms": 6_000, **(settings or {})}
        )
        self.input = f"in-{self.name}"
        tree: dict[str, Any] = {
            "name": self.name,
            "input": {"topics": self.input, "start": "earliest"},
            "detector": "robust_z",
            "windows": {"size": 16},
            # Liberal levels: the more is found, the more there is to compare.
            "scoring": {"cool_down": 3, "update_every": 10, "candidate": 0.01, "exit": 0.05},
            "alerts": {"level": 0.01},
            "delivery": {"commit_interval": "50ms", "snapshot_interval": "300ms"},
        }
        for name, section in sections.items():
            both = isinstance(section, dict) and isinstance(tree.get(name, {}), dict)
            tree[name] = {**tree.get(name, {}), **section} if both else section
        self.tree = tree
        make_topics(self.settings, [job_topics.Topic(name=self.input, partitions=partitions)])
        self.partitions = partitions
        self.started: list[Any] = []

    @property
    def config(self) -> PipelineConfig:
        return PipelineConfig.model_validate(self.tree)

    # ------------------------------------------------------------------ in

    def send(self, rows: Rows, *, per_message: int = 1) -> None:
        """Write rows, each key to a partition of its own choice."""
        shares: dict[int, Rows] = {}
        for row in rows:
            shares.setdefault(int(row[0].rpartition("-")[2]) % self.partitions, []).append(row)
        with closing(self.producer()) as producer:
            for partition, share in shares.items():
                for at in range(0, len(share), per_message):
                    lines = [
                        json.dumps({"key": key, "ts": ts, "value": value})
                        for key, ts, value in share[at : at + per_message]
                    ]
                    producer.send(self.input, value="\n".join(lines).encode(), partition=partition)
            producer.flush()

    def send_raw(self, *values: bytes | None, partition: int = 0) -> None:
        with closing(self.producer()) as producer:
            for value in values:
                producer.send(self.input, key=b"k", value=value, partition=partition)
            producer.flush()

    def producer(self) -> KafkaProducer:
        options = self.settings.client() | {"retry_backoff_ms": 5}
        return KafkaProducer(**options, linger_ms=5, max_request_size=40_000_000)

    # ------------------------------------------------------------------ at work

    def create(self) -> None:
        job_topics.create_topics(self.config, self.settings)

    def run(
        self, *, member: str = "m", alert: bool = True, timeout_s: float = 60, **delivery: Any
    ) -> None:
        """Work in this process until everything that is there has been committed."""
        self.create()
        tree = {**self.tree, "delivery": {**self.tree["delivery"], **delivery}}
        config = PipelineConfig.model_validate(tree)
        for role, make in (("detect", detect_loop), ("alert", alert_loop)):
            if role == "alert" and not alert:
                continue
            loop, kafka = make(config, self.settings, member=member)
            try:
                self.turn(loop, role, timeout_s=timeout_s)
                loop.drain()
            finally:
                kafka.close()

    def turn(self, loop: Any, role: str, *, timeout_s: float = 60) -> None:
        deadline = time.monotonic() + timeout_s
        while True:
            for _ in range(20):
                loop.turn(20)
            if self.done(role):
                return
            assert time.monotonic() < deadline, f"{role} does not get to the end of its input"

    def start(
        self,
        member: str = "m",
        *,
        role: str = "both",
        kill_at: str = "",
        target: Callable[..., None] | None = None,
        **env: str,
    ) -> Any:
        """Start `jobs.plain.run`, or what stands in for it, in a process of its own."""
        environment = {"STREAMAD_MEMBER": member, KILL_AT: kill_at, **env}
        process = FORKS.Process(
            target=target or run,
            args=(self.config, self.settings),
            kwargs={"role": role, "environment": environment},
        )
        process.start()
        self.started.append(process)
        return process

    def until(
        self, condition: Callable[[], bool], *, timeout_s: float = 60, what: str = ""
    ) -> None:
        deadline = time.monotonic() + timeout_s
        while not condition():
            assert time.monotonic() < deadline, f"waited {timeout_s} s in vain: {what}"
            time.sleep(0.1)

    def done(self, role: str = "both") -> bool:
        """Say whether all input, and all findings, are committed."""
        if role == "both":
            return self.done("detect") and self.done("alert")
        topic = self.input if role == "detect" else self.config.topic("findings")
        with self.log(role) as log:
            for source, (_, after) in log.bounds(topic).items():
                committed = log.committed(source)
                if after == 0:
                    continue
                if committed is None or committed[0] < self._last(source):
                    return False
        return True

    def _last(self, source: Source) -> int:
        """One more than the last record's offset: marks of transactions are no records."""
        records = read(self.settings, source.topic, source.partition)
        return records[-1].offset + 1 if records else 0

    def log(self, role: str = "detect") -> Any:
        return closing(KafkaLog(self.settings, group=group_of(self.config, role)))

    # ------------------------------------------------------------------ out

    def records(self, topic: str) -> list[Any]:
        return read(self.settings, topic)

    def findings(self) -> dict[str, bytes]:
        return by_id(self.records(self.config.topic("findings")))

    def alerts(self) -> dict[str, bytes]:
        return by_id(self.records(self.config.topic("alerts")))

    def open_alerts(self) -> dict[str, str]:
        """Return the state of each alert that is not resolved, by its id."""
        states: dict[str, str] = {}
        for record in self.records(self.config.topic("alerts")):
            alert = json.loads(record.value)
            states[alert["id"]] = alert["state"]
        return {name: state for name, state in states.items() if state != "resolved"}

    def scores(self) -> list[tuple[str, int, float]]:
        rows: list[tuple[str, int, float]] = []
        for record in self.records(self.config.topic("scores")):
            read_back = scores_log.decode(record.value)
            assert isinstance(read_back, tuple), read_back
            scores = read_back[1]
            rows += zip(
                scores.keys.to_list(), scores.end_ms.tolist(), scores.score.tolist(), strict=True
            )
        return sorted(rows, key=repr)

    def dead(self) -> list[tuple[str, Any]]:
        """Return the dead letters of the input with their reason."""
        return [
            (dict(record.headers)["streamad.error.reason"].decode(), record)
            for record in self.records(f"{self.input}.dlq")
        ]

    # ------------------------------------------------------------------ what it should be

    def expected(self) -> Expected:
        """Judge the same input in memory, a partition at a time and all at once: the calm run."""
        config, made = self.config, Expected()
        operator, codec = build_detect(config), codec_of(config)
        findings: list[Finding] = []
        for partition in range(self.partitions):
            records = read(self.settings, self.input, partition)
            decoded = codec.decode(
                [record.value for record in records],
                np.array([record.offset for record in records], np.int64),
                np.array([record.timestamp for record in records], np.int64),
            )
            at = Position(topic=self.input, partition=partition)
            out = operator.process(operator.new_state(), decoded.batch, at=at)
            findings += out.findings
            for batch in out.scores:
                made.scores += zip(
                    batch.keys.to_list(), batch.end_ms.tolist(), batch.score.tolist(), strict=True
                )
        alert = AlertOperator(config)
        alerts = alert.process(alert.new_state(), [(one, one.window_end_ms) for one in findings])
        made.findings = {
            f"{one.id}-{one.sequence}": cloudevents.encode(one).value for one in findings
        }
        made.alerts = {f"{one.id}-{one.sequence}": cloudevents.encode(one).value for one in alerts}
        made.scores.sort(key=repr)
        return made

    def check(self, *, findings: int = 6, alerts: int = 3, rows: bool = False) -> None:
        """Compare everything that was written with the calm run, which has so many at least.

        rows : of old rows that come within seconds, alerts are updated and limited by the wall
            clock: which updates there are is not compared, nor what they show
        """
        expected = self.expected()
        assert len(expected.findings) >= findings
        assert len(expected.alerts) >= alerts
        assert self.findings() == expected.findings
        # As text: the windows of a key that is warming up have NaN for a score, unlike itself.
        assert list(map(repr, self.scores())) == list(map(repr, expected.scores))
        ours, calm = self.alerts(), expected.alerts
        if rows:
            ours, calm = ({json.loads(a)["id"]: b"" for a in one.values() if b'"flood"' not in a}
                          for one in (ours, calm))  # fmt: skip
        assert ours == calm

    def close(self) -> None:
        for process in self.started:
            if process.is_alive():
                process.kill()
            process.join()


class Expected:
    """What a calm run yields."""

    def __init__(self) -> None:
        self.findings: dict[str, bytes] = {}
        self.alerts: dict[str, bytes] = {}
        self.scores: list[tuple[str, int, float]] = []


def by_id(records: Sequence[Any]) -> dict[str, bytes]:
    """Return bodies by event id; an id that came twice is an error."""
    ids = [dict(record.headers)["ce_id"].decode() for record in records]
    assert len(set(ids)) == len(ids), "an event was written twice"
    return dict(zip(ids, (record.value for record in records), strict=True))


def read(settings: KafkaSettings, topic: str, partition: int | None = None) -> list[Any]:
    """Return the committed records of a topic."""
    consumer = KafkaConsumer(
        **settings.client(), isolation_level="read_committed", enable_auto_commit=False,
        max_poll_records=50_000, fetch_max_wait_ms=20, metrics_enabled=False,
    )  # fmt: skip
    with closing(guard(consumer)):
        numbers = consumer.partitions_for_topic(topic) if partition is None else {partition}
        parts = [TopicPartition(topic, number) for number in sorted(numbers)]
        consumer.assign(parts)
        consumer.seek_to_beginning(*parts)
        ends = consumer.end_offsets(parts)
        records: list[Any] = []
        while any(consumer.position(part) < ends[part] for part in parts):
            for polled in consumer.poll(timeout_ms=100).values():
                records += polled
    return records


@pytest.fixture
def pipeline(kafka: KafkaBroker) -> Iterator[Callable[..., Pipeline]]:
    """Make pipelines: ``pipeline(partitions=1, series={"max_keys": 10})``."""
    made: list[Pipeline] = []

    def make(**options: Any) -> Pipeline:
        made.append(Pipeline(kafka.bootstrap, **options))
        return made[-1]

    yield make
    for one in made:
        one.close()


@pytest.fixture
def rows() -> Callable[..., Rows]:
    """Noise with a few jumps per key."""
    return make_rows
