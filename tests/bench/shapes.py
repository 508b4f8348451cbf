"""Topics of the throughput benchmark: what messages hold, and the pipelines that read them."""

from __future__ import annotations

import csv
import itertools
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parents[2]
START_MS = 1_700_000_000_000
N_KEYS = 10_000
TRAINED = 100_000
"""Records an artifact is fitted on; the topic goes on where they end."""

EVENT_FIELDS = ("process", "parent", "host", "peer", "action", "result", "zone", "agent")
EVENTS = (
    "records: events, fields: {key: user, categories: ["
    + ", ".join(EVENT_FIELDS)
    + "], numbers: [bytes]}"
)
EDGES = "records: edges, fields: {key: site, source: src, target: dst}"


@dataclass(frozen=True, kw_only=True)
class Shape:
    """One topic and the pipeline that reads it.

    lines : from a number of records to one JSON object each; per_message : records in a message
    input, settings : of the pipeline, beside the topic; fitted : the detector whose artifact it
    needs; rows : records of a run
    """

    name: str
    lines: Callable[[int], Iterator[bytes]]
    per_message: int
    settings: str
    input: str = ""
    fitted: bool = False
    rows: int

    def pipeline(self, name: str, topic: str, artifact: str) -> str:
        """Return the pipeline file; ``artifact`` is the folder of `fit`."""
        beside = f", {self.input}" if self.input else ""
        settings = self.settings.replace("ARTIFACT", artifact)
        return (
            f"name: {name}\ninput: {{topics: {topic}, start: earliest{beside}}}\n{settings}\n"
            "series: {max_ahead: 3650d}\ndelivery: {snapshot_interval: 1h}\n"
        )

    def messages(self, n: int) -> Iterator[bytes]:
        """Yield payloads of JSON lines; every thousandth is poisoned, as half an object."""
        lines = self.lines(n)
        for number in itertools.count(1):
            part = list(itertools.islice(lines, self.per_message))
            if len(part) < self.per_message:
                return
            yield part[0][:40] if number % 1000 == 0 else b"\n".join(part)

    def fit(self, folder: Path) -> Path:
        """Fit the shape's detector on records before those of the topic; return the artifact."""
        detector = self.settings.split("name: ")[1].split(",")[0]
        made, table = folder / detector, folder / f"{detector}.csv"
        if made.exists():
            return made
        with table.open("w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(["user", "ts", *EVENT_FIELDS, "bytes"])
            writer.writerows(event_rows(TRAINED, seed=11))
        command = [
            sys.executable, "-m", "jobs.cli", "fit", detector, str(table), "--key", "user",
            "--time", "ts", "-o", str(made),
        ]  # fmt: skip
        subprocess.run(command, check=True, cwd=ROOT, stdout=subprocess.DEVNULL)
        return made


def signal_lines(n: int, skew: str) -> Iterator[bytes]:
    """Yield points of ten thousand series."""
    rng = np.random.default_rng(7)
    if skew == "even":
        keys = np.arange(n) % N_KEYS
    elif skew == "zipf":
        keys = rng.zipf(1.3, n) % N_KEYS
    else:
        keys = np.where(rng.random(n) < 0.5, 0, rng.integers(0, N_KEYS, n))
    values = rng.normal(50, 5, n).round(4)
    for i, (key, value) in enumerate(zip(keys.tolist(), values.tolist(), strict=True)):
        yield b'{"key":"host-%d/cpu","ts":%d,"value":%.4f}' % (key, START_MS + i, value)


def event_rows(n: int, seed: int = 7) -> Iterator[tuple[object, ...]]:
    """Yield events of ten thousand users: key, time, eight texts and a number.

    A user has a zone, a host and a few processes that most events are of; a process has a parent
    and few peers. So values go together as in an audit log, and few events are strange.
    """
    rng = np.random.default_rng(seed)
    user = rng.zipf(1.3, n) % N_KEYS
    own = rng.integers(0, 3, n)
    process = np.where(rng.random(n) < 0.97, (user + 7 * own) % 60, rng.integers(0, 60, n))
    host = np.where(rng.random(n) < 0.99, user % 400, rng.integers(0, 400, n))
    peer = np.where(rng.random(n) < 0.98, (process * 5 + own) % 250, rng.integers(0, 250, n))
    action = (process + own) % 6
    failed = rng.random(n) < 0.02
    size = np.exp(rng.normal(process % 9, 1)).round(1)
    columns = (user, process, host, peer, action, failed, size)
    for i, (u, p, h, t, a, f, b) in enumerate(zip(*(c.tolist() for c in columns), strict=True)):
        yield (
            f"user-{u}", START_MS + 20 * i, f"/usr/bin/tool-{p}", f"/usr/lib/parent-{p % 8}",
            f"node-{h}.internal", f"db-{t}.internal", f"action-{a}", "failed" if f else "ok",
            f"zone-{h % 4}", f"agent/{p % 3}.{a % 2}", b,
        )  # fmt: skip


def event_lines(n: int) -> Iterator[bytes]:
    """Yield the events as JSON."""
    form = (
        '{"user":"%s","ts":%d,"process":"%s","parent":"%s","host":"%s","peer":"%s",'
        '"action":"%s","result":"%s","zone":"%s","agent":"%s","bytes":%.1f}'
    )
    for row in event_rows(n):
        yield (form % row).encode()


def edge_lines(n: int) -> Iterator[bytes]:
    """Yield flows between three thousand hosts of twenty sites."""
    rng = np.random.default_rng(7)
    source = rng.zipf(1.4, n) % 3_000
    target = np.where(
        rng.random(n) < 0.98,
        (source * 3 + rng.integers(0, 5, n)) % 3_000,
        rng.integers(0, 3_000, n),
    )
    for i, (s, t) in enumerate(zip(source.tolist(), target.tolist(), strict=True)):
        yield b'{"site":"site-%d","ts":%d,"src":"host-%d","dst":"host-%d"}' % (
            s % 20, START_MS + 2 * i, s, t,
        )  # fmt: skip


def signals(name: str, per_message: int, skew: str, rows: int) -> Shape:
    """Return a topic of points, judged by the fallback detector."""
    return Shape(
        name=name, lines=lambda n: signal_lines(n, skew), per_message=per_message, rows=rows,
        settings="detector: robust_z\nwindows: {size: 64}",
    )  # fmt: skip


def events(detector: str, per_message: int, rows: int, *, fitted: bool = True) -> Shape:
    """Return a topic of events."""
    beside = ", artifact: ARTIFACT" if fitted else ""
    how = detector if fitted or detector == "ape" else f"{detector}, not fitted"
    return Shape(
        name=f"{_many(per_message, 'event')}, {how}", lines=event_lines, per_message=per_message,
        rows=rows, settings=f"detector: {{name: {detector}{beside}}}", input=EVENTS, fitted=fitted,
    )  # fmt: skip


def edges(detector: str, per_message: int, rows: int) -> Shape:
    """Return a topic of edges."""
    return Shape(
        name=f"{_many(per_message, 'edge')}, {detector}", lines=edge_lines, input=EDGES,
        per_message=per_message, rows=rows, settings=f"detector: {detector}",
    )  # fmt: skip


def _many(number: int, what: str) -> str:
    return f"one {what} a message" if number == 1 else f"{number} {what}s a message"


SHAPES = {
    shape.name: shape
    for shape in (
        signals("one point a message", 1, "even", 300_000),
        signals("500 points a message", 500, "even", 3_000_000),
        signals("500 points, skewed keys", 500, "zipf", 3_000_000),
        signals("500 points, one hot key", 500, "hot", 3_000_000),
        events("rare_events", 1, 300_000, fitted=False),
        events("rare_events", 1, 300_000),
        events("ape", 1, 300_000),
        events("rare_events", 500, 1_000_000),
        events("ape", 500, 1_000_000),
        edges("edge_changes", 1, 300_000),
        edges("edge_stream", 1, 300_000),
        edges("edge_changes", 500, 2_000_000),
    )
}
"""By name, in the order they are shown."""
