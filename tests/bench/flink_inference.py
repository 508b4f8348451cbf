"""Where a model's batches are best made inside PyFlink: behind AsyncDataStream, or in one function.

A model is several times as quick on 64 windows at once as on one, so somebody has to collect them.
Two ways are compared, on the same windows and detector (THEMIS, ONNX Runtime on one thread):

- *async*: an `AsyncFunction` puts each window on an asyncio queue; a background task scores up to
  64 at once and waits a few ms at most. Scored in the loop, in a thread beside it, or with a record
  timeout as in Flink's examples (PyFlink starts a `threading.Timer` for every record).
- *vectorised*: a `KeyedProcessFunction` collects windows and scores 64 with one call; a timer
  flushes what is left after the same few ms. Waiting windows stand in a list, which a failure
  loses, or in Flink's `ListState`, which it does not. Async needs neither: PyFlink waits for all
  that is under way before a bundle, and so a checkpoint, ends.

Beside them one window a call in a map function, and the same calls in plain Python with no Flink.
All run on an embedded cluster, process mode, parallelism 1, with the bundles of the pipeline file's
defaults. Counted from the first window's arrival in Python to the last score, with the model made
and warm; what scores one window a call gets a quarter of the windows. All is one process with one
warm JVM; variants alternate, in turned order every other round, so that a noisy machine disturbs
all alike. ``model`` is the share of that time spent scoring, ``windows/call`` the batch size that
came about, ``job s`` the whole of a job, its start and the model's making included.

    python tests/bench/flink_inference.py [--rounds 3] [--json docs/bench/flink_inference.json]
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from pyflink.common import Configuration, Time, Types
from pyflink.datastream import (
    AsyncDataStream,
    AsyncFunction,
    DataStream,
    StreamExecutionEnvironment,
)
from pyflink.datastream.connectors import Sink
from pyflink.datastream.functions import KeyedProcessFunction, MapFunction
from pyflink.datastream.state import ListStateDescriptor
from pyflink.java_gateway import get_gateway
from pyflink.table import StreamTableEnvironment
from rich.console import Console
from rich.table import Table

SIZE = 128
BATCH = 64
WAIT_MS = 5
CAPACITY = 256
RECORD_TIMEOUT_MS = 60_000
END_MS = 2**63 - 1
"""Time of the last watermark: a timer set to it fires when the input ends."""

VARIANTS = {
    "plain-64": "plain Python, 64 a call",
    "plain-1": "plain Python, 1 a call",
    "async-loop": "async, scored in the loop",
    "async-thread": "async, scored in a thread",
    "async-timeout": "async, in a thread, record timeout",
    "vector-list": "vectorised, list",
    "vector-state": "vectorised, ListState",
    "map-1": "map, 1 a call",
}
REFERENCE = "plain-64"
ONE_A_CALL = {"plain-1", "map-1"}


def series(n: int) -> np.ndarray:
    """Return a noisy season."""
    return np.sin(np.arange(n) / 6) + np.random.default_rng(1).normal(0, 0.1, n)


def windows(n: int) -> list[bytes]:
    """Return windows as what crosses the border to Java: float64 bytes."""
    cut = np.lib.stride_tricks.sliding_window_view(series(n + SIZE - 1), SIZE)
    return [window.tobytes() for window in cut]


class Scorer:
    """A fitted, warm detector that counts its calls and writes what it measured at the last window.

    Parameters
    ----------
    n : windows there will be
    path : file for the measurement
    """

    def __init__(self, n: int, path: str) -> None:
        from streamad.runtime.keyed import flink_print  # noqa: F401, I001 - before what imports numba
        from jobs.build import make

        train = np.lib.stride_tricks.sliding_window_view(series(1_200), SIZE)
        self._detector = make("themis", size=SIZE)
        self._detector.fit(train[:, :, None].astype(np.float32))
        for warm in (1, 4, 16, BATCH):
            self._detector.score(train[:warm, :, None].astype(np.float32))
        self._n, self._path = n, path
        self._started = self._inside = self._sum = 0.0
        self._scored = self._calls = 0

    def arrived(self) -> None:
        """Note that a window is there."""
        self._started = self._started or time.perf_counter()

    def score(self, batch: list[bytes]) -> list[float]:
        """Score windows with one call."""
        before = time.perf_counter()
        values = np.frombuffer(b"".join(batch)).reshape(len(batch), SIZE, 1).astype(np.float32)
        scores: list[float] = self._detector.score(values).tolist()
        now = time.perf_counter()
        self._inside += now - before
        self._scored += len(batch)
        self._calls += 1
        self._sum += sum(scores)
        if self._scored == self._n:
            seconds = now - self._started
            found = {
                "windows_per_s": self._n / seconds,
                "model_share": self._inside / seconds,
                "windows_per_call": self._n / self._calls,
                "windows": self._n,
                "sum": self._sum,
            }
            Path(self._path).write_text(json.dumps(found))
        return scores


class OneByOne(MapFunction):
    """Score each window with a call of its own."""

    def __init__(self, n: int, path: str) -> None:
        self._given = n, path

    def open(self, runtime_context) -> None:
        self._scorer = Scorer(*self._given)

    def map(self, value) -> float:
        self._scorer.arrived()
        return self._scorer.score([value[1]])[0]


class Vectorised(KeyedProcessFunction):
    """Collect windows; score 64 with one call, and what is left in a timer.

    ``durable`` keeps those that wait in Flink's state. PyFlink has taken the key off the row.
    """

    def __init__(self, n: int, path: str, *, durable: bool) -> None:
        self._given, self._durable = (n, path), durable

    def open(self, runtime_context) -> None:
        self._scorer = Scorer(*self._given)
        self._waiting: list[bytes] = []
        self._n_waiting, self._due_ms, self._ends = 0, 0, False
        if self._durable:
            kept = ListStateDescriptor("waiting", Types.PRIMITIVE_ARRAY(Types.BYTE()))
            self._state = runtime_context.get_list_state(kept)

    def process_element(self, value, ctx) -> Iterator[float]:
        self._scorer.arrived()
        if self._durable:
            self._state.add(value)
        else:
            self._waiting.append(value)
        self._n_waiting += 1
        if self._n_waiting == BATCH:
            return iter(self._flush())
        if not self._due_ms:
            # One timer at a time, set anew by the window after the one that it flushed.
            self._due_ms = time.time_ns() // 1_000_000 + WAIT_MS
            ctx.timer_service().register_processing_time_timer(self._due_ms)
        if not self._ends:
            self._ends = True
            ctx.timer_service().register_event_time_timer(END_MS)
        return iter(())

    def on_timer(self, timestamp, ctx) -> Iterator[float]:
        self._due_ms = 0
        return iter(self._flush())

    def _flush(self) -> list[float]:
        if not self._n_waiting:
            return []
        if self._durable:
            batch = list(self._state.get())
            self._state.clear()
        else:
            batch, self._waiting = self._waiting, []
        self._n_waiting = 0
        return self._scorer.score(batch)


class Batched(AsyncFunction):
    """Put windows on a queue, from which a background task scores up to 64 at once."""

    def __init__(self, n: int, path: str, *, in_thread: bool) -> None:
        self._given, self._in_thread = (n, path), in_thread

    def open(self, runtime_context) -> None:
        self._scorer = Scorer(*self._given)
        self._queue: asyncio.Queue = asyncio.Queue()
        self._task: asyncio.Task | None = None

    async def async_invoke(self, value) -> list[float]:
        self._scorer.arrived()
        loop = asyncio.get_running_loop()
        if self._task is None:
            self._task = loop.create_task(self._run(loop))
        score = loop.create_future()
        self._queue.put_nowait((value[1], score))
        return [await score]

    async def _run(self, loop: asyncio.AbstractEventLoop) -> None:
        while True:
            batch = await self._collect(loop)
            given = [window for window, _ in batch]
            if self._in_thread:
                scores = await asyncio.to_thread(self._scorer.score, given)
            else:
                scores = self._scorer.score(given)
            for (_, future), score in zip(batch, scores, strict=True):
                future.set_result(score)
            # Let callers take their results, and new windows in, before the next call blocks.
            await asyncio.sleep(0)

    async def _collect(self, loop: asyncio.AbstractEventLoop) -> list:
        batch = [await self._queue.get()]
        due = loop.time() + WAIT_MS / 1_000
        while len(batch) < BATCH:
            if not self._queue.empty():
                batch.append(self._queue.get_nowait())
                continue
            try:
                batch.append(await asyncio.wait_for(self._queue.get(), due - loop.time()))
            except TimeoutError:
                break
        return batch


# ---------------------------------------------------------------- one measurement


def run_plain(variant: str, n: int, path: str) -> None:
    """Score without Flink."""
    room = BATCH if variant == "plain-64" else 1
    given, scorer = windows(n), Scorer(n, path)
    scorer.arrived()
    for first in range(0, n, room):
        scorer.score(given[first : first + room])


def source(env: StreamExecutionEnvironment, path: Path, n: int) -> DataStream:
    """Return a stream of (0, window) that Java reads from a file."""
    with path.open("w") as file:
        for window in windows(n):
            coded = base64.b64encode(window).decode()
            file.write(json.dumps({"shard": 0, "samples": coded}) + "\n")
    tables = StreamTableEnvironment.create(env)
    tables.execute_sql(
        "CREATE TABLE windows (shard INT, samples BYTES) WITH "
        f"('connector' = 'filesystem', 'path' = 'file://{path.absolute()}', 'format' = 'json')"
    )
    row = Types.ROW([Types.INT(), Types.PRIMITIVE_ARRAY(Types.BYTE())])
    return tables.to_append_stream(tables.from_path("windows"), row)


def run_flink(variant: str, n: int, path: str) -> None:
    """Score in a job that throws the scores away on the side of Java."""
    from streamad.config import parse_pipeline
    from streamad.runtime.keyed.flink import _keyed

    flink = parse_pipeline("name: bench").flink
    configuration = Configuration()
    for name, value in {
        "parallelism.default": "1",
        "python.execution-mode": "process",
        "python.fn-execution.bundle.size": str(flink.bundle_size),
        "python.fn-execution.bundle.time": str(flink.bundle_time),
        "python.executable": sys.executable,
        "python.client.executable": sys.executable,
    }.items():
        configuration.set_string(name, value)
    env = StreamExecutionEnvironment.get_execution_environment(configuration)
    stream = source(env, Path(path).with_suffix(".jsonl"), n)
    if variant == "map-1":
        scored = stream.map(OneByOne(n, path), Types.DOUBLE())
    elif variant.startswith("vector"):
        function = Vectorised(n, path, durable=variant == "vector-state")
        scored = _keyed(stream).process(function, Types.DOUBLE())
    else:
        function = Batched(n, path, in_thread=variant != "async-loop")
        timeout = Time.milliseconds(RECORD_TIMEOUT_MS if variant == "async-timeout" else 0)
        scored = AsyncDataStream.unordered_wait(stream, function, timeout, CAPACITY, Types.DOUBLE())
    sinks = get_gateway().jvm.org.apache.flink.streaming.api.functions.sink
    scored.sink_to(Sink(sinks.v2.DiscardingSink()))
    env.execute(f"bench {variant}")


def require_same(found: dict[str, list[dict[str, float]]]) -> None:
    """Refuse measurements that did not score the same windows alike."""
    sums: dict[float, float] = {}
    for run in (run for runs in found.values() for run in runs):
        expected = sums.setdefault(run["windows"], run["sum"])
        if abs(run["sum"] - expected) > 1e-6 * abs(expected):
            msg = f"the variants did not score the same: {run['sum']} and {expected}"
            raise RuntimeError(msg)


def measure(variant: str, n: int) -> dict[str, float]:
    """Return what the scorer of a variant found, and the seconds all of it took."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "found.json"
        started = time.perf_counter()
        (run_plain if variant.startswith("plain") else run_flink)(variant, n, str(path))
        found: dict[str, float] = json.loads(path.read_text())
        return {**found, "job_s": time.perf_counter() - started}


