"""The page about Flink; its tables come from the benchmarks' own output."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

BENCH = Path(__file__).resolve().parent.parent / "docs" / "bench"


_PROFILE = """Where the time goes (`py-spy record --duration 30 --pid WORKER` while the benchmark runs, and `top -H -p JVM` for its
threads by their CPU time):

- *500 points a message.* Of the worker's busy time, the operator is 66 %, decoding 17 %, the journal (compressing it, and
  handing it to the state backend) some 10 %, PyFlink the rest. Without Java's share a point costs it little more than it
  costs the plain job. In a JVM that has just started most of that is the compiler: of a job's first 45 seconds 27 s of CPU,
  beside 5 in the operator's thread and 4 in the source's two.
- *One point a message.* Two thirds of the worker's time is PyFlink making and comparing its `Row`s, one message at a time; that
  is why the plain job is so far ahead there. Let producers or collectors batch, or stay with the plain job.

What was done about it: messages are judged a batch at a time and not as they come; the key is computed in SQL and the stream keyed in
Java, which saves each message a way to Python and back; state is written as a journal of compressed messages instead of
chunks of keys; no message is pickled on the way."""


def flink_page() -> str:
    """Return the page."""
    return f"""# On Flink

The same pipeline file runs on Apache Flink where one process is outgrown, or where Flink is what you
operate. Flink owns sources, keyed state, checkpoints and delivery; the detect operator makes the same
decisions, so findings have the same ids and scores. Alerts are made behind it by the plain job.

## From the plain job to a cluster with two slots

Stop the plain job (Ctrl-C, SIGTERM, or pull its plug), then:

```sh
make flink-up                                      # a cluster on this machine: 2 slots, http://localhost:8081
streamad flink run pipeline.yaml --cluster localhost:8081 --parallelism 2
streamad run pipeline.yaml --role alert            # alerts, as before
```

Flink takes over what the plain job left: its committed offsets, all it has learned, episodes that are open. Nothing is missed,
judged twice or learned anew, and an alert that is open is the same alert ([decision 16](adr/0016-flink-takes-over-from-the-plain-job.md)). Where the
plain job still runs, the command says so and does not start beside it; where it never ran, Flink begins at
`input.start`. There is no way back with what was learned: the plain job would go on where *it* stopped, so give a pipeline that
returns another `name`.

`KAFKA_BOOTSTRAP_SERVERS` and its like are read where the command is given, and travel with the job:
treat the cluster's job store as one that holds credentials. Flink commits under a consumer group of its own
(`streamad.<name>.flink`). With `input.repartition`, also run `streamad run pipeline.yaml --role rekey`.

