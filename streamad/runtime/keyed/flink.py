"""The detect job on Apache Flink: sources, keyed state, checkpoints and delivery are Flink's.

The one file that knows PyFlink. Kafka is read and written through Flink's tables, because only
there do partition, offset, time and headers reach Python; between the two stands one keyed
function, which holds a `KeyedDetect` and no decision. The stream is keyed on the side of Java: a
Python key function would carry every message to Python and back once more.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyflink
from py4j.protocol import Py4JJavaError
from pyflink.common import Configuration, Row, Types
from pyflink.common.typeinfo import _from_java_type
from pyflink.datastream import KeyedStream, StreamExecutionEnvironment
from pyflink.datastream.functions import KeyedProcessFunction, RuntimeContext
from pyflink.datastream.state import ListStateDescriptor, MapStateDescriptor
from pyflink.java_gateway import get_gateway
from pyflink.table import Schema, StreamTableEnvironment, TableDescriptor
from pyflink.util.java_utils import get_j_env_configuration

from streamad.errors import ClusterError, StateError
from streamad.ports import Outgoing, Source, Telemetry
from streamad.runtime.keyed import flink_print  # noqa: F401 - before anything that imports numba
from streamad.runtime.keyed.detect import KeyedDetect
from streamad.runtime.keyed.journal import Entry
from streamad.runtime.keyed.kept import KeyedState

UID = "streamad-detect"
"""Of the operator that holds the state; a savepoint finds it by this."""

_BYTES = Types.PRIMITIVE_ARRAY(Types.BYTE())
_HEADERS = Types.MAP(Types.STRING(), _BYTES)
_MESSAGE = Types.ROW(
    [Types.STRING(), Types.INT(), Types.LONG(), Types.LONG(), _BYTES, _BYTES, _HEADERS]
)
_MESSAGE_SQL = (
    "ROW<`topic` STRING, `partition` INT, `offset` BIGINT, `broker_ms` BIGINT, `key` BYTES, "
    "`value` BYTES, `headers` MAP<STRING, BYTES>>"
)
_OUTGOING = Types.ROW_NAMED(
    ["topic", "key", "value", "headers"], [Types.STRING(), _BYTES, _BYTES, _HEADERS]
)
_PYFLINK = Path(pyflink.__file__).parent

_MOST_WAKES_PER_S = 100
"""Of a job, over all its partitions."""

_KEYS_AHEAD = 512
"""Partitions a topic that are given keys of their own, so that a topic may grow under a job."""

_BEYOND = 1_000_000_000
"""Keys of partitions beyond those begin here."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FlinkPlan:
    """A job, said in plain values.

    label : name of the operator that detects: it names the checksum of the configuration, so that a
    savepoint tells what made it
    source, sink : options of the two Kafka tables; topics : the input, and the partitions each has;
    make : makes what judges, in the worker (it is pickled); jars : what the cluster has not;
    options : Flink's own
    """

    name: str
    label: str
    source: Mapping[str, str] = field(repr=False)
    sink: Mapping[str, str] = field(repr=False)
    topics: Mapping[str, int]
    parallelism: int
    max_parallelism: int
    make: Callable[[Telemetry], KeyedDetect]
    jars: Sequence[Path]
    options: Mapping[str, str]


