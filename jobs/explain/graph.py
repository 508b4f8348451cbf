"""The graph of an explained window, cut again out of the pipeline's input."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from jobs.explain.account import Account
from jobs.offline.replay import between, codec_of, is_file, read_file
from jobs.pictures.graphs import graph_of, picture_of, title_of, window_of
from jobs.settings import environment, kafka_settings
from streamad.config import PipelineConfig
from streamad.ports import Log
from streamad.records import RecordBatch
from streamad.runtime.decoding import decode


def picture_for(account: Account, config: PipelineConfig, *, source: str | None) -> str:
    """Return the graph of an account's window as SVG.

    Of an episode it is the graph of the finding that is explained, so that what is marked is of it.

    source : a file or a topic; None: the pipeline's topics

    Raises
    ------
    ConfigError
        where the input holds no edge of that window any more
    """
    finding, why = account.finding, None
    end = account.window_end_ms
    window = (end + 1 - config.graphs.span, end)
    if finding is not None and finding.kind == "anomaly":
        window, why = window_of(finding, config), finding.explanation
    graph = graph_of(_edges(config, source, window), account.key, window, config)
    return picture_of(graph, 0, title=title_of(account.key, window), why=why)


def _edges(
    config: PipelineConfig, source: str | None, window: tuple[int, int]
) -> Iterator[RecordBatch[Any]]:
    """Yield the rows of an input about a window."""
    if source is not None and is_file(source):
        for part in read_file(Path(source), config):
            yield between(part.decoded.batch, window[0], window[1] + 1)
        return
    from connectors.kafka.log import KafkaLog

    log = KafkaLog(kafka_settings(environment()), group=f"streamad.{config.name}.explain")
    try:
        for topic in (source,) if source is not None else config.input.topics:
            yield from edges_of_topic(log, topic, config, window)
    finally:
        log.close()


def edges_of_topic(
    log: Log, topic: str, config: PipelineConfig, window: tuple[int, int]
) -> Iterator[RecordBatch[Any]]:
    """Yield the rows of a window from a topic.

    A record is written up to ``series.max_ahead`` before its time, and after it as late as it may
    be; a partition is read until a whole read lies past that.
    """
    codec = codec_of(config)
    ahead, late = config.series.max_ahead, config.series.lateness + config.graphs.span
    for place, (first, stop) in sorted(log.bounds(topic).items()):
        start = max(first, log.offset_at(place, max(0, window[0] - ahead)))
        for messages in log.read(place, start, stop):
            batch = decode(codec, messages, pipeline=config.name).batch
            yield between(batch, window[0], window[1] + 1)
            if len(batch) and int(batch.time_ms.min()) > window[1] + late:
                break
