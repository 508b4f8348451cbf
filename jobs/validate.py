"""``streamad validate``: whether a pipeline is right, and what it would run."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from connectors.files.topology import topology_of
from connectors.files.triage import recogniser_of
from jobs.build import build_detect, check_detector, require_trained
from jobs.console import say
from jobs.desk.severities import scale_of
from jobs.logs import redacted, secrets_of
from jobs.offline.judged import Account, NothingJudgedError
from jobs.offline.readiness import beyond_memory, readiness, samples
from jobs.offline.replay import Part, codec_of, is_file, read_file, spans_of
from jobs.plain.topics import Config, output_topics
from jobs.settings import environment, kafka_settings
from streamad.alerting.config import AlertingConfig, load_alerting
from streamad.config import PipelineConfig, load_pipeline, read_config
from streamad.config.text import line_of, read_yaml
from streamad.config.values import format_size
from streamad.errors import ConfigError
from streamad.operators.detect import DetectOperator
from streamad.operators.newcomers import full_keys
from streamad.runtime.decoding import decode
from streamad.shown import safe_lines

MEBIBYTE, GIBIBYTE = 2**20, 2**30
MOST_MESSAGES = 20_000
"""Messages of a topic that are read to see what of them can be used."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Told:
    """What a valid pipeline would do."""

    settings: dict[str, Any]
    topics: dict[str, Any]
    detector: dict[str, Any]
    new_keys: dict[str, Any]
    memory: dict[str, Any]


def validate_pipeline(path: Path, *, online: bool, source: str | None = None) -> None:
    """Check a pipeline or an alerting file and print what would run, as YAML.

    source : a file or a topic of which is reported what the pipeline can use
    """
    if is_alerting(path):
        if source is not None:
            msg = f"--input is for pipelines; {path} is an alerting file, which reads findings"
            raise ConfigError(msg)
        validate_alerting(path, online=online)
        return
    config = load_pipeline(path, environment=environment())
    operator = check(path, config)
    told = describe(config, operator)
    tree = {
        "settings": redacted(told.settings, secrets_of(environment())),
        "topics": told.topics,
        "detector": told.detector,
        "new_keys": told.new_keys,
        "memory": told.memory,
    }
    text = yaml.safe_dump(tree, sort_keys=False, width=100, allow_unicode=True)
    sys.stdout.write(safe_lines(text))
    if online:
        _ask_broker(path, config)
    if source is not None:
        for line in read_input(config, source):
            say(line)
    say(f"{path}: valid" + (f", but {operator.degraded}" if operator.degraded else ""))


def read_input(config: PipelineConfig, source: str) -> list[str]:
    """Return what a pipeline can use of a file, or of the newest messages of a topic.

    Raises
    ------
    NothingJudgedError
        where it is not one row
    """
    notes: list[str] = []
    account, keys = Account(), set[str]()
    for part in _parts(config, source, notes):
        account.reject(part.decoded.rejected)
        account.rows += len(part.decoded.batch)
        keys.update(part.decoded.batch.keys.unique().to_list())
    said = [*notes, *([account.rejections()] if account.rejected else [])]
    if account.passed:
        others = ", ".join(f"{number:,} {reason}" for reason, number in account.passed.items())
        said.append(f"rows that the pipeline does not ask for: {others}")
    if not account.rows:
        msg = f"{source}: not one row can be used: {'; '.join(said) or 'there are none'}"
        raise NothingJudgedError(msg)
    of = f"{len(keys):,} key{'' if len(keys) == 1 else 's'}"
    return [f"{source}: {account.rows:,} rows of {of} can be used", *said]


