"""The plain runtime on Kafka, put together: detect and alert loops from a pipeline file."""

from __future__ import annotations

import copy
import time
from functools import partial
from typing import Literal

from connectors.files.topology import topology_of
from connectors.files.triage import recogniser_of
from connectors.kafka.client import KafkaSettings
from connectors.kafka.member import KafkaMember
from connectors.records.alerts import KafkaAlertRecords
from connectors.records.detect import KafkaDetectRecords
from connectors.records.rekeyed import KafkaRekeyRecords, RekeyedCodec, rekeyed_topic
from connectors.records.wire import Frames
from connectors.snapshot_stores import FileSnapshots, TopicSnapshots
from connectors.telemetry import DETECT_COUNTS
from jobs.build import build_detect
from jobs.desk.severities import scale_of
from jobs.memory import bounded
from jobs.offline.replay import codec_of
from jobs.plain.artifact_watch import ArtifactWatch
from jobs.plain.config_watch import ConfigWatch, Swap
from jobs.plain.probe import incident_of
from jobs.plain.topics import Config
from jobs.plain.triage_watch import TriageWatch, mark_of
from streamad.alerting.config import AlertingConfig
from streamad.config import PipelineConfig
from streamad.errors import ConfigError
from streamad.operators.detect import DetectOperator
from streamad.paging.desk import Desk
from streamad.ports import Decoder, Fault, Log, SnapshotStore, Telemetry, no_fault
from streamad.runtime.alert import AlertLoop
from streamad.runtime.detect import DetectLoop
from streamad.runtime.placing import Clock
from streamad.runtime.recovery import none_kept
from streamad.runtime.rekey import RekeyLoop