class DetectFunction(KeyedProcessFunction):
    """Keep a `KeyedDetect` where Flink keeps its state; let it do the rest."""

    def __init__(
        self, make: Callable[[Telemetry], KeyedDetect], sources: Mapping[int, Source]
    ) -> None:
        self._make, self._sources = make, sources

    def open(self, runtime_context: RuntimeContext) -> None:
        """Make what is alive: in the worker, before the first message."""
        self._detect = self._make(FlinkTelemetry(runtime_context.get_metrics_group()))
        self._kept = KeyedState(
            chunks=runtime_context.get_map_state(MapStateDescriptor("chunks", Types.INT(), _BYTES)),
            journal=runtime_context.get_list_state(ListStateDescriptor("journal", _BYTES)),
        )

    def process_element(
        self, value: Row | None, ctx: KeyedProcessFunction.Context
    ) -> Iterator[Row]:
        """Take one message in; a row without one is there to wake a shard."""
        shard = ctx.get_current_key()
        if value is None:
            made, due_ms = self._detect.on_wake(
                shard, self._sources[shard], self._kept, now_ms=_wall_ms()
            )
            return self._answer(made, due_ms, ctx)
        topic, partition, offset, broker_ms, key, payload, headers = value
        entry = Entry(
            offset=offset,
            broker_ms=broker_ms,
            payload=payload,
            key=key,
            headers=tuple((name, text or b"") for name, text in (headers or {}).items()),
        )
        made, due_ms = self._detect.take(
            shard, Source(topic, partition), entry, self._kept, now_ms=_wall_ms()
        )
        return self._answer(made, due_ms, ctx)

    def on_timer(self, timestamp: int, ctx: KeyedProcessFunction.OnTimerContext) -> Iterator[Row]:
        """Judge what waits, or let time pass."""
        made, due_ms = self._detect.on_timer(
            ctx.get_current_key(), self._kept, timer_ms=timestamp, now_ms=_wall_ms()
        )
        return self._answer(made, due_ms, ctx)

    @staticmethod
    def _answer(
        made: list[Outgoing], due_ms: int | None, ctx: KeyedProcessFunction.Context
    ) -> Iterator[Row]:
        if due_ms is not None:
            ctx.timer_service().register_processing_time_timer(due_ms)
        return iter([Row(one.topic, one.key, one.value, dict(one.headers)) for one in made])


class FlinkTelemetry:
    """The plain job's metrics in Flink's metric system, under the same names.

    Labels become key-value groups, which Flink's Prometheus reporter makes labels again. It takes
    only whole numbers from Python: histograms of seconds become distributions of microseconds, with
    ``_us`` at the end of the name.
    """

    def __init__(self, group: Any) -> None:
        self._group = group
        self._made: dict[tuple[str, tuple[tuple[str, str], ...]], Any] = {}
        self._gauges: dict[tuple[str, tuple[tuple[str, str], ...]], int] = {}

    def count(self, name: str, n: float = 1, **labels: str) -> None:
        """Add ``n`` to a counter."""
        at = (name, tuple(labels.items()))
        if at not in self._made:
            self._made[at] = self._under(labels).counter(f"streamad_{name}")
        self._made[at].inc(int(n))

    def gauge(self, name: str, value: float, **labels: str) -> None:
        """Say what something is now."""
        at = (name, tuple(labels.items()))
        known = at in self._gauges
        self._gauges[at] = int(value)
        if not known:
            self._under(labels).gauge(f"streamad_{name}", lambda: self._gauges[at])

    def observe(self, name: str, value: float, **labels: str) -> None:
        """Enter one value into a distribution."""
        at = (name, tuple(labels.items()))
        if at not in self._made:
            made = self._under(labels).distribution(f"streamad_{name.replace('_seconds', '_us')}")
            self._made[at] = made
        scale = 1_000_000 if name.endswith("_seconds") else 1
        self._made[at].update(int(value * scale))

    def _under(self, labels: Mapping[str, str]) -> Any:
        group = self._group
        for name, value in labels.items():
            group = group.add_group(name, value)
        return group


def build(plan: FlinkPlan, *, remote: bool) -> StreamExecutionEnvironment:
    """Return an environment with the job in it, ready to be executed.

    remote : the options name a cluster to submit to; else Flink runs where this process does, or
    where it was submitted from
    """
    configuration = Configuration()
    for name, value in plan.options.items():
        configuration.set_string(name, value)
    env = _environment(configuration, remote=remote)
    # A cluster has no PyFlink of its own; `flink run` brings it along in the same way.
    brought = sorted(_PYFLINK.glob("opt/flink-python*.jar")) if remote else []
    if jars := [_url(path) for path in (*plan.jars, *brought)]:
        env.add_jars(*jars)
    tables = StreamTableEnvironment.create(env)
    tables.create_temporary_table("input", _table(_input_schema(), plan.source))
    tables.create_temporary_table("output", _table(_output_schema(), plan.sink))
    topics = list(plan.topics)
    keys = shard_keys(topics, plan.max_parallelism)
    sources = sources_by_key(plan.topics, keys)
    tables.create_temporary_table("wakes", _wakes(len(sources)))
    query = tables.sql_query(
        f"SELECT {_key_expression(topics, keys)} AS shard, ROW(`topic`, `partition`, "  # noqa: S608
        "`offset`, CAST(EXTRACT(EPOCH FROM `time`) AS BIGINT) * 1000 + "
        "EXTRACT(MILLISECOND FROM `time`), `key`, `value`, `headers`) AS message FROM `input`"
    )
    nth = _nth(list(sources))
    wakes = tables.sql_query(
        f"SELECT {nth} AS shard, CAST(NULL AS {_MESSAGE_SQL}) AS message FROM `wakes`"  # noqa: S608
    )
    row = Types.ROW([Types.INT(), _MESSAGE])
    stream = tables.to_append_stream(query, row).union(tables.to_append_stream(wakes, row))
    detected = (
        _keyed(stream)
        .process(DetectFunction(plan.make, sources), _OUTGOING)
        .name(plan.label)
        .uid(UID)
        .set_parallelism(plan.parallelism)
        .set_max_parallelism(plan.max_parallelism)
    )
    statements = tables.create_statement_set()
    statements.add_insert("output", tables.from_data_stream(detected))
    statements.attach_as_datastream()
    return env


