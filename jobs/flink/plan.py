"""The Flink job put together from a pipeline file: tables, worker, options."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from connectors.flink.tables import group_of as flink_group
from connectors.flink.tables import sink_options, source_options
from connectors.kafka.admin import partition_counts
from connectors.kafka.client import KafkaSettings
from connectors.kafka.log import KafkaLog
from connectors.kafka.notes import KafkaNotes
from connectors.records.detect import KafkaDetectRecords
from connectors.records.rekeyed import RekeyedCodec
from connectors.records.wire import Frames
from connectors.telemetry import DETECT_COUNTS
from jobs.build import build_detect
from jobs.offline.replay import codec_of
from jobs.plain.artifact_watch import kept_artifact
from jobs.plain.loops import CLOCK, of_rekeyed, snapshot_store
from streamad.config import PipelineConfig
from streamad.errors import ConfigError
from streamad.ports import Decoder, Progress, Source, Telemetry
from streamad.runtime.decoding import Decoding
from streamad.runtime.keyed.detect import KeyedDetect
from streamad.runtime.recovery import Handover, Recovery
from streamad.runtime.start import start_time_ms

if TYPE_CHECKING:
    from streamad.runtime.keyed.flink import FlinkPlan

CONNECTOR = Path(".cache/flink/libs/flink-sql-connector-kafka-5.0.0-2.2.jar")
"""Where ``make setup-flink`` puts the connector, from the root of the repository."""

CODECS = ("zstd-jni", "lz4-java", "snappy-java")
"""Jars without which the connector reads no topic that is compressed so."""

STATE_DIR = Path(".streamad/flink")
"""Where checkpoints go when Flink runs in this process and the pipeline names no place."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MakeDetect:
    """Makes what judges, in a worker: it travels there as text and settings.

    partitions : of the scores topic; taken : where the plain job came to, which it goes on from;
    frames : what stands before values for a schema registry
    """

    config: str
    settings: KafkaSettings = field(repr=False)
    partitions: int
    taken: Mapping[Source, Progress] = field(default_factory=dict)
    frames: Frames = field(default_factory=dict)

    def __call__(self, telemetry: Telemetry) -> KeyedDetect:
        """Return a new one."""
        config = PipelineConfig.model_validate_json(self.config)
        operator = build_detect(config)
        decoder: Decoder = codec_of(config)
        if config.input.repartition:
            decoder = RekeyedCodec(config)
            config = of_rekeyed(config)
        log = KafkaLog(self.settings, group=flink_group(config))
        records = KafkaDetectRecords(
            config,
            detector=operator.detector.info.name,
            artifact=operator.artifact,
            partitions=self.partitions,
            wall_ms=CLOCK.wall_ms,
            frames=self.frames,
        )
        kept = partial(kept_artifact, config)
        handover = None
        if self.taken:
            recovery = Recovery(
                config,
                operator,
                decoding=Decoding(decoder, pipeline=config.name),
                records=records,
                log=log,
                store=snapshot_store(config, log),
                telemetry=telemetry,
                kept=kept,
            )
            handover = Handover(recovery=recovery, progress=self.taken)
        return KeyedDetect(
            config,
            operator,
            decoder=decoder,
            records=records,
            log=log,
            telemetry=telemetry,
            counters=DETECT_COUNTS,
            handover=handover,
            notes=KafkaNotes(self.settings, group=f"{flink_group(config)}.in-hand"),
            kept=kept,
        )


