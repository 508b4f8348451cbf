"""Events, edges and graphs on a real broker: killed twice, they end as a calm run does."""

from __future__ import annotations

import json
import time
from contextlib import closing

import pytest

from tests.contract.jobs import JUDGED, messages_of, sections_of


@pytest.mark.parametrize("modality", JUDGED)
def test_killed_twice_it_ends_as_a_calm_run_does(modality, pipeline, tmp_path):
    name = JUDGED[modality]
    job = pipeline(**sections_of(name, tmp_path))
    job.tree["alerts"] |= {"max_age": "36500d", "limit": {"per_key": 1000, "per_group": 1000}}
    job.tree["windows"] = {}
    job.tree["delivery"] |= {
        "commit_interval": "20ms", "snapshot_interval": "40ms", "max_poll_records": 20,
    }  # fmt: skip
    messages = messages_of(name)
    third = len(messages) // 3
    job.create()
    for part, death in enumerate(("detect.after_produce:2", "detect.mid_snapshot:2")):
        process = job.start(kill_at=death)
        send(job, messages[part * third : (part + 1) * third])
        deadline = time.monotonic() + 60
        while process.is_alive():
            assert time.monotonic() < deadline, f"{death} was never passed"
            time.sleep(0.05)
        assert process.exitcode == -9, death
    process = job.start()
    send(job, messages[2 * third :])
    job.until(job.done, what="the last life ends the work")
    process.terminate()
    process.join(20)
    assert process.exitcode == 0
    found = [json.loads(body) for body in job.findings().values()]
    assert {one["state"] for one in found} >= {"began", "ended"}
    assert all(one["explanation"]["text"] for one in found if one["kind"] == "anomaly")
    job.check(findings=4, alerts=2, rows=True)


def test_events_that_are_not_keyed_are_rekeyed_first(pipeline, tmp_path):
    job = pipeline(**sections_of("ape", tmp_path))
    job.tree["windows"] = {}
    job.tree["input"] |= {"repartition": True}
    messages = messages_of("ape")
    send(job, [(number % 2, payload) for number, (_, payload) in enumerate(messages)])
    job.create()
    process = job.start()
    job.until(lambda: keys_of(job) == {"a", "b"}, what="both keys")
    process.terminate()
    process.join(20)
    assert process.exitcode == 0


def keys_of(job):
    return {json.loads(body)["key"] for body in job.findings().values()}


def send(job, messages):
    with closing(job.producer()) as producer:
        for partition, payload in messages:
            producer.send(job.input, value=payload, partition=partition)
        producer.flush()