def _input_schema() -> Schema:
    return (
        Schema.new_builder()
        .column("key", "BYTES")
        .column("value", "BYTES")
        .column_by_metadata("topic", "STRING", is_virtual=True)
        .column_by_metadata("partition", "INT", is_virtual=True)
        .column_by_metadata("offset", "BIGINT", is_virtual=True)
        .column_by_metadata("time", "TIMESTAMP_LTZ(3)", "timestamp", is_virtual=True)
        .column_by_metadata("headers", "MAP<STRING, BYTES>", is_virtual=True)
        .build()
    )


def _output_schema() -> Schema:
    return (
        Schema.new_builder()
        .column_by_metadata("topic", "STRING")
        .column("key", "BYTES")
        .column("value", "BYTES")
        .column_by_metadata("headers", "MAP<STRING, BYTES>")
        .build()
    )


def _wakes(n: int) -> TableDescriptor:
    """Return a table of numbers below ``n``, each about once a second if they are few, endless.

    PyFlink restores no timer that Python set in the batch that a checkpoint ended (it is handed to
    Flink's timers after the checkpoint was taken), so shards are woken by rows of their own. Those
    of partitions a topic is given later are woken once the job is submitted again.
    """
    schema = Schema.new_builder().column("number", "INT").build()
    return (
        TableDescriptor.for_connector("datagen")
        .schema(schema)
        .option("rows-per-second", str(min(n, _MOST_WAKES_PER_S)))
        .option("scan.parallelism", "1")
        .option("fields.number.kind", "random")
        .option("fields.number.min", "0")
        .option("fields.number.max", str(n - 1))
        .build()
    )


def submit(env: StreamExecutionEnvironment, name: str) -> str:
    """Start the job of `build`; return its id. ClusterError where it is not taken."""
    try:
        return str(env.execute_async(name).get_job_id())
    except Py4JJavaError as error:
        msg = f"Flink did not take the job: {_root(error)}"
        raise ClusterError(msg) from error


def _root(error: Py4JJavaError) -> str:
    cause = error.java_exception
    while cause.getCause() is not None:
        cause = cause.getCause()
    said = str(cause.toString()).strip()
    # A refusal over REST carries the server's whole trace as text.
    causes = [line for line in said.splitlines() if line.startswith("Caused by: ")]
    return causes[-1].removeprefix("Caused by: ") if causes else said.splitlines()[0]


def _table(schema: Schema, options: Mapping[str, str]) -> TableDescriptor:
    descriptor = TableDescriptor.for_connector("kafka").schema(schema)
    for name, value in options.items():
        descriptor = descriptor.option(name, value)
    return descriptor.build()


def _url(path: Path) -> str:
    return f"file://{path}"


def _environment(configuration: Configuration, *, remote: bool) -> StreamExecutionEnvironment:
    if not remote:
        return StreamExecutionEnvironment.get_execution_environment(configuration)
    # The factory would make a local environment in a process that `flink run` did not start.
    java = get_gateway().jvm.org.apache.flink.streaming.api.environment
    return StreamExecutionEnvironment(
        java.StreamExecutionEnvironment(configuration._j_configuration)  # noqa: SLF001
    )


def _keyed(stream: Any) -> KeyedStream:
    """Key rows of (key, message) as `DataStream.key_by` does, without its detour over Python."""
    java = stream._j_data_stream  # noqa: SLF001 - PyFlink has no public way
    selector = get_gateway().jvm.KeyByKeySelector()
    keyed = java.keyBy(selector, Types.ROW([Types.INT()]).get_java_type_info())
    row = _from_java_type(java.getTransformation().getOutputType())
    return KeyedStream(keyed, row, stream)