def _parts(config: PipelineConfig, source: str, notes: list[str]) -> Iterator[Part]:
    if is_file(source):
        yield from read_file(Path(source), config, notes=notes)
        return
    from connectors.kafka.log import KafkaLog

    log = KafkaLog(kafka_settings(environment()), group=f"streamad.{config.name}.validate")
    try:
        spans = spans_of(log, source, config, begin_ms=None)
        most = max(1, MOST_MESSAGES // len(spans))
        codec = codec_of(config)
        for place, (start, stop) in spans.items():
            for messages in log.read(place, max(start, stop - most), stop):
                yield Part(source=place, decoded=decode(codec, messages, pipeline=config.name))
    finally:
        log.close()


def is_alerting(path: Path) -> bool:
    """Say whether a file names findings, as alerting files do and pipelines do not."""
    _, tree = read_yaml(read_config(path), name=str(path))
    return "findings" in tree and "input" not in tree


def validate_alerting(path: Path, *, online: bool) -> None:
    """Check an alerting file and print what would run, as YAML."""
    config = load_alerting(path, environment=environment())
    topology_of(config.incidents)
    recogniser_of(config.triage)
    scale_of(config.severities)
    settings = config.model_dump(mode="json", exclude_none=True)
    tree = {
        "settings": redacted(settings, secrets_of(environment())),
        "topics": {
            "read": list(config.findings),
            "written": [topic.name for topic in output_topics(config, partitions=1)],
        },
    }
    text = yaml.safe_dump(tree, sort_keys=False, width=100, allow_unicode=True)
    sys.stdout.write(safe_lines(text))
    if online:
        _ask_broker(path, config)
    say(f"{path}: valid")


def _ask_broker(path: Path, config: Config) -> None:
    """Tell what is wrong on the cluster; errors end the command as mistakes in the file do."""
    from jobs.plain.frames import registry_preflight
    from jobs.plain.preflight import page_preflight, preflight

    settings = kafka_settings(environment())
    problems = preflight(config, settings) + registry_preflight(config, environment())
    if isinstance(config, AlertingConfig):
        problems += page_preflight(config, settings)
    for problem in problems:
        if problem.level == "warning":
            say(f"streamad: warning: {problem.text}")
    if errors := [f"{path}: {problem.text}" for problem in problems if problem.level == "error"]:
        raise ConfigError("\n".join(errors))


def check(path: Path, config: PipelineConfig, *, strict: bool = False) -> DetectOperator:
    """Check what only the plug-ins know; an error names its line in the file."""
    try:
        codec_of(config)
        check_detector(config)
        require_trained(config)
        return build_detect(config, strict=strict)
    except ConfigError as error:
        raise ConfigError(_placed(path, config, str(error))) from error


def _placed(path: Path, config: PipelineConfig, said: str) -> str:
    """Put file and line before a mistake, as far as the setting it speaks of can be told."""
    root, _ = read_yaml(path.read_text(encoding="utf-8"), name=str(path))
    dotted = said.partition(":")[0]
    if said.startswith("no detector is called"):
        dotted = "detector.name"
    elif said.startswith("no codec is called"):
        dotted = "input.format"
    elif said.startswith(("fields", "codec ")):
        dotted = "input.fields"
    known = dotted.split(".")[0] in type(config).model_fields
    line = line_of(root, list(dotted.split("."))) if known else 1
    shown = said if said.startswith(dotted) or not known else f"{dotted}: {said}"
    return f"{path}:{line}: {shown}"


def _count(n: int, noun: str) -> str:
    return f"{n} {noun}{'' if n == 1 else 's'}"


def _warm_up(operator: DetectOperator) -> str:
    unit = "window" if operator.modality.unit == "sample" else operator.modality.unit
    return f"{_count(operator.detector.warm_up, unit)} per key that no artifact covers"


def _too_many(config: PipelineConfig, per_key: int, fit: int) -> str:
    series = config.series
    return (
        f"per partition, series.max_memory ({format_size(series.max_memory)}) holds {fit:,} of "
        f"series.max_keys ({series.max_keys:,}) keys with windows, {per_key:,} bytes each; for all "
        f"of them set it to {format_size(-(-series.max_keys * per_key // MEBIBYTE) * MEBIBYTE)}, "
        "or lower series.max_keys"
    )


def describe(config: PipelineConfig, operator: DetectOperator) -> Told:
    """Return settings, topics, detector and memory of a pipeline, ready to print."""
    info = operator.detector.info
    per_key, series = operator.new_state().bytes_per_key, config.series
    fit = min(series.max_keys, full_keys(series.max_memory, operator.new_state()))
    note = beyond_memory(operator)
    return Told(
        settings=config.model_dump(mode="json", exclude_none=True),
        topics={
            "read": list(config.input.topics),
            "written": [topic.name for topic in output_topics(config, partitions=1)],
        },
        detector={
            "name": info.name,
            "windows": operator.modality.describe(),
            "lag": samples(operator.detector.lag, config.series.step, operator.modality.unit),
            "warm_up": _warm_up(operator),
            "cost": info.cost,
            "artifact": operator.artifact or "none",
            **({"degraded": operator.degraded} if operator.degraded else {}),
        },
        new_keys={**readiness(operator).lines(), **({"level": note} if note else {})},
        memory={
            "bytes_per_key": per_key,
            "mebibytes_per_1000_keys": round(1000 * per_key / MEBIBYTE, 1),
            "gibibytes_at_max_keys": round(series.max_keys * per_key / GIBIBYTE, 2),
            "keys_with_windows": fit,
            "gibibytes_at_most": round(fit * per_key / GIBIBYTE, 2),
            **({"note": _too_many(config, per_key, fit)} if fit < series.max_keys else {}),
        },
    )  # fmt: skip
