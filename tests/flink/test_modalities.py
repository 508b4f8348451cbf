"""Events, edges and graphs on a real cluster, through a savepoint and a rescale, as in a calm run.

Edges have a memory that no key owns, and graphs hold edges open: both are in a snapshot apart from
the arrays of keys. Events have an artifact that keys start from.
"""

from __future__ import annotations

from contextlib import closing

import pytest

from connectors.flink.rest import FlinkRest
from streamad.testing.flink import FlinkCluster
from tests.contract.jobs import JUDGED, messages_of, sections_of


@pytest.mark.parametrize("modality", ["events", "edges", "graphs"])
def test_parity_through_a_savepoint_and_a_rescale(
    modality, flink: FlinkCluster, pipeline, tmp_path
):
    name = JUDGED[modality]
    job = pipeline(partitions=2, **sections_of(name, tmp_path))
    job.tree["windows"] = {}
    job.tree["alerts"] |= {"max_age": "36500d", "limit": {"per_key": 1000, "per_group": 1000}}
    messages = messages_of(name)
    half = len(messages) // 2
    send(job, messages[:half])
    rest = FlinkRest(flink.address)
    assert "runs as" in job.flink("run", cluster=rest.url)
    job.until_judged()
    job.flink("stop", cluster=rest.url)
    send(job, messages[half:])
    job.tree["flink"]["parallelism"] = 2
    assert "runs as" in job.flink("run", cluster=rest.url)
    job.until_judged()
    job.flink("stop", cluster=flink.address)
    job.alert()
    job.check(findings=4, alerts=2, rows=True)


def send(job, messages):
    with closing(job.producer()) as producer:
        for partition, payload in messages:
            producer.send(job.input, value=payload, partition=partition)
        producer.flush()
