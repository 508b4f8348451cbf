"""The page about Flink; its tables come from the benchmarks' own output."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

BENCH = Path(__file__).resolve().parents[2] / "docs" / "bench"


_PROFILE = """Where the time goes (`py-spy record --duration 30 --pid WORKER` while the benchmark runs, and `top -H -p JVM` for its
threads by their CPU time):

- *500 points per message.* Of the worker's busy time, the operator is 66 %, decoding 17 %, the journal (compressing it, and
  passing it to the state backend) about 10 %, PyFlink the rest. Without Java's share a point costs it little more than it
  costs the plain job. In a JVM that has just started the compiler takes most of that: 27 s of CPU in a job's first 45 seconds,
  beside 5 s in the operator's thread and 4 s in the source's two.
- *One point per message.* Two thirds of the worker's time is PyFlink making and comparing its `Row`s, one message at a time; so
  the plain job is far faster there. Let producers or collectors batch, or use the plain job.

Optimisations so far: messages are scored in batches; the key is computed in SQL and the stream is keyed in
Java, which saves a round trip to Python per message; state is a journal of compressed messages instead of
chunks of keys; no message is pickled."""


def flink_page() -> str:
    """Return the page."""
    return f"""# On Flink

The same pipeline file runs on Apache Flink, for loads beyond one process or for teams that operate
Flink. Flink owns sources, keyed state, checkpoints and delivery; the detect operator makes the same
decisions, so findings have the same ids and scores. The plain job's alert role makes the alerts from them.

## From the plain job to a cluster with two slots

Stop the plain job (Ctrl-C, SIGTERM or SIGKILL), then:

```sh
make flink-up                                      # a cluster on this machine: 2 slots, http://localhost:8081
streamad flink run pipeline.yaml --cluster localhost:8081 --parallelism 2
streamad run pipeline.yaml --role alert            # alerts, as before
```

Flink takes over from the plain job: its committed offsets, its baselines, its open episodes. No record is missed or
scored twice, nothing warms up again, and an open alert stays the same alert ([decision 16](adr/0016-flink-takes-over-from-the-plain-job.md)). If the
plain job still runs, the command fails and reports it; if it never ran, Flink starts at
`input.start`. State does not move back: the plain job would resume where *it* stopped, so give a pipeline that
returns another `name`.

The command reads `KAFKA_BOOTSTRAP_SERVERS` and the other `KAFKA_*` variables and sends them with the job:
treat the cluster's job store as a place with credentials. Flink commits under a consumer group of its own
(`streamad.<name>.flink`). With `input.repartition`, also run `streamad run pipeline.yaml --role rekey`.

