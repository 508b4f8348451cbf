"""Speed of the plain detect job on a real broker, beside what it is made of, in one run.

For each shape of topic, on the same messages: a bare kafka-python loop, polling columns as the job
does, polling and decoding, and the whole job (every record scored, scores, findings and dead
letters produced, offsets committed in transactions). Every measurement is a process of its own;
rounds alternate, so that a noisy machine disturbs all alike. River's HalfSpaceTrees runs on the
same points.

    python -m tests.bench.throughput [--rounds 3] [--quick] [--only events]
        [--json docs/bench/throughput.json]
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
import uuid
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table

from streamad.config import PipelineConfig
from tests.bench.shapes import ROOT, SHAPES, Shape

MODES = ["bare", "poll", "decode", "job"]


def fill(bootstrap: str, topic: str, n: int, shape: Shape) -> int:
    """Produce a shape's messages to a fresh topic of one partition; return how many."""
    from kafka import KafkaProducer

    producer = KafkaProducer(bootstrap_servers=bootstrap, linger_ms=20, batch_size=512_000, acks=1)
    sent = 0
    for payload in shape.messages(n):
        producer.send(topic, value=payload, partition=0)
        sent += 1
    producer.flush()
    producer.close()
    return sent


# ---------------------------------------------------------------- one measurement, in a process


def consumer(bootstrap: str, topic: str, *, columns: bool = False):
    """Return a consumer at the beginning of the topic, tuned as the job's own is."""
    from kafka import TopicPartition

    from connectors.kafka.client import KafkaSettings, reader

    made = reader(KafkaSettings(bootstrap=bootstrap), columns=columns)
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


def run_poll(bootstrap: str, topic: str, n: int, config: PipelineConfig | None = None) -> float:
    """Poll columns, and decode them as the job of a pipeline does, where there is one."""
    from connectors.kafka.columns import messages_of
    from jobs.plain.loops import codec_of
    from streamad.ports import Source

    codec = None if config is None else codec_of(config)
    reading = consumer(bootstrap, topic, columns=True)
    read, started = 0, 0.0
    while read < n:
        for records in reading.poll(timeout_ms=100, max_records=20_000).values():
            started = started or time.perf_counter()
            found = messages_of(Source(topic, 0), records)
            read += len(found)
            if codec is not None:
                codec.decode(found.payloads, found.offsets, found.broker_ms)
    return time.perf_counter() - started


def run_job(bootstrap: str, n: int, config: PipelineConfig) -> float:
    """Run the detect role until all it read is committed."""
    from connectors.kafka.client import KafkaSettings
    from jobs.plain.loops import detect_loop
    from jobs.plain.topics import create_topics

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


def warm_up(shape: Shape, config: PipelineConfig) -> None:
    """Compile (or load) the kernels, so that none is compiled while it is timed."""
    from jobs.build import build_detect
    from jobs.plain.loops import codec_of

    operator, codec = build_detect(config), codec_of(config)
    payloads = list(shape.messages(20_000))
    offsets = np.arange(len(payloads), dtype=np.int64)
    decoded = codec.decode(payloads, offsets, np.full(len(payloads), -1, np.int64))
    operator.process(operator.new_state(), decoded.batch)


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
    if args.mode == "river":
        print(run_river(args.n))
        return
    from streamad.config import parse_pipeline

    shape = SHAPES[args.shape]
    text = shape.pipeline(f"bench-{uuid.uuid4().hex[:8]}", args.topic, args.artifact)
    config = parse_pipeline(text)
    warm_up(shape, config)
    run = {
        "bare": lambda: run_bare(args.bootstrap, args.topic, args.n),
        "poll": lambda: run_poll(args.bootstrap, args.topic, args.n),
        "decode": lambda: run_poll(args.bootstrap, args.topic, args.n, config),
        "job": lambda: run_job(args.bootstrap, args.n, config),
    }[args.mode]
    print(run())


# ---------------------------------------------------------------- the table


def child(mode: str, n: int, *given: str) -> float:
    """Return the seconds of one measurement in a process of its own."""
    command = [sys.executable, "-m", "tests.bench.throughput", "--mode", mode, "--n", str(n)]
    done = subprocess.run([*command, *given], check=False, capture_output=True, text=True, cwd=ROOT)
    if done.returncode:
        sys.exit(f"{mode} failed:\n{done.stderr}")
    return float(done.stdout.strip().splitlines()[-1])


def compare(bootstrap: str, args: argparse.Namespace, console: Console) -> list[dict[str, object]]:
    """Measure every shape; return a row each with the medians of the rounds."""
    rows: list[dict[str, object]] = []
    with tempfile.TemporaryDirectory() as folder:
        for shape in SHAPES.values():
            if args.only in shape.name:
                artifact = str(shape.fit(Path(folder))) if shape.fitted else ""
                rows.append(compare_one(bootstrap, shape, artifact, args, console))
    if not args.only:
        n = 20_000
        seconds = statistics.median(child("river", n) for _ in range(args.rounds))
        about = {"shape": "River HalfSpaceTrees, no Kafka", "job_points_per_s": round(n / seconds)}
        rows.append(about)
    return rows


def compare_one(
    bootstrap: str, shape: Shape, artifact: str, args: argparse.Namespace, console: Console
) -> dict[str, object]:
    """Measure one shape in rounds; ratios are medians of pairs in one round."""
    n_points = shape.rows // (10 if args.quick else 1)
    topic = f"bench-{uuid.uuid4().hex[:8]}"
    create(bootstrap, topic)
    n = fill(bootstrap, topic, n_points, shape)
    given = ["--bootstrap", bootstrap, "--topic", topic, "--shape", shape.name]
    given += ["--artifact", artifact]
    taken: dict[str, list[float]] = {mode: [] for mode in MODES}
    for number in range(args.rounds):
        for mode in MODES:
            console.print(
                f"{shape.name}: round {number + 1}/{args.rounds}, {mode} ...", style="dim"
            )
            taken[mode].append(child(mode, n, *given))
    rate = {mode: n_points / statistics.median(times) for mode, times in taken.items()}
    against_bare = [b / j for b, j in zip(taken["bare"], taken["job"], strict=True)]
    against_decode = [d / j for d, j in zip(taken["decode"], taken["job"], strict=True)]
    return {
        "shape": shape.name,
        "points": n_points,
        **{f"{mode}_points_per_s": round(value) for mode, value in rate.items()},
        "job_of_bare": round(statistics.median(against_bare), 3),
        "job_of_decode": round(statistics.median(against_decode), 3),
    }


def create(bootstrap: str, topic: str) -> None:
    """Create a topic of one partition."""
    from kafka.admin import KafkaAdminClient, NewTopic

    client = KafkaAdminClient(bootstrap_servers=bootstrap)
    client.create_topics([NewTopic(topic, num_partitions=1, replication_factor=1)])
    client.close()


def show(rows: list[dict[str, object]], console: Console) -> None:
    """Print the table."""
    table = Table(title="plain detect job, records a second (medians)")
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
    parser.add_argument("--only", default="", help="shapes whose name holds this text")
    parser.add_argument("--json", type=Path, help="write the rows there")
    parser.add_argument("--mode", choices=[*MODES, "river"], help=argparse.SUPPRESS)
    parser.add_argument("--bootstrap", help=argparse.SUPPRESS)
    parser.add_argument("--topic", help=argparse.SUPPRESS)
    parser.add_argument("--shape", choices=list(SHAPES), help=argparse.SUPPRESS)
    parser.add_argument("--artifact", default="", help=argparse.SUPPRESS)
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
