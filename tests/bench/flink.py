"""The detect stage on Flink beside the plain job, on the same topic, in one run.

Speed: each runner judges everything in the topic, three times by turns, and the run with the middle
rate a CPU second counts. Rates are taken from the times at which scores
were written, over the last two thirds of the messages, and the cluster's JVM has done it all once
before, so that starting and compiling do not count; CPU seconds are those of the job's own
processes in that time (the job manager and the broker are not counted). Latency: messages come at
half of the speed Flink showed; a message's latency is the time from its arrival until what it
closed can be read committed.

    python tests/bench/flink.py [--quick] [--json docs/bench/flink.json]
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import yaml
from kafka import KafkaConsumer, KafkaProducer
from rich.console import Console
from rich.table import Table

from connectors.flink.rest import FlinkRest
from connectors.kafka.admin import make_topics
from connectors.kafka.client import KafkaSettings
from connectors.records import scores_log
from jobs.plain.topics import Topic
from streamad.testing.flink import FlinkCluster
from streamad.testing.kafka_broker import KafkaBroker

ROOT = Path(__file__).resolve().parents[2]
PARTITIONS = 2
N_KEYS = {500: 10_000, 1: 400}
"""By points a message; each key must see more points than a window has."""

INTERVAL_S = 5.0
RUNNERS = ("plain", "flink, parallelism 1", "flink, parallelism 2")

ROUNDS = 3
"""The runners take turns, and the one in the middle of its own counts: machines are shared."""


def payloads(n_points: int, per_message: int) -> Iterator[bytes]:
    """Yield JSON lines; keys take turns."""
    n_keys = N_KEYS[per_message]
    values = np.random.default_rng(7).normal(50, 5, n_points).round(4).tolist()
    for at in range(0, n_points, per_message):
        lines = [
            b'{"key":"host-%d/cpu","ts":%d,"value":%.4f}'
            % (i % n_keys, 1_700_000_000_000 + i, values[i])
            for i in range(at, min(at + per_message, n_points))
        ]
        yield b"\n".join(lines)


class Run:
    """One pipeline over one topic."""

    def __init__(self, settings: KafkaSettings, topic: str, folder: Path, **flink: Any) -> None:
        self.settings, self.topic = settings, topic
        self.name = f"bench-{uuid.uuid4().hex[:8]}"
        self.file = folder / f"{self.name}.yaml"
        self.file.write_text(
            yaml.safe_dump(
                {
                    "name": self.name,
                    "input": {"topics": topic, "start": "earliest"},
                    "detector": "robust_z",
                    "windows": {"size": 64},
                    "series": {"max_ahead": "3650d"},
                    "delivery": {"snapshot_interval": "60s"},
                    "flink": {"checkpoint_dir": str(folder / "state"), **flink},
                }
            )
        )
        self.environment = {**os.environ, "KAFKA_BOOTSTRAP_SERVERS": settings.bootstrap}

    def command(self, *arguments: str) -> list[str]:
        return [sys.executable, "-m", "jobs.cli", *arguments]

    def written(self, *, until: int, timeout_s: float = 600) -> list[tuple[int, int, int, float]]:
        """Return (partition, next offset, time written ms, time seen s) until all is judged."""
        consumer = KafkaConsumer(
            f"streamad.{self.name}.scores", bootstrap_servers=self.settings.bootstrap,
            isolation_level="read_committed", auto_offset_reset="earliest", group_id=None,
            enable_auto_commit=False, fetch_max_wait_ms=20, metadata_max_age_ms=1_000,
        )  # fmt: skip
        seen: list[tuple[int, int, int, float]] = []
        reached: dict[int, int] = {}
        deadline = time.monotonic() + timeout_s
        while sum(reached.values()) < until:
            if time.monotonic() > deadline:
                sys.exit(f"{self.name}: judged {reached} of {until} messages in {timeout_s} s")
            for records in consumer.poll(timeout_ms=100).values():
                now_s = time.time()
                for record in records:
                    read = scores_log.decode(record.value)
                    assert isinstance(read, tuple)
                    at = read[0].partition
                    reached[at] = max(reached.get(at, 0), read[0].next_offset)
                    seen.append((at, read[0].next_offset, record.timestamp, now_s))
        consumer.close()
        return seen


class Meter:
    """CPU seconds and memory of processes and their children, twice a second."""

    def __init__(self, pids: Callable[[], list[int]]) -> None:
        self._pids, self._stop = pids, threading.Event()
        self.times: list[float] = []
        self.cpu: list[float] = []
        self.java: list[float] = []
        self.peak_bytes = 0
        self._known: dict[int, tuple[bool, float]] = {}

    @contextmanager
    def running(self) -> Iterator[Meter]:
        thread = threading.Thread(target=self._run)
        thread.start()
        try:
            yield self
        finally:
            self._stop.set()
            thread.join()

    def _run(self) -> None:
        while not self._stop.wait(0.5):
            memory = 0
            for pid in self._pids():
                try:
                    process = psutil.Process(pid)
                    for one in [process, *process.children(recursive=True)]:
                        spent = one.cpu_times()
                        self._known[one.pid] = (one.name() == "java", spent.user + spent.system)
                        memory += one.memory_info().rss
                except psutil.NoSuchProcess:
                    continue
            self.times.append(time.time())
            self.cpu.append(sum(spent for _, spent in self._known.values()))
            self.java.append(sum(spent for java, spent in self._known.values() if java))
            self.peak_bytes = max(self.peak_bytes, memory)

    def spent(self, start_s: float, stop_s: float) -> tuple[float, float]:
        """Return the CPU seconds between two times, and how many of them were Java's."""
        cpu, java = (
            float(np.diff(np.interp([start_s, stop_s], self.times, values))[0])
            for values in (self.cpu, self.java)
        )
        return cpu, java