Without `--cluster`, Flink runs inside the command itself, until Ctrl-C. To install it: `make
setup-flink`, or `pip install 'streamad-pipeline[flink]'`, Java 17 and the jar
`org.apache.flink:flink-sql-connector-kafka:5.0.0-2.2` (`flink.connector_jar`, or the cluster's `lib`). The connector
lacks Kafka's codecs, and a topic with compressed batches ends the job without them: put
`com.github.luben:zstd-jni:1.5.6-10`, `org.lz4:lz4-java:1.8.0` and `org.xerial.snappy:snappy-java:1.1.10.7` in the
same folder (`make setup-flink` does so).

## Stop, upgrade, scale, resume

```sh
streamad flink stop pipeline.yaml --cluster localhost:8081        # prints the savepoint
pip install --upgrade 'streamad-pipeline[flink]'                  # or edit the pipeline, or both
streamad flink run pipeline.yaml --cluster localhost:8081 --parallelism 4
streamad flink status pipeline.yaml --cluster localhost:8081
```

`run` resumes from the newest savepoint or retained checkpoint of the pipeline (`--from latest`), or from the plain job if
there is none. `--from PATH` resumes from that savepoint, `--from plain` from the plain job, and
`--from none` starts at `input.start` without state. State made with other settings (those marked † in
[the pipeline file](pipeline.md)) is refused, with the reason, before anything is submitted;
`delivery.on_state_mismatch: fresh` discards the state and resumes at the same offsets.
A [new artifact](operations.md#a-new-artifact-without-a-restart) takes over when the job is restored, if the old one
lies beside it.

In Flink's web page the job has two sources: the input, and `wakes`, an empty row for each partition about once a
second (100 a second for all of them at most), which opens a restored partition even if no record arrives ([decision 15](adr/0015-flink-between-two-tables.md)).

Slots: as many as the input has partitions at the first start (`flink.max_parallelism`); more would be idle.

## What is guaranteed

Findings, scores, dead-letter records and late records of a checkpoint are one Kafka transaction per slot, read committed. Killing
a task manager or job manager, a savepoint, a stop, a new parallelism or refused state neither loses nor duplicates a
record (`tests/flink`). Output becomes visible with the
checkpoint, so `flink.checkpoint_interval` is most of the latency. A transaction must outlive an
outage of the job: `flink.transaction_timeout` is Kafka's limit of 15 minutes by default; after a longer
outage, the broker may have aborted the transactions that `--from latest` needs.

| event | effect |
|---|---|
| a task manager dies | Flink restarts the job from the last checkpoint; open transactions are aborted |
| a job is cancelled, or fails over, in the middle of a batch | the task manager sometimes ends, too (below): its supervisor restarts it, and the job resumes |
| the job manager dies, without high availability | start it, then `streamad flink run`: the job resumes from the last checkpoint |
| the next record was deleted | `input.on_out_of_range`: the job fails, or continues with a gap and logs it |
| a partition is silent | the broker is asked; if nothing is left to read, the wall clock counts (`series.silence`) |
| a broken message | a dead-letter record, as in the plain job |
| a message that ends the worker again and again | quarantined after five restarts, as in the plain job ([operations](operations.md#a-record-that-ends-the-process)) |

After a restart Flink commits the checkpoint's transactions again. If they were committed before, the log shows the error
`Unable to commit transaction … already fenced`: Kafka refuses the second commit, and nothing is lost.

A task manager that cancels a job in the middle of a batch may end with `FATAL - exception in exception handler` and
`Reference count must not be negative`: PyFlink passes the batch to Beam in one thread and closes Beam in another, and both release
the last reference (seen twice in 28 kills of a job manager, and in none of a dozen cancelled jobs). Nothing
is lost, but run task managers under a supervisor that restarts them, such as Kubernetes. Here, `make flink-up` restarts the cluster, and `streamad flink run` resumes.

The state of a partition is a snapshot and a journal ([decision 14](adr/0014-flink-state-is-a-snapshot-and-a-journal.md));
[decision 15](adr/0015-flink-between-two-tables.md) describes how messages cross between Java and Python,
and why thread mode (`python.execution-mode: thread`) is refused.

## As a FlinkDeployment

Flink runs `python -m jobs.flink.job pipeline.yaml`:

```yaml
job:
  jarURI: local:///opt/flink/opt/flink-python-2.2.1.jar
  entryClass: org.apache.flink.client.python.PythonDriver
  args: ["-pyclientexec", "python3", "-pym", "jobs.flink.job", "/etc/streamad/pipeline.yaml"]
  parallelism: 2
```

With a second argument, `none`, it starts at `input.start` even after a plain job. It needs
`flink.parallelism` in the pipeline file, the connector and the codecs in `/opt/flink/lib`, and
`execution.checkpointing.dir` and the restart strategy in the deployment. The tests submit it this way with
`flink run -pym`. The [chart](kubernetes.md#flink) renders this deployment with an image, savepoint upgrades and high
availability; it was not run in Kubernetes.

## Metrics

The operator's counters and gauges have the plain job's names ([metrics](metrics.md)) and go through Flink's
reporters, with labels as key-value groups (the Prometheus reporter makes labels of them). Flink accepts only whole
numbers from Python, so `..._seconds` become distributions of microseconds, `..._us`. The alert role reports alert
metrics; Flink reports those of commits and consumers.

## Measured

{_measured()}
"""


def _measured() -> str:
    told = _read("flink.json")
    if told is None:
        return "Nothing yet: `python tests/bench/flink.py --json docs/bench/flink.json`."
    parts = [
        f"On {told['cores']} shared cores, with the broker, the job manager and the task manager on the "
        f"same ones; checkpoints every {told['interval_s']:g} s; `robust_z`, windows of 64, 10,000 keys (400 with one point per message), two "
        "partitions; the last two thirds of the messages (`python tests/bench/flink.py`). The three alternate, in a JVM that has "
        f"run the job once before; of {told['rounds']} runs each, the one with the median rate per CPU second is shown. CPU is that of the "
        "job's own processes.",
        _speed(told["speed"]),
        "Latency from a message's arrival until the windows it closed can be read committed, at half of the "
        "speed above (500 points per message):",
        _latency(told["latency"]),
        _PROFILE,
    ]
    inference = _read("flink_inference.json")
    if inference is not None:
        parts += [
            f"Inference: THEMIS on windows of {inference['size']}, scored in one function "
            f"(`python tests/bench/flink_inference.py`), medians of {inference['rounds']} rounds. Scoring "
            "all waiting windows in one call, as the operator does, was faster than dynamic batching behind "
            "`AsyncDataStream` in each round; the model's own calls take longer there, beside three threads "
            "of PyFlink:",
            _inference(inference["rows"]),
        ]
    return "\n\n".join(part for part in parts if part)


def _speed(rows: list[dict[str, Any]]) -> str:
    lines = [
        "| | points per message | points/s | points per CPU second | of the plain job's | Java's share of the CPU | "
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
    lines = [
        "| | windows/s | of plain Python's, 64 per call | windows per call |",
        "|---|---|---|---|",
    ]
    lines += [
        f"| {row['variant'].replace(' a call', ' per call')} | {row['windows_per_s']:,} | {row['of_plain_64']:.2f} | "
        f"{row['windows_per_call']:.0f} |"
        for row in rows
    ]
    return "\n".join(lines)


def _read(name: str) -> Any:
    file = BENCH / name
    return json.loads(file.read_text(encoding="utf-8")) if file.exists() else None
