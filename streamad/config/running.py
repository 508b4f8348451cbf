"""Settings of how a job runs: commits and state, Flink, the topics that are written."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, field_validator

from streamad.config.live import Live
from streamad.config.section import Section
from streamad.config.values import Duration


class DeliveryConfig(Section):
    """How often outputs are committed and state is saved."""

    commit_interval: Live[Duration] = 500
    """The longest time between two transactions while there is something to commit."""
    snapshot_interval: Live[Duration] = 60_000
    """Time between two snapshots of a partition: longer is cheaper, shorter recovers sooner."""
    snapshot_store: str = "topic"
    """``topic``, or a folder or URL that fsspec writes."""
    on_state_mismatch: Literal["refuse", "fresh"] = "refuse"
    """When the state was made with other settings: refuse to start, or discard it."""
    max_poll_records: int = Field(default=20_000, ge=1)
    """Messages per poll of the broker."""
    transaction_timeout: Duration = 10_000
    """The broker aborts an unfinished transaction after this time; readers wait that long."""


class FlinkConfig(Section):
    """How the job runs on Flink; ``streamad run`` ignores it, and no decision depends on it."""

    parallelism: int = Field(default=1, ge=1, le=32_768)
    """Slots that run detect in parallel; more slots than partitions of the input would be idle."""
    max_parallelism: int | None = Field(default=None, ge=1, le=32_768)
    """The most slots the state can ever be spread over; default: the partitions at the first start.
    It is part of the state: a savepoint keeps it."""
    checkpoint_interval: Duration = 5_000
    """Time between checkpoints; output becomes visible with a checkpoint."""
    checkpoint_dir: str | None = None
    """Where checkpoints and savepoints are kept: a folder or URL that every task manager reaches.
    Default: the cluster's own, and ``.streamad/flink`` where Flink runs in this process."""
    state_backend: Literal["rocksdb", "hashmap"] = "rocksdb"
    """``hashmap`` keeps state in the memory of the JVM: quicker while it fits."""
    execution_mode: Literal["process"] = "process"
    """How Flink runs Python. ``thread`` is refused: see docs/flink.md."""
    bundle_size: int = Field(default=10_000, ge=1, le=1_000_000)
    """Most messages that Flink passes to Python at once."""
    bundle_time: Duration = 100
    """The longest time before a bundle that is not full is passed on."""
    linger: Duration = 100
    """The longest time a message waits to be scored in one batch with others."""
    journal_bytes: int = Field(default=8_388_608, ge=4096)
    """A shard's journal is replaced by a snapshot once it is larger than this and the snapshot."""
    transaction_timeout: Duration = 900_000
    """How long the broker keeps output that no checkpoint has confirmed: longer than any outage of
    the job, and at most the broker's ``transaction.max.timeout.ms``."""
    connector_jar: str | None = None
    """The jar of Flink's Kafka connector, with the jars of Kafka's codecs in its folder; default:
    what ``make setup-flink`` fetched, else what the cluster's ``lib`` folder holds."""
    options: dict[str, str] = Field(default_factory=dict)
    """Any option of Flink, such as ``taskmanager.memory.managed.size``; overrides all above."""

    @field_validator("execution_mode", mode="before")
    @classmethod
    def _no_threads(cls, given: Any) -> Any:
        if given == "thread":
            msg = (
                "thread is refused: PyFlink 2.2 hands byte arrays of keyed state over as arrays of "
                "objects there, and all slots of a task manager share one interpreter lock; "
                "use process"
            )
            raise ValueError(msg)
        return given

    @field_validator("linger", "bundle_time", "checkpoint_interval")
    @classmethod
    def _some_time(cls, given: int) -> int:
        if given < 1:
            msg = f"expected at least 1ms, got {given}ms"
            raise ValueError(msg)
        return given


class OutputConfig(Section):
    """Names of the output topics, by default derived from the pipeline's name, and their format."""

    findings: str | None = None
    """Default ``streamad.<name>.findings``."""
    alerts: str | None = None
    """Default ``streamad.<name>.alerts``."""
    scores: str | None = None
    """Default ``streamad.<name>.scores``."""
    state: str | None = None
    """Default ``streamad.<name>.state``."""
    dead_letters: str = "{topic}.dlq"
    """Unusable input, with the reason; one topic per input."""
    late: str = "{topic}.late"
    """Late records, where ``series.late`` is ``topic``; one topic per input."""
    format: Literal["json", "confluent"] = "json"
    """Of findings, alerts and incidents. ``confluent``: JSON behind five bytes that name its schema
    in a schema registry (``SCHEMA_REGISTRY_URL``), for clients that expect them. All of streamad
    reads both."""
    register_schemas: bool = True
    """Register schemas at the start where they are not yet. ``false``: they must be there, see
    ``streamad topics schemas``."""