def summary(found: dict[str, list[dict[str, float]]]) -> list[dict[str, object]]:
    """Return a row a variant: medians over rounds, and the slowest and quickest round."""
    rows: list[dict[str, object]] = []
    middle = {v: statistics.median(r["windows_per_s"] for r in runs) for v, runs in found.items()}
    for variant, runs in found.items():
        speeds = [run["windows_per_s"] for run in runs]
        row: dict[str, object] = {
            "variant": VARIANTS[variant],
            "windows_per_s": round(middle[variant]),
            "slowest": round(min(speeds)),
            "quickest": round(max(speeds)),
        }
        if REFERENCE in middle:
            row["of_plain_64"] = round(middle[variant] / middle[REFERENCE], 3)
        for name in ("model_share", "windows_per_call", "job_s"):
            row[name] = round(statistics.median(run[name] for run in runs), 2)
        rows.append(row)
    return rows


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--windows", type=int, default=6_000, help="windows a measurement")
    parser.add_argument("--rounds", type=int, default=3, help="measurements a variant")
    parser.add_argument("--variants", nargs="+", choices=VARIANTS, default=list(VARIANTS))
    parser.add_argument("--json", type=Path, help="write the rows there")
    args = parser.parse_args()
    found: dict[str, list[dict[str, float]]] = {variant: [] for variant in args.variants}
    # The first job starts Java; it is not counted.
    measure("vector-list", BATCH * 4)
    for number in range(args.rounds):
        for variant in args.variants[:: -1 if number % 2 else 1]:
            n = args.windows // 4 if variant in ONE_A_CALL else args.windows
            found[variant].append(measure(variant, n))
            run = found[variant][-1]
            print(f"{variant} {run['windows_per_s']:.0f}/s {run['job_s']:.1f} s", file=sys.stderr)
    require_same(found)
    rows = summary(found)
    table = Table(title=f"THEMIS in PyFlink, windows of {SIZE} samples, medians of {args.rounds}")
    for column in rows[0]:
        table.add_column(column.replace("_", " "), justify="right")
    for row in rows:
        cells = row.values()
        table.add_row(*[f"{cell:,}" if isinstance(cell, int) else str(cell) for cell in cells])
    Console(width=None if sys.stdout.isatty() else 140).print(table)
    if args.json:
        args.json.parent.mkdir(parents=True, exist_ok=True)
        about = {
            "size": SIZE,
            "windows": args.windows,
            "rounds": args.rounds,
            "batch": BATCH,
            "wait_ms": WAIT_MS,
            "capacity": CAPACITY,
            "rows": rows,
            "runs": found,
        }
        args.json.write_text(json.dumps(about, indent=1) + "\n")


if __name__ == "__main__":
    main()
