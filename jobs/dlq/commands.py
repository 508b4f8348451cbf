"""What ``streamad dlq show`` and ``streamad dlq replay`` do with their arguments."""

from __future__ import annotations

import json
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from connectors.kafka.log import KafkaLog
from connectors.kafka.replay import KafkaDesk
from jobs.console import say
from jobs.dlq.pages import PageSender
from jobs.dlq.replay import (
    Found,
    InputSender,
    Replay,
    Sender,
    dead_letter_topics,
    letters,
    replay,
    summary,
)
from jobs.plain.frames import frames_of
from jobs.settings import environment, kafka_settings
from jobs.validate import is_alerting
from streamad.alerting.config import AlertingConfig, load_alerting
from streamad.config import PipelineConfig, load_pipeline
from streamad.ports import Log
from streamad.shown import safe_text
from streamad.wording import clock, one_line

MAX_PAYLOAD_SHOWN = 120
Config = PipelineConfig | AlertingConfig


def show_letters(file: Path, *, limit: int, to_json: bool, payloads: bool) -> None:
    """Print the dead letters of a pipeline, or of pages: how many a reason, and the last ones."""
    config = _config_of(file)
    with _log(config) as log:
        counts, last = summary(letters(log, _topics(config, log)), pipeline=config.name, keep=limit)
    if to_json:
        body = {"reasons": dict(counts.most_common()), "last": [_facts(f, payloads) for f in last]}
        sys.stdout.write(json.dumps(body, indent=1) + "\n")
        return
    _print_counts(counts)
    for found in last:
        sys.stdout.write(
            "\n" + "".join(f"{k:>9}  {v}\n" for k, v in _facts(found, payloads).items())
        )


def replay_letters(
    file: Path,
    *,
    reason: str | None,
    limit: int | None,
    dry_run: bool,
    max_attempts: int,
) -> None:
    """Send dead letters back to the topics they came from; print what was done.

    Those of an alerting file are pages: their pagers are asked to send what is still true.
    """
    config = _config_of(file)
    settings = kafka_settings(environment())
    with (
        _log(config) as log,
        _log(config) as originals,
        KafkaDesk(settings, name=f"streamad.{config.name}.dlq-replay") as desk,
    ):
        made = replay(
            letters(log, _topics(config, log)),
            desk,
            _sender(config, originals, max_attempts),
            pipeline=config.name,
            reason=reason,
            limit=limit,
            dry_run=dry_run,
        )
    _print_replay(made, dry_run=dry_run, max_attempts=max_attempts)


def _config_of(file: Path) -> Config:
    if is_alerting(file):
        return load_alerting(file, environment=environment())
    return load_pipeline(file, environment=environment())


def _topics(config: Config, log: Log) -> list[str]:
    if isinstance(config, AlertingConfig):
        topic = config.output.dead_letters.format(topic=config.topic("incidents"))
        # The page job makes it at its first start.
        return [topic] if log.bounds(topic) else []
    return dead_letter_topics(config)


def _sender(config: Config, originals: Log, max_attempts: int) -> Sender:
    if isinstance(config, AlertingConfig):
        return PageSender(
            config=config,
            incidents=originals,
            wall_ms=lambda: time.time_ns() // 1_000_000,
            max_attempts=max_attempts,
            frames=frames_of(config, ["alert"], environment()),
        )
    return InputSender(
        pipeline=config.name,
        targets={source for topic in config.input.topics for source in originals.bounds(topic)},
        originals=originals,
        max_attempts=max_attempts,
    )


@contextmanager
def _log(config: Config) -> Iterator[KafkaLog]:
    log = KafkaLog(kafka_settings(environment()), group=f"streamad.{config.name}.dlq")
    try:
        yield log
    finally:
        log.close()


def _facts(found: Found, payloads: bool) -> dict[str, str]:  # noqa: FBT001 - passed on from an option
    letter = found.letter
    facts = {
        "reason": letter.reason,
        "detail": one_line(letter.detail),
        "from": f"{letter.topic}/{letter.partition} at {letter.offset}",
        "stage": letter.stage,
        "attempts": str(found.attempts),
    }
    if letter.time_ms >= 0:
        facts["time"] = f"{clock(letter.time_ms, dated=True)} UTC"
    if letter.row is not None:
        facts["row"] = str(letter.row)
    if payloads:
        shown = letter.value[:MAX_PAYLOAD_SHOWN].decode("utf-8", "backslashreplace")
        facts["payload"] = "(too large to keep)" if letter.pointer else shown
    return {name: safe_text(text) for name, text in facts.items()}


def _print_counts(counts: Counter[str]) -> None:
    if not counts:
        say("no dead-letter records")
    for reason, n in counts.most_common():
        sys.stdout.write(f"{n:>9}  {reason}\n")


def _print_replay(made: Replay, *, dry_run: bool, max_attempts: int) -> None:
    verb = "would be replayed" if dry_run else "replayed"
    lines = [
        (made.replayed, verb),
        (made.before, "replayed before"),
        (made.merged, "rows of messages replayed as a whole"),
        (made.given_up, f"skipped: failed after {max_attempts} replays"),
        (made.gone, "skipped: too large to keep, and no longer in the input"),
        (made.refused, "refused: names a topic, partition or pager that is none of this file"),
        (made.over, "skipped: the incident is over"),
    ]
    if made.foreign:
        say(f"{made.foreign} dead-letter records are of other pipelines and are left alone")
    if made.odd:
        say(f"{made.odd} records are no dead-letter records of streamad and are skipped")
    for counts, words in lines:
        for reason, n in counts.most_common():
            sys.stdout.write(f"{n:>9}  {reason}: {words}\n")
    if not made.total:
        say("nothing to replay")
