"""The command: look, measure, write, and say what comes next."""

from __future__ import annotations

import re
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from connectors.codecs import FieldMap, make_codec
from connectors.files import read_series
from jobs.console import say, status
from jobs.init.look import MAX_RECORDS, Look, look_at, look_at_file
from jobs.init.measure import measure
from jobs.init.text import pipeline_text
from jobs.offline.judged import Account
from jobs.offline.replay import is_file, joined
from jobs.settings import environment, kafka_settings
from streamad.config import parse_pipeline
from streamad.errors import ConfigError
from streamad.records import Decoded
from streamad.wording import duration


def init_pipeline(source: str, *, out: str, name: str | None) -> None:
    """Write a pipeline for a file or a topic."""
    target = Path(out)
    if out != "-" and target.exists():
        msg = f"{out} exists; name another file with -o, or remove it"
        raise ConfigError(msg)
    with status(f"looking at {source}"):
        if is_file(source):
            text, report = first_pipeline(source, *_of_file(Path(source)), name=name)
        else:
            payloads = _sample(source)
            look = look_at(payloads, source)
            parts = _decoded(look, payloads)
            text, report = first_pipeline(source, look, parts, name=name, topic=source)
    if out == "-":
        sys.stdout.write(text)
    else:
        target.write_text(text, encoding="utf-8")
    shown = out if out != "-" else "pipeline.yaml"
    for line in (
        *report,
        f"next: streamad validate {shown}",
        f"      streamad backtest {shown} {source} -o alerts.jsonl --plot alerts.html",
        f"      streamad run {shown}",
    ):
        say(line)


def first_pipeline(
    source: str,
    look: Look,
    parts: Sequence[Decoded],
    *,
    name: str | None = None,
    topic: str | None = None,
) -> tuple[str, list[str]]:
    """Return the text of a pipeline for decoded input, and what there is to report of it."""
    account = Account()
    for part in parts:
        account.reject(part.rejected)
    batch = joined([part.batch for part in parts])
    if not len(batch):
        msg = f"{source}: not one row can be used: {account.rejections()}"
        raise ConfigError(msg)
    found = measure(batch)
    stem = Path(source).name.partition(".")[0] if topic is None else source
    called = name or re.sub(r"[^A-Za-z0-9._-]+", "-", stem).strip("-") or "pipeline"
    text = pipeline_text(called, source, topic or called, look, found)
    parse_pipeline(text)
    span = duration(found.span_ms)
    report = [f"{found.n_rows:,} readings of {found.n_keys:,} series over {span}"]
    if account.rejected:
        report.append(account.rejections())
    return text, report


def _of_file(path: Path) -> tuple[Look, list[Decoded]]:
    look, messages = look_at_file(path)
    if messages:
        return look, _decoded(look, messages)
    return look, list(read_series(path, look.fields).batches)


def _decoded(look: Look, payloads: Sequence[bytes | None]) -> list[Decoded]:
    codec = make_codec(look.format, look.fields or FieldMap())
    n = len(payloads)
    return [codec.decode(list(payloads), np.arange(n, dtype=np.int64), np.full(n, -1, np.int64))]


def _sample(topic: str) -> list[bytes | None]:
    """Return the newest messages of each partition of a topic."""
    from connectors.kafka.log import KafkaLog

    log = KafkaLog(kafka_settings(environment()), group="streamad.init")
    try:
        bounds = log.bounds(topic)
        if not bounds:
            msg = f"there is no file and no topic {topic!r}"
            raise ConfigError(msg)
        each = max(1, MAX_RECORDS // len(bounds))
        found: list[bytes | None] = []
        for place, (first, stop) in sorted(bounds.items()):
            for part in log.read(place, max(first, stop - each), stop):
                found += part.payloads
        return found
    finally:
        log.close()