CLOCK = Clock(seconds=time.monotonic, wall_ms=lambda: time.time_ns() // 1_000_000)
FINDINGS_A_POLL = 2_000
"""Records alert takes at once; detect and rekey have a setting for it."""


def group_of(config: PipelineConfig | AlertingConfig, role: str) -> str:
    """Return the consumer group of a role; it also begins the ids of its transactions."""
    return f"streamad.{config.name}.{role}"


def _member(
    config: PipelineConfig,
    role: Literal["detect", "rekey"],
    settings: KafkaSettings,
    *,
    name: str,
    telemetry: Telemetry | None,
    fault: Fault,
) -> KafkaMember:
    """Return the member of a role that reads the input."""
    return KafkaMember(
        settings,
        group=group_of(config, role),
        member=name,
        stage=role,
        topics=config.input.topics,
        max_poll_records=config.delivery.max_poll_records,
        timeout_ms=config.delivery.transaction_timeout,
        telemetry=telemetry,
        fault=fault,
    )


def detect_loop(  # noqa: PLR0913 - all but the first two by keyword
    config: PipelineConfig,
    settings: KafkaSettings,
    *,
    member: str,
    telemetry: Telemetry | None = None,
    fault: Fault = no_fault,
    frames: Frames | None = None,
    reload: ConfigWatch | None = None,
) -> tuple[DetectLoop, KafkaMember]:
    """Return the detect role and its member, which is to be closed after the loop.

    reload : tells it of other settings while it runs
    """
    given = config
    operator = build_detect(config)
    if telemetry is not None:
        telemetry.gauge("detect_degraded", bool(operator.degraded))
    decoder: Decoder = codec_of(config)
    if config.input.repartition:
        decoder = RekeyedCodec(config)
        config = of_rekeyed(config)
    kafka = _member(config, "detect", settings, name=member, telemetry=telemetry, fault=fault)
    config = bounded(config, sum(len(kafka.log.bounds(topic)) for topic in config.input.topics))
    operator = operator.under(config.decision_settings())
    watch = None
    if config.detector.artifact is not None:
        watch = ArtifactWatch(config, operator.artifact, telemetry)
        watch.start()
    loop = DetectLoop(
        config,
        operator,
        member=kafka,
        decoder=decoder,
        records=KafkaDetectRecords(
            config,
            detector=operator.detector.info.name,
            artifact=operator.artifact,
            partitions=len(kafka.log.bounds(config.topic("scores"))),
            wall_ms=CLOCK.wall_ms,
            frames=frames,
        ),
        store=snapshot_store(config, kafka.log),
        clock=CLOCK,
        telemetry=telemetry,
        counters=DETECT_COUNTS,
        fault=fault,
        staged=watch,
        kept=none_kept if watch is None else watch.kept,
    )
    kafka.owner = loop
    if reload is not None:
        reload.add(loop, partial(_prepare_detect, loop, watch, config), given)
    return loop, kafka


def _prepare_detect(
    loop: DetectLoop,
    watch: ArtifactWatch | None,
    at_work: PipelineConfig,
    before: Config,
    config: Config,
) -> Swap:
    """Load the artifact where it is another one; see `jobs.plain.config_watch.Prepare`.

    at_work : the settings of the loop, with what it found at its start: topics, memory
    """
    found = {"series": at_work.series, "input": at_work.input}
    old, new = _pipeline(before), _pipeline(config).model_copy(update=found)
    operator: DetectOperator | None = None
    if new.detector.artifact != old.detector.artifact:
        operator = build_detect(new, strict=True)
        if refused := operator.cannot_follow():
            msg = f"detector.artifact: {refused}; give one that the running job can take over"
            raise ConfigError(msg)

    def swap() -> None:
        loop.pace(new.delivery)
        if watch is not None:
            watch.use(new, operator)

    return swap


def _pipeline(config: Config) -> PipelineConfig:
    if isinstance(config, AlertingConfig):
        msg = f"expected a pipeline, got the alerting file of {config.name}"
        raise ConfigError(msg)
    return config


def of_rekeyed(config: PipelineConfig) -> PipelineConfig:
    """Return the pipeline as detect sees it behind the internal topic."""
    given = {"topics": (rekeyed_topic(config),), "start": "earliest"}
    return config.model_copy(update={"input": config.input.model_copy(update=given)})


def rekey_loop(
    config: PipelineConfig,
    settings: KafkaSettings,
    *,
    member: str,
    telemetry: Telemetry | None = None,
    fault: Fault = no_fault,
    reload: ConfigWatch | None = None,
) -> tuple[RekeyLoop, KafkaMember]:
    """Return the role that keys an input which is not, and its member."""
    kafka = _member(config, "rekey", settings, name=member, telemetry=telemetry, fault=fault)
    partitions = len(kafka.log.bounds(rekeyed_topic(config)))
    loop = RekeyLoop(
        config,
        member=kafka,
        decoder=codec_of(config),
        records=KafkaRekeyRecords(config, partitions=partitions, wall_ms=CLOCK.wall_ms),
        clock=CLOCK,
        telemetry=telemetry,
        fault=fault,
    )
    kafka.owner = loop
    if reload is not None:
        reload.add(loop, lambda _, new: partial(loop.pace, new.delivery), config)
    return loop, kafka


def alert_loop(  # noqa: PLR0913 - all but the first two by keyword
    config: Config,
    settings: KafkaSettings,
    *,
    member: str,
    telemetry: Telemetry | None = None,
    fault: Fault = no_fault,
    frames: Frames | None = None,
    reload: ConfigWatch | None = None,
) -> tuple[AlertLoop, KafkaMember]:
    """Return the alert role and its member, which is to be closed after the loop."""
    given, config = config, _alerting(config)
    kafka = KafkaMember(
        settings,
        group=group_of(config, "alert"),
        member=member,
        stage="alert",
        topics=config.read,
        max_poll_records=FINDINGS_A_POLL,
        together=True,
        timeout_ms=config.delivery.transaction_timeout,
        telemetry=telemetry,
        fault=fault,
    )
    records = KafkaAlertRecords(config, kafka.log, wall_ms=CLOCK.wall_ms, frames=frames)
    # Before the first reading: a file that changes in between is read again.
    watch = TriageWatch(config.triage, telemetry)
    loop = AlertLoop(
        config,
        Desk(
            config,
            topology_of(config.incidents),
            recogniser_of(config.triage),
            scale_of(config.severities),
        ),
        member=kafka,
        records=records,
        clock=CLOCK,
        telemetry=telemetry,
        fault=fault,
        staged=watch,
    )
    watch.start()
    kafka.owner = loop
    if reload is not None:
        reload.add(loop, partial(_prepare_alert, loop, watch), given)
    return loop, kafka


def _prepare_alert(loop: AlertLoop, watch: TriageWatch, before: Config, config: Config) -> Swap:
    """Read what words come from, and let a finding become an alert by the new settings."""
    old, new = _alerting(before), _alerting(config)
    scale = scale_of(new.severities)
    seen = mark_of(new.triage)
    renamed = new.triage != old.triage
    recogniser = recogniser_of(new.triage) if renamed else None
    probe = copy.copy(loop.desk)
    probe.reword(new, scale)
    incident_of(probe, CLOCK.wall_ms())

    def swap() -> None:
        loop.reword(new, scale)
        if renamed:
            loop.desk.name_by(recogniser)
            watch.use(new.triage, seen)

    return swap


def _alerting(config: Config) -> AlertingConfig:
    return AlertingConfig.of(config) if isinstance(config, PipelineConfig) else config


def snapshot_store(config: PipelineConfig, log: Log) -> SnapshotStore:
    """Return where snapshots are kept, by ``delivery.snapshot_store``."""
    where = config.delivery.snapshot_store
    if where == "topic":
        return TopicSnapshots(config.topic("state"), log)
    return FileSnapshots(where, pipeline=config.name)