@dataclass(frozen=True, slots=True, kw_only=True)
class SavepointFacts:
    """What a savepoint says of itself; ``checksum`` is of the configuration it was made with."""

    checksum: str
    max_parallelism: int


def restored_path() -> str | None:
    """Return what Flink will restore by its own configuration, in a process it started."""
    env = StreamExecutionEnvironment.get_execution_environment()
    given = get_j_env_configuration(env._j_stream_execution_environment)  # noqa: SLF001
    found = Configuration(j_configuration=given).get_string("execution.state-recovery.path", "")
    return found or None


def savepoint_facts(path: str) -> SavepointFacts:
    """Read what made a savepoint or a checkpoint, without restoring it.

    path : folder as a URL. Raises StateError where it is none, or none of streamad's.
    """
    java = get_gateway().jvm
    try:
        file = java.org.apache.flink.core.fs.Path(f"{path}/_metadata")
        stream = java.java.io.DataInputStream(file.getFileSystem().open(file))
        try:
            read = java.org.apache.flink.runtime.checkpoint.Checkpoints.loadCheckpointMetadata(
                stream, java.Thread.currentThread().getContextClassLoader(), path
            )
        finally:
            stream.close()
    except Py4JJavaError as error:
        msg = f"{path} cannot be read as a savepoint: {_root(error)}"
        raise StateError(msg) from error
    for operator in read.getOperatorStates():
        if operator.getOperatorUid().orElse("") == UID:
            label = str(operator.getOperatorName().orElse(""))
            return SavepointFacts(
                checksum=label.rpartition(" ")[2], max_parallelism=operator.getMaxParallelism()
            )
    msg = f"{path} is a savepoint, but of no streamad job: it has no operator {UID}"
    raise StateError(msg)


def shard_keys(topics: Sequence[str], max_parallelism: int) -> dict[Source, int]:
    """Return a key for each partition, so that neighbours fall to different slots.

    Flink spreads keys by their hash, and a few shards would pile up on some slots. Partition number
    ``i`` is given the next number that hashes to key group ``i mod max_parallelism``; it depends on
    nothing that changes in the life of a job.
    """
    java = get_gateway().jvm.org.apache.flink
    group_of = java.runtime.state.KeyGroupRangeAssignment.assignToKeyGroup
    row_of = java.types.Row.of
    waiting: dict[int, list[int]] = {group: [] for group in range(max_parallelism)}
    made: dict[Source, int] = {}
    number = 0
    gateway = get_gateway()
    for index in range(min(_KEYS_AHEAD, 4 * max_parallelism) * len(topics)):
        source = Source(topics[index % len(topics)], index // len(topics))
        wanted = waiting[index % max_parallelism]
        while not wanted:
            row = row_of(gateway.new_array(gateway.jvm.Object, 1))
            row.setField(0, number)
            waiting[group_of(row, max_parallelism)].append(number)
            number += 1
        made[source] = wanted.pop(0)
    return made


def sources_by_key(topics: Mapping[str, int], keys: Mapping[Source, int]) -> dict[int, Source]:
    """Return the partitions there are by their keys; ``topics``: how many each has."""
    numbers = {topic: number for number, topic in enumerate(topics)}
    every = [Source(topic, number) for topic, n in topics.items() for number in range(n)]
    beyond = {one: _BEYOND + len(numbers) * one.partition + numbers[one.topic] for one in every}
    return {keys.get(one, beyond[one]): one for one in every}


def _key_expression(topics: Sequence[str], keys: Mapping[Source, int]) -> str:
    """Return SQL for the key of a message; partitions beyond those foreseen are spread by hash."""
    cases = []
    for number, topic in enumerate(topics):
        of_topic = "".join(
            f" WHEN {source.partition} THEN {key}"
            for source, key in keys.items()
            if source.topic == topic
        )
        beyond = f"{_BEYOND} + {len(topics)} * `partition` + {number}"
        quoted = topic.replace("'", "''")
        cases.append(f" WHEN '{quoted}' THEN CASE `partition`{of_topic} ELSE {beyond} END")
    return f"CASE `topic`{''.join(cases)} ELSE -1 END"


def _nth(values: Sequence[int]) -> str:
    cases = "".join(f" WHEN {number} THEN {value}" for number, value in enumerate(values))
    return f"CASE `number`{cases} ELSE -1 END"


def _wall_ms() -> int:
    return time.time_ns() // 1_000_000
