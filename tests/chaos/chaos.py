"""Kill, freeze and double a pipeline's processes and its broker at random, under load.

What was written in the end has to be what a calm run over the same input writes. The acts follow
from the seed; when they hit what is a matter of the machine, so a seed is not a replay.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import random
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from kafka.errors import KafkaError

from connectors.kafka.client import KafkaSettings
from connectors.records import cloudevents
from jobs.logs import setup_logs
from jobs.plain.run import run
from streamad.alerts.operator import AlertOperator
from streamad.config import PipelineConfig
from streamad.records import Finding
from streamad.testing.kafka_broker import KafkaBroker
from tests.integration.conftest import Pipeline

PARTITIONS = 4
KEYS = 12
STEP_S = 0.1
"""Between two samples of a key; event time is the wall clock, as where silence is watched."""

SILENCE = "3s"
SETTLE_S = 120.0
"""How long the pipeline has to catch up once nothing is done to it any more."""

SESSION_S = 6.0
MEMBERS = ("m0", "m1", "m2")
MOST_MEMBERS = 5


def serve(
    config: PipelineConfig,
    settings: KafkaSettings,
    *,
    role: Any,
    environment: Mapping[str, str],
) -> None:
    """Be one process of the pipeline, with a log file of its own."""
    log = Path(environment["CHAOS_LOG"])
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("a") as stream:
        os.dup2(stream.fileno(), 1)
        os.dup2(stream.fileno(), 2)
    setup_logs()
    run(config, settings, role=role, environment=environment)


class Feeder:
    """Sends noise with jumps and holes, at the pace of the clock; a thread of its own."""

    def __init__(self, job: Pipeline, seed: int) -> None:
        self._job = job
        self._stop = threading.Event()
        self._rng = np.random.default_rng(seed)
        self._thread = threading.Thread(target=self._run, name="feeder", daemon=True)
        self.sent = 0

    def __enter__(self) -> Feeder:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join(150)
        assert not self._thread.is_alive(), "the feeder does not end"

    def _run(self) -> None:
        with contextlib.closing(self._job.producer()) as producer:
            until, quiet = np.zeros(KEYS), np.zeros(KEYS)
            while not self._stop.wait(STEP_S):
                now_s = time.time()
                for key in range(KEYS):
                    self._draw(key, now_s, until, quiet)
                    if now_s < quiet[key]:
                        continue
                    jump = 25.0 if now_s < until[key] else 0.0
                    row = {
                        "key": f"key-{key}",
                        "ts": int(now_s * 1000),
                        "value": float(self._rng.normal() + jump),
                    }
                    # A broker that is away: the input is what the topic holds in the end.
                    with contextlib.suppress(KafkaError):
                        producer.send(
                            self._job.input,
                            value=json.dumps(row).encode(),
                            partition=key % PARTITIONS,
                        )
                        self.sent += 1
            with contextlib.suppress(KafkaError):
                producer.flush(timeout=60)

    def _draw(self, key: int, now_s: float, until: Any, quiet: Any) -> None:
        if self._rng.random() < 0.004:
            until[key] = now_s + 0.5
        if self._rng.random() < 0.001:
            # Every key of the partition falls silent, so that only the clock can tell of it.
            quiet[key % PARTITIONS :: PARTITIONS] = now_s + self._rng.uniform(4, 9)


@dataclasses.dataclass
class Process:
    """One process of the pipeline."""

    name: str
    handle: Any
    log: Path
    frozen_until_s: float = 0.0
    killed: bool = False

    @property
    def alive(self) -> bool:
        return bool(self.handle.is_alive())

    def signal(self, number: int) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.handle.pid, number)


class Chaos:
    """One run: what is done to it, and whether it was withstood.

    seed : of the acts and of the input
    minutes : how long acts go on
    libs : the folder with Kafka's jars
    logs : where the log of each process is kept
    silence : let the wall clock decide that keys are silent
    """

    def __init__(
        self, *, seed: int, minutes: float, libs: Path, logs: Path, silence: bool = True
    ) -> None:
        self._random = random.Random(seed)  # noqa: S311 - no secret
        self.seed, self.minutes, self.silence = seed, minutes, silence
        self.broker = KafkaBroker(libs=libs)
        self.logs = logs
        self.acts: Counter[str] = Counter()
        self.endings: Counter[str] = Counter()
        self.processes: list[Process] = []
        self.wanted = list(MEMBERS)
        self.settled_s = 0.0
        self.sizes: dict[str, int] = {}
        self._broker_back_s = 0.0
        self._n_started = 0

    # ------------------------------------------------------------------ the run

    def run(self, *, tell: Callable[[float, str], None] = lambda *_: None) -> None:
        """Raise AssertionError where something was lost, doubled or never came."""
        with self.broker:
            self.job = self._pipeline()
            try:
                self.job.create()
                with Feeder(self.job, self.seed) as feeder:
                    self._acts(tell)
                tell(1.0, "catching up")
                self._calm()
                self.sizes["rows"] = feeder.sent
                tell(1.0, "comparing")
                self._check()
            finally:
                for one in self.processes:
                    one.signal(signal.SIGCONT)
                self.job.close()

    def _pipeline(self) -> Pipeline:
        series = {"silence": SILENCE, "ttl": "1h"} if self.silence else {}
        return Pipeline(
            self.broker.bootstrap,
            partitions=PARTITIONS,
            settings={"session_timeout_ms": int(SESSION_S * 1000)},
            series=series,
        )

    def _acts(self, tell: Callable[[float, str], None]) -> None:
        began_s = time.monotonic()
        length_s = self.minutes * 60
        next_s = began_s + 8.0  # let everything be at work before the first blow
        while (now_s := time.monotonic()) < began_s + length_s:
            self._supervise(now_s)
            if now_s >= next_s:
                name = self._random.choices(list(ACTS), weights=[w for w, _ in ACTS.values()])[0]
                if ACTS[name][1](self):
                    self.acts[name] += 1
                next_s = now_s + self._random.uniform(0.5, 3.0)
            tell((now_s - began_s) / length_s, f"{self.acts.total()} acts")
            time.sleep(0.1)
        # The feeder ends by handing over what it holds, which takes a broker that is there.
        self._broker_back_s = 0.0
        self._supervise(time.monotonic())

    def _calm(self) -> None:
        """Undo what is done, and wait for all input to be committed."""
        for one in self.processes:
            one.frozen_until_s = 0.0
        self._broker_back_s = 0.0
        began_s = time.monotonic()
        look_s = began_s + 2
        n_done = 0
        while n_done < 2:
            self._supervise(time.monotonic())
            assert time.monotonic() < began_s + SETTLE_S, (
                f"not caught up {SETTLE_S:.0f} s after the last act; logs in {self.logs}"
            )
            if time.monotonic() > look_s:
                # Twice: where all is read, the clock goes on to tell of silence for a while.
                n_done = n_done + 1 if self.job.done() else 0
                self.settled_s = self.settled_s if n_done > 1 else time.monotonic() - began_s
                look_s = time.monotonic() + 5
            time.sleep(0.2)
        for one in self.processes:
            one.signal(signal.SIGTERM)
        for one in self.processes:
            one.handle.join(30)
            assert not one.alive, f"{one.name} does not end when it is asked to: {one.log}"

    def _supervise(self, now_s: float) -> None:
        """Do what an orchestrator does: start what is wanted and does not run."""
        if now_s >= self._broker_back_s:
            if self.broker.pid is None:
                self.broker.start()
            os.kill(self.broker.pid or 0, signal.SIGCONT)
        for one in [one for one in self.processes if not one.alive]:
            self.processes.remove(one)
            self.endings["killed" if one.killed else f"exit {one.handle.exitcode}"] += 1
        for one in self.processes:
            if one.frozen_until_s <= now_s:
                one.signal(signal.SIGCONT)
        for name in self.wanted:
            if not any(one.name == name for one in self.processes):
                self._start(name)

    def _start(self, name: str) -> None:
        self._n_started += 1
        log = self.logs / f"{self._n_started:03}-{name}.log"
        handle = self.job.start(name, target=serve, CHAOS_LOG=str(log))
        self.processes.append(Process(name, handle, log))

    # ------------------------------------------------------------------ the acts

    def _one(self, *, awake: bool = False) -> Process | None:
        now_s = time.monotonic()
        choice = [
            one
            for one in self.processes
            if not one.killed and not (awake and one.frozen_until_s > now_s)
        ]
        return self._random.choice(choice) if choice else None

    def kill(self) -> bool:
        one = self._one()
        if one is not None:
            one.killed = True
            one.signal(signal.SIGKILL)
        return one is not None

    def freeze(self) -> bool:
        one = self._one(awake=True)
        if one is not None:
            one.frozen_until_s = time.monotonic() + self._random.uniform(1.0, 2.5 * SESSION_S)
            one.signal(signal.SIGSTOP)
        return one is not None

    def twin(self) -> bool:
        one = self._one()
        if one is None or sum(other.name == one.name for other in self.processes) > 1:
            return False
        self._start(one.name)
        return True

    def more(self) -> bool:
        spare = [f"m{n}" for n in range(MOST_MEMBERS) if f"m{n}" not in self.wanted]
        if spare:
            self.wanted.append(self._random.choice(spare))
        return bool(spare)

    def fewer(self) -> bool:
        if len(self.wanted) < 2:
            return False
        name = self._random.choice(self.wanted)
        self.wanted.remove(name)
        for one in self.processes:
            if one.name == name:
                one.signal(signal.SIGTERM)
        return True

    def kill_broker(self) -> bool:
        if time.monotonic() < self._broker_back_s:
            return False
        self.broker.kill()
        self._broker_back_s = time.monotonic() + self._random.uniform(0.5, 6.0)
        return True

    def freeze_broker(self) -> bool:
        if time.monotonic() < self._broker_back_s or self.broker.pid is None:
            return False
        os.kill(self.broker.pid, signal.SIGSTOP)
        self._broker_back_s = time.monotonic() + self._random.uniform(0.5, 8.0)
        return True

    # ------------------------------------------------------------------ what has to hold

    def _check(self) -> None:
        """Compare with a calm run: the same input through the operators of `backtest`."""
        job = self.job
        expected = job.expected()
        findings = job.findings()
        made = {name: value for name, value in findings.items() if not of_silence(value)}
        calm = {name: value for name, value in expected.findings.items() if not of_silence(value)}
        scores = list(map(repr, job.scores()))
        alerts = job.alerts()
        self.sizes |= {
            "scores": len(scores),
            "findings": len(made),
            "of silence": len(findings) - len(made),
            "alerts": len(alerts),
        }
        same("scores", scores, list(map(repr, expected.scores)))
        same("findings", made, calm)
        if not self.silence:
            same("alerts", alerts, expected.alerts)
        self._check_silence(findings)
        same("alerts of the findings as they lie in the log", alerts, self._alerts_of_log())

    @staticmethod
    def _check_silence(findings: Mapping[str, bytes]) -> None:
        """What the clock decided has no calm run to be like, but it has to be told in order."""
        told: dict[str, list[int]] = {}
        for name, value in findings.items():
            if of_silence(value):
                episode, _, sequence = name.rpartition("-")
                told.setdefault(episode, []).append(int(sequence))
        for episode, numbers in told.items():
            assert sorted(numbers) == list(range(len(numbers))), (episode, numbers)

    def _alerts_of_log(self) -> dict[str, bytes]:
        operator = AlertOperator(self.job.config)
        by_partition: dict[int, list[tuple[Finding, int]]] = {}
        for record in self.job.records(self.job.config.topic("findings")):
            read = cloudevents.decode(record.value, record.headers)
            assert isinstance(read, Finding), read
            by_partition.setdefault(record.partition, []).append((read, record.timestamp))
        alerts = [
            alert
            for log in by_partition.values()
            for alert in operator.process(operator.new_state(), log)
        ]
        return {f"{one.id}-{one.sequence}": cloudevents.encode(one).value for one in alerts}


ACTS: Mapping[str, tuple[int, Callable[[Chaos], bool]]] = {
    "kill -9": (6, Chaos.kill),
    "freeze": (6, Chaos.freeze),
    "twin": (3, Chaos.twin),
    "member more": (2, Chaos.more),
    "member fewer": (2, Chaos.fewer),
    "broker kill -9": (1, Chaos.kill_broker),
    "broker freeze": (1, Chaos.freeze_broker),
}


def of_silence(finding: bytes) -> bool:
    """Say whether the clock may have decided it."""
    return json.loads(finding)["kind"] == "no_data"


def same(what: str, made: Any, calm: Any) -> None:
    """Raise AssertionError with the first differences, not with megabytes of both."""
    if made == calm:
        return
    if isinstance(made, dict):
        lost, extra = sorted(calm.keys() - made.keys()), sorted(made.keys() - calm.keys())
        other = [
            (made[one], calm[one]) for one in made.keys() & calm.keys() if made[one] != calm[one]
        ]
    else:
        left, right = Counter(made), Counter(calm)
        lost, extra, other = list(right - left), list(left - right), []
    msg = (
        f"{what}: {len(made)}, in the calm run {len(calm)}; lost {len(lost)}: {lost[:5]}; "
        f"only here {len(extra)}: {extra[:5]}; different {len(other)}: {other[:2]}"
    )
    raise AssertionError(msg)
