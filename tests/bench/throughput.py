"""Speed of the plain detect job on a real broker, beside what it is made of, in one run.

For each shape of topic, on the same messages: a bare kafka-python loop, polling alone, polling and
decoding, and the whole job (every point scored by the fallback detector, scores, findings and dead
letters produced, offsets committed in transactions). Every measurement is a process of its own;
rounds alternate, so that a noisy machine disturbs all alike. River's HalfSpaceTrees runs on the
same points.

    python tests/bench/throughput.py [--rounds 3] [--quick] [--json docs/bench/throughput.json]
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table

ROOT = Path(__file__).resolve().parents[2]
POISON = b'{"key": "host-1", "ts": 17000000'
N_KEYS = 10_000

SHAPES = {
    "one point a message": {"per_message": 1, "skew": "even"},
    "500 points a message": {"per_message": 500, "skew": "even"},
    "500 points, skewed keys": {"per_message": 500, "skew": "zipf"},
    "500 points, one hot key": {"per_message": 500, "skew": "hot"},
}
MODES = ["bare", "poll", "decode", "job"]


def messages(n_points: int, per_message: int, skew: str) -> Iterator[bytes]:
    """Yield JSON-lines payloads; every thousandth message is poisoned."""
    rng = np.random.default_rng(7)
    if skew == "even":
        keys = np.arange(n_points) % N_KEYS
    elif skew == "zipf":
        keys = rng.zipf(1.3, n_points) % N_KEYS
    else:
        keys = np.where(rng.random(n_points) < 0.5, 0, rng.integers(0, N_KEYS, n_points))
    values = rng.normal(50, 5, n_points).round(4)
    lines: list[bytes] = []
    number = 0
    for i, (key, value) in enumerate(zip(keys.tolist(), values.tolist(), strict=True)):
        ts = 1_700_000_000_000 + i
        lines.append(b'{"key":"host-%d/cpu","ts":%d,"value":%.4f}' % (key, ts, value))
        if len(lines) == per_message:
            number += 1
            yield POISON if number % 1000 == 0 else b"\n".join(lines)
            lines = []


def fill(bootstrap: str, topic: str, n_points: int, shape: dict[str, object]) -> int:
    """Produce a shape's messages to a fresh topic of one partition; return how many."""
    from kafka import KafkaProducer

    producer = KafkaProducer(bootstrap_servers=bootstrap, linger_ms=20, batch_size=512_000, acks=1)
    n = 0
    for payload in messages(n_points, int(shape["per_message"]), str(shape["skew"])):
        producer.send(topic, value=payload, partition=0)
        n += 1
    producer.flush()
    producer.close()
    return n


# ---------------------------------------------------------------- one measurement, in a process


def consumer(bootstrap: str, topic: str):
    """Return a consumer at the beginning of the topic, tuned as the job's own is."""
    from kafka import TopicPartition

    from connectors.kafka.client import KafkaSettings, reader

    made = reader(KafkaSettings(bootstrap=bootstrap))
    made.assign([TopicPartition(topic, 0)])
    made.seek_to_beginning()
    return made


def run_bare(bootstrap: str, topic: str, n: int) -> float:
    """Read every message in a plain loop; return the seconds from the first on."""
    read, started = 0, 0.0
    for record in consumer(bootstrap, topic):
        if not read:
            started = time.perf_counter()
        read += record.value is not None
        if read == n:
            break
    return time.perf_counter() - started


def run_poll(bootstrap: str, topic: str, n: int, *, decode: bool = False) -> float:
    """Poll batches, and decode them as the job does."""
    from jobs.plain.loops import codec_of
    from streamad.config import parse_pipeline

    codec = codec_of(parse_pipeline("name: bench"))
    reading = consumer(bootstrap, topic)
    read, started = 0, 0.0
    while read < n:
        for records in reading.poll(timeout_ms=100, max_records=20_000).values():
            started = started or time.perf_counter()
            read += len(records)
            if decode:
                codec.decode(
                    [r.value for r in records],
                    np.array([r.offset for r in records], np.int64),
                    np.array([r.timestamp for r in records], np.int64),
                )
    return time.perf_counter() - started


def run_job(bootstrap: str, topic: str, n: int, detector: str = "robust_z") -> float:
    """Run the detect role until all it read is committed."""
    from connectors.kafka.client import KafkaSettings
    from jobs.plain.loops import detect_loop
    from jobs.plain.topics import create_topics
    from streamad.config import parse_pipeline

    config = parse_pipeline(
        f"name: bench-{uuid.uuid4().hex[:8]}\ninput: {{topics: {topic}, start: earliest}}\n"
        f"detector: {detector}\nwindows: {{size: 64}}\nseries: {{max_ahead: 3650d}}\n"
        "delivery: {snapshot_interval: 1h}\n"
    )
    settings = KafkaSettings(bootstrap=bootstrap)
    create_topics(config, settings)
    loop, member = detect_loop(config, settings, member="bench")
    started = 0.0
    try:
        taken = 0
        while taken < n or any(shard.dirty for shard in loop.shards.values()):
            before = time.perf_counter()
            got = loop.turn()
            if got and not started:
                started = before
            taken += got
        return time.perf_counter() - started
    finally:
        loop.shards.clear()
        member.close()


