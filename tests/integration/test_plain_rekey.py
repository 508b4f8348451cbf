"""A topic that is not keyed: every point of a key comes to one partition, and all is judged."""

from __future__ import annotations

import json
from contextlib import closing

import pyarrow as pa

from connectors.records.rekeyed import rekeyed_topic


def test_points_of_a_key_come_to_one_partition(pipeline, rows):
    job = pipeline(partitions=3, input={"repartition": True})
    job.tree["input"] = {"topics": job.input, "start": "earliest", "repartition": True}
    job.tree["series"] = {"lateness": "30s"}
    job.tree["delivery"] |= {"commit_interval": "20ms", "max_poll_records": 200}
    job.create()
    series = rows()
    with closing(job.producer()) as producer:
        for number, (key, ts, value) in enumerate(series):
            text = json.dumps({"key": key, "ts": ts, "value": value}).encode()
            producer.send(job.input, value=text, partition=number % 3)
        producer.send(job.input, value=b"{broken", partition=0)
    process = job.start(kill_at="rekey.after_produce:2")
    job.until(lambda: not process.is_alive(), what="the first life dies between input and output")
    process = job.start()
    rekeyed = rekeyed_topic(job.config)
    job.until(lambda: len(points(job, rekeyed)) >= len(series), what="all points are re-keyed")
    job.until(lambda: len(job.scores()) > 0, what="what was re-keyed is judged")
    process.terminate()
    process.join(20)
    assert process.exitcode == 0
    found = points(job, rekeyed)
    assert sorted(point for point, _ in found) == sorted(series)
    homes: dict[str, set[int]] = {}
    for (key, _, _), partition in found:
        homes.setdefault(key, set()).add(partition)
    assert all(len(where) == 1 for where in homes.values())
    assert len(set.union(*homes.values())) > 1
    ((reason, _),) = job.dead()
    assert reason == "invalid_json"


def points(job, topic) -> list[tuple[tuple[str, int, float], int]]:
    """Return the points of the internal topic, and the partition each went to."""
    found = []
    for record in job.records(topic):
        with pa.ipc.open_stream(record.value) as reader:
            table = reader.read_all().to_pydict()
        rows = zip(table["key"], table["ts"], table["v0"], strict=True)
        found += [(row, record.partition) for row in rows]
    return found
