"""What is handed to Flink, as far as it can be seen without a cluster."""

from __future__ import annotations

import json
import os
import pickle
import subprocess
import sys
from typing import Any

import pytest

from connectors.flink import tables as flink_tables
from connectors.kafka.client import KafkaSettings
from jobs.flink import plan as job_flink
from jobs.flink import run as flink_run
from streamad.config import PipelineConfig, parse_pipeline
from streamad.errors import ClusterError, ConfigError
from streamad.ports import NullTelemetry, Progress, Source

SECRET = "hunter2"  # noqa: S105 - must not be seen


@pytest.fixture(autouse=True)
def topics(monkeypatch: Any) -> dict[str, int]:
    counts = {"in": 4, "streamad.p.scores": 4, "streamad.p.rekeyed": 4}
    monkeypatch.setattr(job_flink, "partition_counts", lambda _: counts)
    return counts


def config(**more: Any) -> PipelineConfig:
    return PipelineConfig.model_validate(
        {"name": "p", "input": {"topics": "in"}, "detector": "robust_z", **more}
    )


def secretive() -> KafkaSettings:
    return KafkaSettings(
        security_protocol="SASL_SSL", sasl_mechanism="SCRAM-SHA-512", sasl_username="ann",
        sasl_password=f'{SECRET}"quoted',
    )  # fmt: skip


def test_secrets_reach_java_quoted_and_show_nowhere(flink_distribution: None):
    made = job_flink.plan(config(), secretive(), options={})
    login = made.source["properties.sasl.jaas.config"]
    assert f'password="{SECRET}\\"quoted"' in login
    assert "ScramLoginModule" in login
    assert SECRET not in repr(made)


def test_what_judges_survives_the_way_to_a_worker(flink_distribution: None):
    made = job_flink.plan(config(), KafkaSettings(), options={})
    there = pickle.loads(pickle.dumps(made.make))  # noqa: S301 - as PyFlink does
    assert there == made.make
    detect = there(NullTelemetry())
    assert detect.shards == {}


def test_a_rekeyed_input_is_read_where_it_is_keyed(flink_distribution: None):
    made = job_flink.plan(
        config(input={"topics": "in", "repartition": True}), KafkaSettings(), options={}
    )
    assert list(made.topics) == [made.source["topic"]]
    assert "in" not in made.topics
    assert made.source["scan.startup.mode"] == "earliest-offset"


def test_more_slots_than_shards_are_refused(flink_distribution: None):
    with pytest.raises(ConfigError, match="can be spread over 4 slots"):
        job_flink.plan(config(flink={"parallelism": 5}), KafkaSettings(), options={})
    # What a savepoint says of itself counts more than the topic, which may have grown.
    with pytest.raises(ConfigError, match="can be spread over 2 slots"):
        job_flink.plan(
            config(flink={"parallelism": 3}), KafkaSettings(), options={}, max_parallelism=2
        )


def test_options_of_the_user_win(flink_distribution: None):
    given = config(flink={"options": {"state.backend.type": "hashmap", "any.thing": "1"}})
    made = job_flink.plan(given, KafkaSettings(), options={"rest.port": "1"})
    assert made.options["state.backend.type"] == "hashmap"
    assert made.options["any.thing"] == made.options["rest.port"] == "1"
    assert made.options["execution.checkpointing.mode"] == "EXACTLY_ONCE"


@pytest.mark.parametrize(
    ("start", "mode"), [("latest", "latest-offset"), ("2026-01-01T00:00:00Z", "timestamp")]
)
def test_the_start_is_that_of_the_pipeline(flink_distribution: None, start: str, mode: str):
    made = job_flink.plan(
        config(input={"topics": "in", "start": start}), KafkaSettings(), options={}
    )
    assert made.source["scan.startup.mode"] == mode


def test_what_the_plain_job_left_goes_to_the_source_and_to_the_workers(flink_distribution: None):
    taken = {Source("in", 1): Progress(offset=7, note="{}")}
    made = job_flink.plan(config(), KafkaSettings(), options={}, taken=taken)
    assert made.source["scan.startup.mode"] == "group-offsets"
    assert made.source["properties.auto.offset.reset"] == "earliest"
    assert made.make.taken == taken
    there = pickle.loads(pickle.dumps(made.make))  # noqa: S301 - as PyFlink does
    assert there == made.make


SLOTS = """
import json
from pyflink.java_gateway import get_gateway
from streamad.runtime.keyed.flink import shard_keys

jvm = get_gateway().jvm
assign = jvm.org.apache.flink.runtime.state.KeyGroupRangeAssignment.assignKeyToParallelOperator
keys = shard_keys(["a", "b"], 6)
made = {"distinct": len(set(keys.values())) == len(keys)}
for parallelism in (2, 3, 6):
    row, loads = jvm.org.apache.flink.types.Row(1), []
    for source, key in keys.items():
        if source.partition < 3:
            row.setField(0, key)
            loads.append(assign(row, 6, parallelism))
    made[parallelism] = [loads.count(slot) for slot in range(parallelism)]
print(json.dumps(made))
"""


