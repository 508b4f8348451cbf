"""The command: look, measure, write, and say what comes next."""

from __future__ import annotations

import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from connectors.codecs import FieldMap, make_codec
from connectors.codecs.cloudevents import CloudEventsCodec
from connectors.files import read_series
from jobs.console import say, status
from jobs.init.items import FINDERS
from jobs.init.look import MAX_RECORDS, Look, look_at, look_at_file
from jobs.init.measure import measure
from jobs.init.text import items_text, pipeline_text
from jobs.offline.judged import Account
from jobs.offline.replay import is_file, joined
from jobs.settings import environment, kafka_settings
from streamad.config import parse_pipeline
from streamad.errors import ConfigError
from streamad.ports import Messages
from streamad.records import Decoded, RecordBatch
from streamad.wording import duration

RECORDS = ("signals", *FINDERS)
MOST_BYTES = 4 * 2**20
"""A larger message is looked at as it is."""


def init_pipeline(source: str, *, out: str, name: str | None, records: str | None = None) -> None:
    """Write a pipeline for a file or a topic.

    records : what its records hold, None to find it
    """
    if records is not None and records not in RECORDS:
        msg = f"--records: {records!r} is none of {', '.join(RECORDS)}"
        raise ConfigError(msg)
    target = Path(out)
    if out != "-" and target.exists():
        msg = f"{out} exists; name another file with -o, or remove it"
        raise ConfigError(msg)
    with status(f"looking at {source}"):
        if is_file(source):
            text, report = first_pipeline(source, *_of_file(Path(source), records), name=name)
        else:
            payloads = _sample(source)
            look = look_at(payloads, source, records)
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
    stem = Path(source).name.partition(".")[0] if topic is None else source
    called = name or _name_of(stem)
    text, report = _written(called, source, topic or called, look, batch)
    parse_pipeline(text)
    if account.rejected:
        report.append(account.rejections())
    return text, report


def _name_of(stem: str) -> str:
    """Return a pipeline's name for a file or a topic: names of topics are made of it.

    >>> _name_of("OpenSSH_2k"), _name_of("log (1)"), _name_of("...")
    ('openssh_2k', 'log-1', 'pipeline')
    """
    plain = re.sub(r"[^a-z0-9._-]+", "-", stem.lower())
    return plain.strip("._-")[:63].strip("._-") or "pipeline"


def _written(
    name: str, source: str, topic: str, look: Look, batch: RecordBatch[Any]
) -> tuple[str, list[str]]:
    """Return the text of the pipeline, and what there is to report."""
    span = duration(int(batch.time_ms.max() - batch.time_ms.min()))
    if look.items is not None:
        keys = batch.keys.n_unique()
        counted = f"{len(batch):,} {look.items.records} of {keys:,} key{'s' if keys != 1 else ''}"
        report = f"{counted} over {span}"
        taken = f"taken for {look.items.records}; --records names another kind"
        text = items_text(
            name, source, topic, look, look.items, report=report, gap_ms=_longest_gap(batch)
        )
        return text, [report, taken, *look.notes]
    found = measure(batch)
    text = pipeline_text(name, source, topic, look, found)
    return text, [f"{found.n_rows:,} readings of {found.n_keys:,} series over {span}"]


def _longest_gap(batch: RecordBatch[Any]) -> int:
    return int(np.diff(np.sort(batch.time_ms), prepend=batch.time_ms.min()).max())


def _of_file(path: Path, records: str | None) -> tuple[Look, list[Decoded]]:
    look, messages = look_at_file(path, records)
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
                found += _structured(part)
        return found
    finally:
        log.close()


def _structured(part: Messages) -> list[bytes | None]:
    """Return payloads with CloudEvents of binary mode in structured form: their headers count."""
    codec = CloudEventsCodec(
        FieldMap(), max_message_bytes=MOST_BYTES, max_rows_per_message=MAX_RECORDS
    )
    return [
        codec.structured(payload, raw.headers or ())
        for payload, raw in zip(part.payloads, part.raw, strict=True)
    ]