def plan(  # noqa: PLR0913 - all but the first two by keyword
    config: PipelineConfig,
    settings: KafkaSettings,
    *,
    options: Mapping[str, str],
    max_parallelism: int | None = None,
    taken: Mapping[Source, Progress] | None = None,
    here: bool = False,
    frames: Frames | None = None,
) -> FlinkPlan:
    """Return the job of a pipeline whose topics exist.

    options : Flink's, which win over what the pipeline file says; here : Flink runs in this
    process; max_parallelism : of the state
    that is restored; taken : where the plain job came to, if that is where this one is to begin
    """
    from streamad.runtime.keyed.flink import FlinkPlan

    seen = of_rekeyed(config) if config.input.repartition else config
    counts = partition_counts(settings)
    partitions = sum(counts[topic] for topic in seen.input.topics)
    most = max_parallelism or config.flink.max_parallelism or partitions
    if config.flink.parallelism > most:
        msg = (
            f"flink.parallelism is {config.flink.parallelism} and the state can be spread over "
            f"{most} slots: a partition is never split; lower it, or start again with more "
            "partitions, or a larger flink.max_parallelism"
        )
        raise ConfigError(msg)
    scores = config.topic("scores")
    written = [config.topic("findings"), scores]
    for topic in seen.input.topics:
        written.append(config.output.dead_letters.format(topic=topic))
        if config.series.late == "topic":
            written.append(config.output.late.format(topic=topic))
    return FlinkPlan(
        name=job_name(config),
        label=f"detect {config.state_checksum()}",
        source=source_options(
            seen, settings, start_ms=start_time_ms(seen.input.start), from_group=bool(taken)
        ),
        sink=sink_options(seen, settings, topics=written),
        topics={topic: counts[topic] for topic in seen.input.topics},
        parallelism=config.flink.parallelism,
        max_parallelism=most,
        make=MakeDetect(
            config=config.model_dump_json(),
            settings=settings,
            partitions=counts[scores],
            taken=dict(taken or {}),
            frames=dict(frames or {}),
        ),
        jars=connector_jars(config, here=here),
        options={**default_options(config), **config.flink.options, **options},
    )


def job_name(config: PipelineConfig) -> str:
    """Return the name a job has in Flink."""
    return f"streamad {config.name}"


def default_options(config: PipelineConfig) -> dict[str, str]:
    """Return Flink's options as the pipeline file has them."""
    flink = config.flink
    given = {
        "pipeline.name": job_name(config),
        "parallelism.default": str(flink.parallelism),
        "execution.checkpointing.interval": f"{flink.checkpoint_interval} ms",
        "execution.checkpointing.mode": "EXACTLY_ONCE",
        "execution.checkpointing.externalized-checkpoint-retention": "RETAIN_ON_CANCELLATION",
        "execution.checkpointing.incremental": "true",
        "execution.checkpointing.timeout": "5 min",
        "execution.checkpointing.tolerable-failed-checkpoints": "3",
        "state.backend.type": flink.state_backend,
        "restart-strategy.type": "exponential-delay",
        "restart-strategy.exponential-delay.initial-backoff": "1 s",
        "restart-strategy.exponential-delay.max-backoff": "30 s",
        "python.execution-mode": flink.execution_mode,
        "python.fn-execution.bundle.size": str(flink.bundle_size),
        "python.fn-execution.bundle.time": str(flink.bundle_time),
        "python.executable": sys.executable,
        "python.client.executable": sys.executable,
        # Times of records are turned into milliseconds in SQL.
        "table.local-time-zone": "UTC",
    }
    if flink.checkpoint_dir is not None:
        given["execution.checkpointing.dir"] = checkpoint_dir(config)
        given["execution.checkpointing.savepoint-dir"] = checkpoint_dir(config)
    return given


def checkpoint_dir(config: PipelineConfig) -> str:
    """Return where this pipeline's checkpoints are kept, as a URL."""
    base = config.flink.checkpoint_dir or str(STATE_DIR)
    url = base if "://" in base else f"file://{Path(base).absolute()}"
    return f"{url.rstrip('/')}/{config.name}"


def connector_jars(config: PipelineConfig, *, here: bool) -> list[Path]:
    """Return the Kafka connector's jar, and Kafka's codecs that lie beside it.

    An empty list leaves them to the cluster's ``lib`` folder. Raises ConfigError for a missing jar.
    here : Flink runs in this process, where no such folder has it
    """
    given = config.flink.connector_jar
    # `make setup-flink` puts it into the checkout, which need not be where one works.
    places = [Path(given)] if given else [CONNECTOR, Path(__file__).parents[2] / CONNECTOR]
    jar = next((place.absolute() for place in places if place.is_file()), None)
    if jar is None and not given and not here:
        return []
    if jar is None:
        msg = (
            f"flink.connector_jar: there is no file {places[0].absolute()}; fetch "
            "org.apache.flink:flink-sql-connector-kafka:5.0.0-2.2 with 'make setup-flink', or "
            "leave it unset where the cluster has it in lib"
        )
        raise ConfigError(msg)
    return [jar, *sorted(path for name in CODECS for path in jar.parent.glob(f"{name}-*.jar"))]


def why_no_flink() -> str | None:
    """Say what the Flink runtime lacks on this machine, or None where it can start."""
    import shutil

    if importlib.util.find_spec("pyflink") is None:
        return "PyFlink is not installed; install it with: pip install 'streamad-pipeline[flink]'"
    if shutil.which("java") is None:
        return "no `java` on the PATH; install a Java runtime (17)"
    return None