def test_neighbouring_partitions_fall_to_different_slots(flink_distribution: None, tmp_path: Any):
    # In a process of its own: a gateway to Java stays open as long as the process lives.
    environment = {**os.environ, "FLINK_LOG_DIR": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-c", SLOTS], capture_output=True, text=True, check=True, env=environment
    )
    told = json.loads(done.stdout.splitlines()[-1])
    assert told == {"distinct": True, "2": [3, 3], "3": [2, 2, 2], "6": [1] * 6}


WAKES = """
import json
from pyflink.table import DataTypes, EnvironmentSettings, TableEnvironment
from streamad.runtime.keyed.flink import _key_expression, sources_by_key, shard_keys

topics = {"a": 30, "it's b": 2}
keys = shard_keys(list(topics), 6)
there = [(topic, number) for topic, n in topics.items() for number in range(n)]
tables = TableEnvironment.create(EnvironmentSettings.in_batch_mode())
tables.get_config().set("parallelism.default", "1")
row = DataTypes.ROW([
    DataTypes.FIELD("topic", DataTypes.STRING()), DataTypes.FIELD("partition", DataTypes.INT())
])
tables.create_temporary_view("input", tables.from_elements(there, row))
sql = f"SELECT `topic`, `partition`, {_key_expression(list(topics), keys)} FROM `input`"
with tables.execute_sql(sql).collect() as found:
    judged = {(one[0], one[1]): one[2] for one in found}
woken = {tuple(source): key for key, source in sources_by_key(topics, keys).items()}
print(json.dumps([judged == woken, len(set(woken.values())), len(keys)]))
"""


def test_each_partition_is_woken_under_the_key_it_is_judged_by(
    flink_distribution: None, tmp_path: Any
):
    environment = {**os.environ, "FLINK_LOG_DIR": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-c", WAKES], capture_output=True, text=True, check=True, env=environment
    )
    # More partitions than keys were foreseen for, and a name that needs quoting.
    assert json.loads(done.stdout.splitlines()[-1]) == [True, 32, 48]


def test_thread_mode_is_refused_with_the_reason():
    with pytest.raises(ConfigError, match=r"execution_mode.*thread is refused: PyFlink"):
        parse_pipeline("name: p\nflink: {execution_mode: thread}")


def test_tls_files_are_handed_over_as_text(tmp_path: Any):
    for name in ("ca", "cert", "key"):
        (tmp_path / name).write_text(f"-----{name}-----")
    made = flink_tables.sink_options(
        config(),
        KafkaSettings(
            security_protocol="SSL", ssl_cafile=f"{tmp_path}/ca", ssl_certfile=f"{tmp_path}/cert",
            ssl_keyfile=f"{tmp_path}/key", ssl_check_hostname=False,
        ),
        topics=["out"],
    )  # fmt: skip
    assert made["properties.ssl.truststore.certificates"] == "-----ca-----"
    assert made["properties.ssl.keystore.key"] == "-----key-----"
    assert made["properties.ssl.endpoint.identification.algorithm"] == ""
    with pytest.raises(ConfigError, match="KAFKA_SSL_CAFILE cannot be read"):
        flink_tables.sink_options(
            config(), KafkaSettings(security_protocol="SSL", ssl_cafile="/no/such"), topics=["out"]
        )


def test_the_newest_of_savepoints_and_checkpoints_is_taken(tmp_path: Any):
    assert flink_run.latest(f"file://{tmp_path}/p") is None
    for number, name in enumerate(["job1/chk-9", "savepoint-1-a", "job2/chk-3"]):
        (tmp_path / "p" / name).mkdir(parents=True)
        written = tmp_path / "p" / name / "_metadata"
        written.write_bytes(b"")
        os.utime(written, (number, number))
    assert flink_run.latest(f"file://{tmp_path}/p") == f"file://{tmp_path}/p/job2/chk-3"


def test_no_cluster_is_told_in_one_line():
    with pytest.raises(ClusterError, match=r"no Flink cluster answers at http://127.0.0.1:9 "):
        flink_run.run_on_cluster(config(), KafkaSettings(), cluster="127.0.0.1:9")


def test_a_missing_connector_is_told(tmp_path: Any):
    with pytest.raises(ConfigError, match=r"flink.connector_jar: there is no file .*setup-flink"):
        job_flink.connector_jars(
            config(flink={"connector_jar": f"{tmp_path}/none.jar"}), here=False
        )


def test_the_connector_of_the_checkout_is_found_from_anywhere(
    tmp_path: Any, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(tmp_path)
    assert job_flink.connector_jars(config(), here=True)[0].is_file()
    monkeypatch.setattr(job_flink, "__file__", str(tmp_path / "site-packages/jobs/flink/plan.py"))
    assert job_flink.connector_jars(config(), here=False) == []
    with pytest.raises(ConfigError, match=r"there is no file /.*connector-kafka.*setup-flink"):
        job_flink.connector_jars(config(), here=True)


def test_codecs_beside_the_connector_go_with_it(tmp_path: Any):
    for name in ("kafka.jar", "zstd-jni-1.jar", "snappy-java-2.jar", "other-1.jar"):
        (tmp_path / name).touch()
    jars = job_flink.connector_jars(
        config(flink={"connector_jar": f"{tmp_path}/kafka.jar"}), here=True
    )
    assert [jar.name for jar in jars] == ["kafka.jar", "snappy-java-2.jar", "zstd-jni-1.jar"]