Without `--cluster`, Flink runs inside the command itself, until Ctrl-C. To have it at all: `make
setup-flink`, or `pip install 'streamad-pipeline[flink]'`, Java 17 and the jar
`org.apache.flink:flink-sql-connector-kafka:5.0.0-2.2` (`flink.connector_jar`, or the cluster's `lib`).

## Stop, upgrade, scale, go on

```sh
streamad flink stop pipeline.yaml --cluster localhost:8081        # prints the savepoint
pip install --upgrade 'streamad-pipeline[flink]'                  # or edit the pipeline, or both
streamad flink run pipeline.yaml --cluster localhost:8081 --parallelism 4
streamad flink status pipeline.yaml --cluster localhost:8081
```

`run` goes on from the newest savepoint or retained checkpoint of the pipeline (`--from latest`), and only where there is none
from what the plain job left; `--from PATH` takes that savepoint, `--from plain` what the plain job left, and
`--from none` begins anew. State made under settings that decide otherwise (those marked † in
[the pipeline file](pipeline.md)) is refused, with the reason, before anything is submitted;
`delivery.on_state_mismatch: fresh` forgets what was learned and goes on at the same offsets.

In Flink's web page the job has two sources: the input, and `wakes`, an empty row for each partition about once a
second (100 a second for all of them at most), which sees to it that a restored partition is opened though nothing comes ([decision 15](adr/0015-flink-between-two-tables.md)).

Slots: as many as the input has partitions at the first start (`flink.max_parallelism`); more would lie idle.

## What is guaranteed

Findings, scores, dead letters and late records of a checkpoint are one Kafka transaction a slot, read committed. Nothing is
lost or doubled by a task manager or a job manager that is killed, by a savepoint, a stop, a new parallelism or a
refusal (`tests/flink`). They become visible with the
checkpoint, so `flink.checkpoint_interval` is most of the latency. A transaction must outlive an
outage of the job: `flink.transaction_timeout` is Kafka's limit of 15 minutes by default; after a longer
outage, `--from latest` may find that the broker has aborted what the last checkpoint had prepared.

| what happens | what follows |
|---|---|
| a task manager dies | Flink restarts the job from the last checkpoint; what was open is aborted |
| a job is cancelled, or fails over, in the middle of a batch | now and then the task manager ends, too (below): its supervisor starts it, and the job goes on |
| the job manager dies, without high availability | start it, `streamad flink run`: it goes on from the last checkpoint |
| the topic lost what comes next | `input.on_out_of_range`: the job ends and says so, or goes on with a gap |
| a partition is silent | the broker is asked; if nothing is left to read, the wall clock counts (`series.silence`) |
| a broken message | a dead letter, as in the plain job |

After a restart Flink commits what the checkpoint had prepared once more. Where the last life had done so, its log says
`Unable to commit transaction … already fenced`, as an error: Kafka refuses the second commit, and nothing is missing.

A task manager that cancels a job in the middle of a batch may end with `FATAL - exception in exception handler` and
`Reference count must not be negative`: PyFlink hands the batch to Beam in a thread of its own, and closes Beam in another; both give
back the last reference (seen here twice in 28 deaths of a job manager, and not in a dozen jobs that were cancelled). Nothing
is lost, but run task managers under something that starts them again, as Kubernetes does. `make flink-up`, called again, starts the cluster anew, and `streamad flink run` goes on.

The state of a partition is a snapshot and a journal ([decision 14](adr/0014-flink-state-is-a-snapshot-and-a-journal.md));
how messages cross between Java and Python is [decision 15](adr/0015-flink-between-two-tables.md).
Thread mode (`python.execution-mode: thread`) is refused; the reason is there too.

## As a FlinkDeployment

`python -m jobs.flink_job pipeline.yaml` is what Flink is given to run:

```yaml
job:
  jarURI: local:///opt/flink/opt/flink-python-2.2.1.jar
  entryClass: org.apache.flink.client.python.PythonDriver
  args: ["-pyclientexec", "python3", "-pym", "jobs.flink_job", "/etc/streamad/pipeline.yaml"]
  parallelism: 2
```

A second argument, `none`, has it begin anew even where a plain job left something. It wants
`flink.parallelism` in the pipeline file, the connector in `/opt/flink/lib`, and
`execution.checkpointing.dir` and the restart strategy in the deployment. The tests submit it in this way with
`flink run -pym`; it was not tried in Kubernetes.

## Metrics

Under the plain job's names ([metrics](metrics.md)), through Flink's own reporters: counters and gauges of the
operator, labels as key-value groups (which the Prometheus reporter makes labels). Flink takes whole numbers from
Python, so `..._seconds` become distributions of microseconds, `..._us`. Alert, commit and consumer metrics are the
alert role's, and Flink's own.

## Measured

{_measured()}
"""


def _measured() -> str:
    told = _read("flink.json")
    if told is None:
        return "Nothing yet: `python tests/bench/flink.py --json docs/bench/flink.json`."
    parts = [
        f"On {told['cores']} shared cores, with the broker, the job manager and the task manager on the "
        f"same ones; checkpoints every {told['interval_s']:g} s; `robust_z`, windows of 64, 10,000 keys (400 where a message is one point), two "
        "partitions; the last two thirds of the messages (`python tests/bench/flink.py`). The three run by turns, in a JVM that has "
        f"done it once before; of {told['rounds']} runs each, the one with the middle rate a CPU second. CPU is that of the "
        "job's own processes.",
        _speed(told["speed"]),
        "From a message's arrival until what it closed can be read committed, at half of the speed "
        "above (500 points a message):",
        _latency(told["latency"]),
        _PROFILE,
    ]
    inference = _read("flink_inference.json")
    if inference is not None:
        parts += [
            f"Inference: THEMIS on windows of {inference['size']}, scored in one function "
            f"(`python tests/bench/flink_inference.py`), medians of {inference['rounds']} rounds. Scoring "
            "what waits with one call, as the operator does, was ahead of dynamic batching behind "
            "`AsyncDataStream` in each of them; the model's own calls take longer there, with three threads "
            "of PyFlink beside it:",
            _inference(inference["rows"]),
        ]
    return "\n\n".join(part for part in parts if part)


def _speed(rows: list[dict[str, Any]]) -> str:
    lines = [
        "| | points a message | points/s | points per CPU second | of the plain job's | Java's share of the CPU | "
        "memory, MiB | checkpoint p50 / max, ms |",
        "|---|---|---|---|---|---|---|---|",
    ]
    plain = {row["points_a_message"]: row for row in rows if row["runner"] == "plain"}
    for row in rows:
        own, base = row["points_per_core_s"], plain[row["points_a_message"]]["points_per_core_s"]
        took = java = ""
        if "checkpoint_p50_ms" in row:
            java = f"{row['java_us_per_point'] / row['cpu_us_per_point']:.0%}"
            took = f"{row['checkpoint_p50_ms']:,} / {row['checkpoint_max_ms']:,}"
        lines.append(
            f"| {row['runner']} | {row['points_a_message']} | {row['points_per_s']:,} | {own:,} | "
            f"{own / base:.2f} | {java} | {row['memory_mib']:,} | {took} |"
        )
    return "\n".join(lines)


def _latency(rows: list[dict[str, Any]]) -> str:
    lines = ["| | messages/s | p50, s | p99, s |", "|---|---|---|---|"]
    lines += [
        f"| {row['runner']} | {row['messages_per_s']} | {row['p50_s']} | {row['p99_s']} |"
        for row in rows
    ]
    return "\n".join(lines)


def _inference(rows: list[dict[str, Any]]) -> str:
    lines = ["| | windows/s | of plain Python's, 64 a call | windows a call |", "|---|---|---|---|"]
    lines += [
        f"| {row['variant']} | {row['windows_per_s']:,} | {row['of_plain_64']:.2f} | "
        f"{row['windows_per_call']:.0f} |"
        for row in rows
    ]
    return "\n".join(lines)


def _read(name: str) -> Any:
    file = BENCH / name
    return json.loads(file.read_text(encoding="utf-8")) if file.exists() else None