def warm_up() -> None:
    """Compile (or load) the kernels, so that none is compiled while it is timed."""
    from streamad.config import parse_pipeline
    from streamad.detectors.robust_z import RobustZ
    from streamad.operators.detect import DetectOperator
    from streamad.testing.batches import make_columns

    operator = DetectOperator(parse_pipeline("name: w\ndetector: robust_z"), RobustZ(size=64))
    state = operator.new_state()
    operator.process(state, make_columns(["a"] * 200, 1000 * np.arange(200), np.ones(200)))


def run_river(n: int) -> float:
    """Score and learn ``n`` points with River's HalfSpaceTrees; return the seconds."""
    from river.anomaly import HalfSpaceTrees

    model = HalfSpaceTrees(seed=1)
    values = np.random.default_rng(7).random(n).tolist()
    started = time.perf_counter()
    for value in values:
        model.score_one({"value": value})
        model.learn_one({"value": value})
    return time.perf_counter() - started


def measure_one(args: argparse.Namespace) -> None:
    """Run one measurement and print its seconds; the parent reads them."""
    warm_up()
    if args.mode == "river":
        print(run_river(args.n))
        return
    run = {
        "bare": run_bare,
        "poll": run_poll,
        "decode": lambda b, t, n: run_poll(b, t, n, decode=True),
        "job": run_job,
    }[args.mode]
    print(run(args.bootstrap, args.topic, args.n))


# ---------------------------------------------------------------- the table


def child(mode: str, bootstrap: str, topic: str, n: int) -> float:
    """Return the seconds of one measurement in a process of its own."""
    command = [
        sys.executable, __file__, "--mode", mode, "--bootstrap", bootstrap, "--topic", topic,
        "--n", str(n),
    ]  # fmt: skip
    done = subprocess.run(command, check=False, capture_output=True, text=True, cwd=ROOT)
    if done.returncode:
        sys.exit(f"{mode} failed:\n{done.stderr}")
    return float(done.stdout.strip().splitlines()[-1])


def compare(bootstrap: str, args: argparse.Namespace, console: Console) -> list[dict[str, object]]:
    """Measure every shape; return a row each with the medians of the rounds."""
    rows: list[dict[str, object]] = []
    for name, shape in SHAPES.items():
        per_message = int(shape["per_message"])
        n_points = (300_000 if per_message == 1 else 3_000_000) // (10 if args.quick else 1)
        topic = f"bench-{uuid.uuid4().hex[:8]}"
        create(bootstrap, topic)
        n = fill(bootstrap, topic, n_points, shape)
        taken: dict[str, list[float]] = {mode: [] for mode in MODES}
        for number in range(args.rounds):
            for mode in MODES:
                console.print(f"{name}: round {number + 1}/{args.rounds}, {mode} ...", style="dim")
                taken[mode].append(child(mode, bootstrap, topic, n))
        rate = {mode: n_points / statistics.median(times) for mode, times in taken.items()}
        against_bare = [b / j for b, j in zip(taken["bare"], taken["job"], strict=True)]
        against_decode = [d / j for d, j in zip(taken["decode"], taken["job"], strict=True)]
        rows.append(
            {
                "shape": name,
                "points": n_points,
                **{f"{mode}_points_per_s": round(value) for mode, value in rate.items()},
                "job_of_bare": round(statistics.median(against_bare), 3),
                "job_of_decode": round(statistics.median(against_decode), 3),
            }
        )
    n = 20_000
    seconds = statistics.median(child("river", "", "", n) for _ in range(args.rounds))
    rows.append({"shape": "River HalfSpaceTrees, no Kafka", "job_points_per_s": round(n / seconds)})
    return rows


def create(bootstrap: str, topic: str) -> None:
    """Create a topic of one partition."""
    from kafka.admin import KafkaAdminClient, NewTopic

    client = KafkaAdminClient(bootstrap_servers=bootstrap)
    client.create_topics([NewTopic(topic, num_partitions=1, replication_factor=1)])
    client.close()


def show(rows: list[dict[str, object]], console: Console) -> None:
    """Print the table."""
    table = Table(title="plain detect job, points a second (medians)")
    columns = ["shape", *[f"{mode}_points_per_s" for mode in MODES], "job_of_bare", "job_of_decode"]
    for column in columns:
        table.add_column(column.replace("_points_per_s", "").replace("_", " "), justify="right")
    for row in rows:
        cells = [row.get(column, "") for column in columns]
        table.add_row(*[f"{c:,}" if isinstance(c, int) else str(c) for c in cells])
    console.print(table)


def main() -> None:
    """Run the benchmark, or one of its measurements."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3, help="rounds, medians are shown")
    parser.add_argument("--quick", action="store_true", help="a tenth of the points")
    parser.add_argument("--json", type=Path, help="write the rows there")
    parser.add_argument("--mode", choices=[*MODES, "river"], help=argparse.SUPPRESS)
    parser.add_argument("--bootstrap", help=argparse.SUPPRESS)
    parser.add_argument("--topic", help=argparse.SUPPRESS)
    parser.add_argument("--n", type=int, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.mode:
        measure_one(args)
        return
    from streamad.testing.kafka_broker import KafkaBroker

    console = Console()
    with KafkaBroker(heap_mb=1024) as broker:
        rows = compare(broker.bootstrap, args, console)
    show(rows, console)
    if args.json:
        args.json.parent.mkdir(parents=True, exist_ok=True)
        about = {"cores": os.cpu_count(), "rounds": args.rounds, "rows": rows}
        args.json.write_text(json.dumps(about, indent=1) + "\n")


if __name__ == "__main__":
    main()
