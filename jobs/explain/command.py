"""What ``streamad explain`` does with its arguments."""

from __future__ import annotations

import json
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from jobs.console import say
from jobs.explain.account import Account
from jobs.explain.graph import picture_for
from jobs.explain.sources import Evidence, from_files, from_topics
from jobs.explain.view import as_json, panel
from jobs.moments import parse_moment
from jobs.pictures.graphs import require_edges
from jobs.settings import environment, kafka_settings
from streamad.config import PipelineConfig, load_pipeline
from streamad.errors import ConfigError


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """What ``explain`` shows: JSON instead of a panel; a picture, of edges in a file or a topic."""

    as_json: bool = False
    picture: Path | None = None
    source: str | None = None

    def check(self, config: PipelineConfig) -> None:
        """Refuse a picture that could not be drawn, before anything is read."""
        if self.picture is None:
            return
        if self.picture.suffix != ".svg":
            msg = f"--picture {self.picture}: graphs are drawn as .svg"
            raise ConfigError(msg)
        require_edges(config, "--picture")


def explain_window(  # noqa: PLR0913 - one argument an option, all by keyword
    key: str,
    pipeline: Path | None,
    *,
    at: str,
    scores: Path | None = None,
    findings: Path | None = None,
    alerts: Path | None = None,
    wanted: Wanted | None = None,
) -> None:
    """Print why there was an alert about a key at a time, or none."""
    wanted = wanted or Wanted()
    at_ms = parse_moment(at, now_ms=time.time_ns() // 1_000_000)
    config = _pipeline(pipeline, scores)
    wanted.check(config)
    if scores is not None:
        evidence = from_files(scores, findings=findings, alerts=alerts)
    else:
        evidence = _from_broker(config, key, at_ms)
    account = evidence.explain(key=key, at_ms=at_ms, config=config)
    if wanted.picture is not None:
        svg = picture_for(account, config, source=wanted.source)
        wanted.picture.write_text(svg, encoding="utf-8")
        say(f"drawn: {wanted.picture}")
    _print(account, to_json=wanted.as_json)


def _pipeline(pipeline: Path | None, scores: Path | None) -> PipelineConfig:
    if pipeline is not None:
        return load_pipeline(pipeline, environment=environment())
    if scores is not None:
        return PipelineConfig(name="files")
    msg = "give the pipeline whose topics are to be read, or --scores with a file"
    raise ConfigError(msg)


def _from_broker(config: PipelineConfig, key: str, at_ms: int) -> Evidence:
    from connectors.kafka.log import KafkaLog

    log = KafkaLog(kafka_settings(environment()), group=f"streamad.{config.name}.explain")
    try:
        return from_topics(log, config, key=key, at_ms=at_ms)
    finally:
        log.close()


def _print(account: Account, *, to_json: bool) -> None:
    if to_json:
        sys.stdout.write(json.dumps(as_json(account), indent=1) + "\n")
        return
    from rich.console import Console

    Console().print(panel(account))
