"""What a flood of new users costs: a million keys that come once, on a real broker.

One partition of events: known users, then as many new ones as asked for, one event each, then the
known users again. Each run is a process of its own: with a low ``series.max_keys``, and with the
defaults, whose ``series.max_memory`` follows from the memory of this machine. Told are rows per
second of the flood, what the process takes at most, and that each row is scored, or counted as
refused. A second process then takes the state back, as after a restart.

    python -m tests.bench.flood [--users N] [--json docs/bench/flood.json]
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import time
import uuid
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from streamad.runtime.detect import DetectLoop

ROOT = Path(__file__).resolve().parents[2]
PER_MESSAGE, KNOWN, OF_KNOWN = 1_000, 1_000, 100_000
BOUNDS = (50_000, None)
MIB = 2**20


def config_text(name: str, topic: str, max_keys: int | None) -> str:
    """Return the pipeline of the benchmark."""
    bound = "" if max_keys is None else f", max_keys: {max_keys}"
    return (
        f"name: {name}\ninput:\n  topics: {topic}\n  start: earliest\n  records: events\n"
        "  fields: {key: user, categories: [action, host]}\ndetector: rare_events\n"
        f"series: {{max_ahead: 3650d{bound}}}\n"
    )


def produce(bootstrap: str, topic: str, users: int) -> None:
    """Write known users, new ones, and the known ones again."""
    from kafka import KafkaProducer

    producer = KafkaProducer(bootstrap_servers=bootstrap, linger_ms=20, batch_size=512_000)
    n = users + 2 * OF_KNOWN
    for start in range(0, n, PER_MESSAGE):
        lines = []
        for i in range(start, start + PER_MESSAGE):
            new = OF_KNOWN <= i < OF_KNOWN + users
            user = b"new-%d" % i if new else b"known-%d" % (i % KNOWN)
            lines.append(
                b'{"user":"%s","ts":%d,"action":"a%d","host":"h%d"}'
                % (user, 1_700_000_000_000 + i, i % 7, i % 13)
            )
        producer.send(topic, value=b"\n".join(lines), partition=0)
    producer.flush()
    producer.close()


def work(args: argparse.Namespace) -> None:
    """Work everything off in this process; print what it took."""
    from connectors.kafka.client import KafkaSettings
    from jobs.plain.loops import detect_loop
    from jobs.plain.topics import create_topics
    from streamad.config import parse_pipeline
    from streamad.ports import NullTelemetry

    class Counts(NullTelemetry):
        def __init__(self) -> None:
            self.total: Counter[str] = Counter()

        def count(self, name: str, n: float = 1, **labels: str) -> None:
            self.total["/".join((name, *labels.values()))] += int(n)

    config = parse_pipeline(config_text(args.name, args.topic, args.max_keys))
    settings, counts = KafkaSettings(bootstrap=args.bootstrap), Counts()
    create_topics(config, settings)
    loop, _ = detect_loop(config, settings, member="bench", telemetry=counts)
    marks: list[tuple[int, float]] = []
    idle_mib = peak_mib()
    if args.again:
        restored(loop)
        return
    # A turn takes many messages: rates are of the rows that were taken, not of those asked for.
    for until in (OF_KNOWN, OF_KNOWN + args.users, args.users + 2 * OF_KNOWN):
        while counts.total["detect_points_total"] < until:
            loop.turn()
        marks.append((counts.total["detect_points_total"], time.process_time()))
    (shard,) = loop.shards.values()
    state, series = shard.state, shard.judge.config.series
    loop.drain()
    (before, after) = marks[0], marks[1]
    rows = counts.total["detect_points_total"]
    refused = counts.total["input_rejected_total/key_limit"]
    told = {
        "max_keys": series.max_keys,
        "max_memory_mib": series.max_memory // MIB,
        "new_users": args.users,
        "users_kept": len(state.keys) - KNOWN,
        "flood_rows_per_cpu_s": round((after[0] - before[0]) / (after[1] - before[1])),
        "bytes_per_key_counted": state.bytes_per_key,
        "peak_mib_before": idle_mib,
        "peak_mib": peak_mib(),
        "peak_bytes_per_key": round((peak_mib() - idle_mib) * MIB / len(state.keys)),
        "rows": rows,
        "scored": counts.total["detect_windows_total"],
        "refused_and_counted": refused,
        "lost": rows - counts.total["detect_windows_total"] - refused,
    }
    print(json.dumps(told), flush=True)


def restored(loop: DetectLoop) -> None:
    """Take the state back; print what it took."""
    begun = time.perf_counter()
    while not loop.shards:
        loop.turn()
    took_s = round(time.perf_counter() - begun, 1)
    (shard,) = loop.shards.values()
    told = {"restored_keys": shard.state.n_keys, "restored_in_s": took_s}
    print(json.dumps(told | {"restored_peak_mib": peak_mib()}), flush=True)


def peak_mib() -> float:
    """Return the most memory that this process has held."""
    return round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, 1)


def run(command: list[str]) -> dict[str, float]:
    """Return what a run in a process of its own has printed last."""
    done = subprocess.run(command, check=False, stdout=subprocess.PIPE, cwd=ROOT)
    if done.returncode:
        sys.exit(f"failed: {' '.join(command)}")
    printed: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return printed


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--users", type=int, default=1_000_000, help="new users that come once")
    parser.add_argument("--json", type=Path, help="write the figures there")
    for hidden in ("bootstrap", "topic", "name"):
        parser.add_argument(f"--{hidden}", help=argparse.SUPPRESS)
    parser.add_argument("--defaults", action="store_true", help="leave out the low max_keys")
    parser.add_argument("--max-keys", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--again", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.name:
        work(args)
        return
    from streamad.testing.kafka_broker import KafkaBroker

    told = []
    with KafkaBroker(heap_mb=1024) as broker:
        topic = f"in-{uuid.uuid4().hex[:8]}"
        broker.create_topic(topic)
        produce(broker.bootstrap, topic, args.users)
        for max_keys in BOUNDS[1:] if args.defaults else BOUNDS:
            name = f"bench-{uuid.uuid4().hex[:8]}"
            command = [sys.executable, "-m", "tests.bench.flood", "--name", name, "--topic", topic]
            command += ["--bootstrap", broker.bootstrap, "--users", str(args.users)]
            if max_keys is not None:
                command += ["--max-keys", str(max_keys)]
            told.append(run(command) | run([*command, "--again"]))
            print(json.dumps(told[-1], indent=1))
    if args.json:
        args.json.parent.mkdir(parents=True, exist_ok=True)
        args.json.write_text(json.dumps(told, indent=1) + "\n")


if __name__ == "__main__":
    main()
