"""How soon a killed detect job is scoring again.

A job takes in 100,000 keys, saves a snapshot, goes on, and is killed with -9. A new process of the
same member then starts; timed are its recovery (snapshot, then the input since, outputs muted) and
the whole way from its start to the first new points scored.

    python tests/bench/recovery.py [--keys N] [--after N] [--json docs/bench/recovery.json]
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import time
import uuid
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PER_MESSAGE = 500


def config_text(name: str, topic: str) -> str:
    """Return the pipeline of the benchmark."""
    return (
        f"name: {name}\ninput: {{topics: {topic}, start: earliest}}\ndetector: robust_z\n"
        "windows: {size: 64}\nseries: {max_ahead: 3650d}\n"
        "delivery: {snapshot_interval: 1h, snapshot_store: topic}\n"
    )


def produce(bootstrap: str, topic: str, first: int, n_points: int, n_keys: int) -> None:
    """Produce points round robin over the keys, 500 a message."""
    from kafka import KafkaProducer

    producer = KafkaProducer(bootstrap_servers=bootstrap, linger_ms=20, batch_size=512_000)
    for start in range(first, first + n_points, PER_MESSAGE):
        lines = [
            b'{"key":"host-%d/cpu","ts":%d,"value":%d}'
            % (i % n_keys, 1_700_000_000_000 + i, i % 97)
            for i in range(start, min(start + PER_MESSAGE, first + n_points))
        ]
        producer.send(topic, value=b"\n".join(lines), partition=0)
    producer.flush()
    producer.close()


def work(args: argparse.Namespace) -> None:
    """Take in messages; save and be killed, or tell how long it took to be back."""
    started = time.perf_counter()
    from connectors.kafka.client import KafkaSettings
    from jobs.plain.loops import detect_loop
    from jobs.plain.topics import create_topics
    from streamad.config import parse_pipeline

    config = parse_pipeline(config_text(args.name, args.topic))
    settings = KafkaSettings(bootstrap=args.bootstrap)
    create_topics(config, settings)
    loop, _ = detect_loop(config, settings, member="bench")
    taken = 0
    if args.role == "fill":
        saved = False
        while taken < args.messages or any(shard.dirty for shard in loop.shards.values()):
            taken += loop.turn()
            if not saved and taken >= args.save_at and not loop._is_dirty():
                for shard in loop.shards.values():
                    loop._save(shard)
                saved = True
        os.kill(os.getpid(), signal.SIGKILL)
    placed = 0.0
    while not taken:
        if loop.shards and not placed:
            placed = time.perf_counter()
        taken = loop.turn()
    done = time.perf_counter()
    keys = sum(shard.state.n_keys for shard in loop.shards.values())
    print(json.dumps({"start_to_scoring_s": done - started, "keys": keys}), flush=True)
    os.kill(os.getpid(), signal.SIGKILL)


def reread(args: argparse.Namespace) -> None:
    """Read and decode what came since the snapshot: the floor of a recovery."""
    import numpy as np
    from kafka import TopicPartition

    from connectors.kafka.client import KafkaSettings, reader
    from jobs.plain.loops import codec_of
    from streamad.config import parse_pipeline

    codec = codec_of(parse_pipeline("name: bench"))
    reading = reader(KafkaSettings(bootstrap=args.bootstrap))
    reading.assign([TopicPartition(args.topic, 0)])
    reading.seek(TopicPartition(args.topic, 0), args.save_at)
    read, started = 0, time.perf_counter()
    while read < args.messages - args.save_at:
        for records in reading.poll(timeout_ms=100).values():
            read += len(records)
            codec.decode(
                [r.value for r in records],
                np.array([r.offset for r in records], np.int64),
                np.array([r.timestamp for r in records], np.int64),
            )
    print(json.dumps({"reread_s": time.perf_counter() - started}), flush=True)


def child(role: str, **given: object) -> dict[str, float]:
    """Run a role in a process of its own; return what it told."""
    command = [sys.executable, __file__, "--role", role]
    for name, value in given.items():
        command += [f"--{name.replace('_', '-')}", str(value)]
    done = subprocess.run(command, check=False, capture_output=True, text=True, cwd=ROOT)
    if done.returncode not in (0, -signal.SIGKILL):
        sys.exit(f"{role} failed:\n{done.stderr}")
    told = done.stdout.strip().splitlines()
    return json.loads(told[-1]) if told else {}


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--keys", type=int, default=100_000, help="keys the job holds")
    parser.add_argument("--after", type=int, default=500_000, help="points since the snapshot")
    parser.add_argument("--json", type=Path, help="write the figures there")
    for hidden in ("role", "bootstrap", "topic", "name"):
        parser.add_argument(f"--{hidden}", help=argparse.SUPPRESS)
    for hidden in ("messages", "save-at"):
        parser.add_argument(f"--{hidden}", type=int, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.role:
        (reread if args.role == "reread" else work)(args)
        return
    from streamad.testing.kafka_broker import KafkaBroker

    with KafkaBroker(heap_mb=1024) as broker:
        name, topic = f"bench-{uuid.uuid4().hex[:8]}", f"in-{uuid.uuid4().hex[:8]}"
        broker.create_topic(topic)
        before = 70 * args.keys
        produce(broker.bootstrap, topic, 0, before + args.after, args.keys)
        about: dict[str, object] = {
            "bootstrap": broker.bootstrap,
            "topic": topic,
            "name": name,
            "save_at": before // PER_MESSAGE,
            "messages": (before + args.after) // PER_MESSAGE,
        }
        child("fill", **about)
        produce(broker.bootstrap, topic, before + args.after, PER_MESSAGE, args.keys)
        told = child("recover", **about)
        told |= child("reread", **about)
    told["points_since_snapshot"] = args.after
    told["beyond_reread_s"] = round(told["start_to_scoring_s"] - told["reread_s"], 2)
    print(json.dumps(told, indent=1))
    if args.json:
        args.json.parent.mkdir(parents=True, exist_ok=True)
        args.json.write_text(json.dumps(told, indent=1) + "\n")


if __name__ == "__main__":
    main()
