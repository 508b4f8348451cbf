"""A topic that is not keyed: every point of a key comes to one partition, and all is judged."""

from __future__ import annotations

import json
from contextlib import closing

from connectors.rekeyed import rekeyed_topic


def test_points_of_a_key_come_to_one_partition(pipeline, rows):
    job = pipeline(partitions=3, input={"repartition": True})
    job.tree["input"] = {"topics": job.input, "start": "earliest", "repartition": True}
    job.tree["series"] = {"lateness": "30s"}
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
    seen = 15 + 30  # a window, and the lateness that is still waited for
    wanted = 8 * (300 - seen)
    job.until(lambda: len(job.scores()) >= wanted, what="every key's windows are scored")
    process.terminate()
    process.join(20)
    assert process.exitcode == 0
    assert len(job.scores()) == len({row[:2] for row in job.scores()}), "a window was judged twice"
    homes: dict[str, set[int]] = {}
    for record in job.records(job.config.topic("scores")):
        homes.setdefault(record.key.decode(), set()).add(record.partition)
    assert all(len(where) == 1 for where in homes.values())
    assert {name.rpartition("/")[0] for name in homes} == {rekeyed_topic(job.config)}
    ((reason, _),) = job.dead()
    assert reason == "invalid_json"