def rates(
    seen: list[tuple[int, int, int, float]], n: int, per: int, meter: Meter
) -> dict[str, Any]:
    """Return rates over the last two thirds of ``n`` messages of ``per`` points."""
    order = sorted(seen, key=lambda one: one[2])
    reached: dict[int, int] = {}
    progress = []
    for partition, after, written_ms, _ in order:
        reached[partition] = max(reached.get(partition, 0), after)
        progress.append((written_ms / 1000, sum(reached.values())))
    start = next(one for one in progress if one[1] >= n / 3)
    stop = progress[-1]
    points, seconds = (stop[1] - start[1]) * per, stop[0] - start[0]
    cores, java = meter.spent(start[0], stop[0])
    return {
        "points_per_s": round(points / seconds),
        "messages_per_s": round(points / per / seconds),
        "cpu_us_per_point": round(cores / points * 1e6, 2),
        "java_us_per_point": round(java / points * 1e6, 2),
        "points_per_core_s": round(points / cores),
        "memory_mib": round(meter.peak_bytes / 2**20),
    }


@contextmanager
def plain(run: Run) -> Iterator[Callable[[], list[int]]]:
    """Run the plain job's detect role."""
    process = subprocess.Popen(
        run.command("run", str(run.file), "--role", "detect"), env=run.environment, cwd=ROOT,
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        yield lambda: [process.pid]
    finally:
        process.terminate()
        process.wait(60)


@contextmanager
def flink(run: Run, cluster: FlinkCluster, parallelism: int) -> Iterator[Callable[[], list[int]]]:
    """Run it on the cluster."""
    command = run.command(
        "flink", "run", str(run.file), "--cluster", cluster.address,
        "--parallelism", str(parallelism),
    )  # fmt: skip
    done = subprocess.run(
        command, check=False, capture_output=True, text=True, cwd=ROOT, env=run.environment
    )
    if done.returncode:
        sys.exit(done.stderr)
    try:
        yield lambda: list(cluster.task_manager_pids.values())
    finally:
        rest = FlinkRest(cluster.address)
        job = rest.jobs(f"streamad {run.name}")[0]
        if not job.ended:
            rest.cancel(job.id)
        while not rest.jobs(f"streamad {run.name}")[0].ended:
            time.sleep(0.2)


def runner(name: str, run: Run, cluster: FlinkCluster) -> Any:
    """Return what runs a pipeline."""
    return plain(run) if name == "plain" else flink(run, cluster, int(name[-1]))


def checkpoints(cluster: FlinkCluster, run: Run) -> dict[str, int]:
    """Return how long checkpoints took, in milliseconds, and the size of the last."""
    rest = FlinkRest(cluster.address)
    told = cluster.get(f"/jobs/{rest.jobs(f'streamad {run.name}')[0].id}/checkpoints")
    took = [
        one["end_to_end_duration"] for one in told["history"] if one["status"] == "COMPLETED"
    ] or [0]
    newest = told["latest"]["completed"] or {"state_size": 0}
    return {
        "checkpoint_p50_ms": round(float(np.median(took))),
        "checkpoint_max_ms": max(took),
        "checkpoint_mib": round(newest["state_size"] / 2**20, 1),
    }


def new_topic(settings: KafkaSettings) -> str:
    """Create an input."""
    name = f"bench-in-{uuid.uuid4().hex[:8]}"
    make_topics(settings, [Topic(name=name, partitions=PARTITIONS)])
    return name


def speed(
    settings: KafkaSettings, cluster: FlinkCluster, folder: Path, n_points: int, per: int
) -> list[dict[str, Any]]:
    """Return a row a runner for one shape of topic."""
    topic = new_topic(settings)
    producer = KafkaProducer(bootstrap_servers=settings.bootstrap, linger_ms=20, batch_size=512_000)
    n = 0
    for payload in payloads(n_points, per):
        producer.send(topic, value=payload, partition=n % PARTITIONS)
        n += 1
    producer.close()
    # A job runs for months and a benchmark for minutes: the JVM is warm before anything is timed.
    warm = Run(settings, topic, folder, checkpoint_interval=f"{INTERVAL_S:g}s")
    with runner(RUNNERS[1], warm, cluster):
        warm.written(until=n)
    rows: dict[str, list[dict[str, Any]]] = {name: [] for name in RUNNERS}
    for name in RUNNERS * ROUNDS:
        run = Run(settings, topic, folder, checkpoint_interval=f"{INTERVAL_S:g}s")
        with runner(name, run, cluster) as pids, Meter(pids).running() as meter:
            seen = run.written(until=n)
            more = checkpoints(cluster, run) if name != "plain" else {}
        about = {"runner": name, "points_a_message": per}
        rows[name].append({**about, **rates(seen, n, per, meter), **more})
        print(rows[name][-1], file=sys.stderr)
    return [
        sorted(of_one, key=lambda row: row["points_per_core_s"])[ROUNDS // 2]
        for of_one in rows.values()
    ]


def latency(
    settings: KafkaSettings, cluster: FlinkCluster, folder: Path, per_s: float, seconds: float
) -> list[dict[str, Any]]:
    """Return p50 and p99 from arrival to committed scores, at ``per_s`` messages of 500 points."""
    rows = []
    for name in RUNNERS[:2]:
        topic = new_topic(settings)
        run = Run(settings, topic, folder, checkpoint_interval=f"{INTERVAL_S:g}s")
        n = int(per_s * seconds)
        arrived: list[list[float]] = [[] for _ in range(PARTITIONS)]
        with runner(name, run, cluster):
            feeder = threading.Thread(target=_feed, args=(settings, topic, n, per_s, arrived))
            feeder.start()
            seen = run.written(until=n)
            feeder.join()
        waits = np.concatenate([_waits(arrived[p], p, seen) for p in range(PARTITIONS)])
        half = waits[np.concatenate([np.arange(len(a)) >= len(a) // 3 for a in arrived])]
        rows.append(
            {
                "runner": name,
                "messages_per_s": round(per_s),
                "p50_s": round(float(np.quantile(half, 0.5)), 2),
                "p99_s": round(float(np.quantile(half, 0.99)), 2),
            }
        )
        print(rows[-1], file=sys.stderr)
    return rows


def _feed(
    settings: KafkaSettings, topic: str, n: int, per_s: float, arrived: list[list[float]]
) -> None:
    producer = KafkaProducer(bootstrap_servers=settings.bootstrap, linger_ms=5, batch_size=100_000)
    began = time.time()
    for number, payload in enumerate(payloads(n * 500, 500)):
        while (ahead := began + number / per_s - time.time()) > 0:
            time.sleep(min(ahead, 0.05))
        arrived[number % PARTITIONS].append(time.time())
        producer.send(topic, value=payload, partition=number % PARTITIONS)
    producer.close()


def _waits(arrived: list[float], partition: int, seen: list[Any]) -> Any:
    """Return how long each message of a partition waited until its scores could be read."""
    own = sorted((after, at_s) for p, after, _, at_s in seen if p == partition)
    after = np.array([one[0] for one in own])
    at_s = np.minimum.accumulate(np.array([one[1] for one in own])[::-1])[::-1]
    first = np.searchsorted(after, np.arange(len(arrived)), side="right")
    return at_s[np.minimum(first, len(at_s) - 1)] - np.array(arrived)


def show(title: str, rows: list[dict[str, Any]], console: Console) -> None:
    """Print rows as a table."""
    columns = list(dict.fromkeys(name for row in rows for name in row))
    table = Table(title=title)
    for name in columns:
        table.add_column(name.replace("_", " "), justify="right")
    for row in rows:
        table.add_row(
            *[f"{v:,}" if isinstance(v := row.get(c, ""), int) else str(v) for c in columns]
        )
    console.print(table)


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="a tenth of the messages")
    parser.add_argument("--json", type=Path, help="write the rows there")
    args = parser.parse_args()
    scale = 10 if args.quick else 1
    # Compiled as in production: the default of the test cluster is tuned to start quickly.
    options = {"env.java.opts.all": "", "taskmanager.memory.process.size": "3g"}
    with (
        tempfile.TemporaryDirectory() as folder,
        KafkaBroker(heap_mb=1024) as broker,
        FlinkCluster(slots=2, options=options) as cluster,
    ):
        settings, place = KafkaSettings(bootstrap=broker.bootstrap), Path(folder)
        fast = speed(settings, cluster, place, 9_000_000 // scale, 500)
        small = speed(settings, cluster, place, 600_000 // scale, 1)
        half = fast[1]["messages_per_s"] / 2
        late = latency(settings, cluster, place, half, 60 / scale + 20)
    console = Console(width=160)
    show("speed", fast + small, console)
    show(f"latency at half load, checkpoints every {INTERVAL_S:g} s", late, console)
    if args.json:
        about = {"cores": os.cpu_count(), "interval_s": INTERVAL_S, "rounds": ROUNDS}
        args.json.parent.mkdir(parents=True, exist_ok=True)
        args.json.write_text(
            json.dumps({**about, "speed": fast + small, "latency": late}, indent=1) + "\n"
        )


if __name__ == "__main__":
    main()
