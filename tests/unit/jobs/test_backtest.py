"""A replay gives the alerts there would have been: twice the same, in whatever batches."""

import json
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import orjson
import polars as pl
import pytest

from jobs.build import build_detect
from jobs.offline.backtest import Backtest, Span, count_flaps, replay, spans
from jobs.offline.backtest_command import drawn
from jobs.offline.replay import Part, between, joined, read_file, read_topic
from jobs.report.command import facts
from streamad.config import PipelineConfig, parse_pipeline
from streamad.errors import ConfigError
from streamad.ports import Messages, Source
from streamad.records import Decoded
from streamad.testing.batches import cut, make_columns

T0 = 1_700_000_000_000
TEXT = "name: hosts\nwindows: {size: 40}\ndetector: knn\nscoring: {min_windows: 0}\n"
SOURCE = Source("file", 0)


@pytest.fixture(scope="module")
def config() -> PipelineConfig:
    return parse_pipeline(TEXT)


def rows(n: int = 900) -> list[tuple[str, int, float]]:
    rng = np.random.default_rng(0)
    made = []
    for i in range(n):
        for host in ("a", "b"):
            value = 50 + 10 * np.sin(2 * np.pi * i / 40) + rng.normal()
            if host == "a" and 700 <= i < 715:
                value += 300
            made.append((host, T0 + i * 10_000, round(float(value), 3)))
    return made


def batch():
    keys, times, values = zip(*rows(), strict=True)
    return make_columns(keys, times, values)


def parts(*sizes: int) -> Iterator[Part]:
    for piece in cut(batch(), sizes):
        yield Part(source=SOURCE, decoded=Decoded(batch=piece, rejected=[]))


def run(config: PipelineConfig, pieces: Iterable[Part], **options: object) -> Backtest:
    return replay(build_detect(config), pieces, **options)  # type: ignore[arg-type]


def test_a_replay_finds_the_disturbance_and_its_end(config: PipelineConfig):
    made = run(config, parts())
    (span,) = spans(made.alerts)
    assert span.key == "a"
    assert T0 + 6_990_000 <= span.opened_ms <= T0 + 7_600_000
    assert span.resolved_ms is not None
    assert made.counts["points"] == 1800
    assert set(made.keys) == {"a", "b"}
    assert not any(alert.past for alert in made.alerts)


@pytest.mark.parametrize("sizes", [(1,) * 50, (7, 100, 1000), (1799,)])
def test_batches_decide_nothing_and_a_second_replay_is_the_first(
    config: PipelineConfig, sizes: tuple[int, ...]
):
    whole = [orjson.dumps(alert) for alert in run(config, parts()).alerts]
    assert [orjson.dumps(alert) for alert in run(config, parts()).alerts] == whole
    assert [orjson.dumps(alert) for alert in run(config, parts(*sizes)).alerts] == whole


def test_only_the_time_that_was_asked_for_is_replayed(config: PipelineConfig):
    made = run(config, parts(), begin_ms=T0 + 1_000_000, end_ms=T0 + 2_000_000)
    assert (made.first_ms, made.last_ms) == (T0 + 1_000_000, T0 + 1_990_000)
    assert made.counts["points"] == 200


def test_the_same_rows_from_any_kind_of_file_give_the_same_alerts(
    config: PipelineConfig, tmp_path: Path
):
    frame = pl.DataFrame(rows(), schema=["key", "ts", "value"], orient="row")
    frame.write_csv(tmp_path / "in.csv")
    frame.write_parquet(tmp_path / "in.parquet")
    frame.write_ndjson(tmp_path / "in.jsonl")
    expected = [orjson.dumps(alert.summary) for alert in run(config, parts()).alerts]
    assert expected
    for name in ("in.csv", "in.parquet", "in.jsonl"):
        made = run(config, read_file(tmp_path / name, config))
        assert [orjson.dumps(alert.summary) for alert in made.alerts] == expected


def test_bad_lines_are_counted_and_the_rest_is_read(config: PipelineConfig, tmp_path: Path):
    lines = [json.dumps({"key": k, "ts": t, "value": v}) for k, t, v in rows(50)]
    lines[3] = "{not json"
    lines[5] = json.dumps({"key": "a", "ts": "noon", "value": 1})
    (tmp_path / "in.jsonl").write_text("\n".join(lines))
    made = run(config, read_file(tmp_path / "in.jsonl", config))
    assert (made.counts["points"], made.account.rejected.total()) == (98, 2)


def test_a_file_without_the_key_column_is_one_series_named_after_it(
    config: PipelineConfig, tmp_path: Path
):
    pl.DataFrame({"ts": [T0, T0 + 1], "value": [1.0, 2.0]}).write_csv(tmp_path / "pump.csv")
    (part,) = read_file(tmp_path / "pump.csv", config)
    assert part.decoded.batch.keys.to_list() == ["pump", "pump"]


class FakeLog:
    """Two partitions of a topic, as a broker would give them."""

    def __init__(self, partitions: list[list[bytes]]) -> None:
        self._partitions = partitions

    def bounds(self, topic: str) -> dict[Source, tuple[int, int]]:
        if topic != "metrics":
            return {}
        return {Source(topic, p): (0, len(held)) for p, held in enumerate(self._partitions)}

    def offset_at(self, source: Source, time_ms: int) -> int:
        return 0

    def read(self, source: Source, start: int, stop: int) -> Iterator[Messages]:
        held = self._partitions[source.partition][start:stop]
        offsets = np.arange(start, stop, dtype=np.int64)
        for at in range(0, len(held), 500):
            part = slice(at, at + 500)
            yield Messages(
                source=source,
                payloads=list(held[part]),
                offsets=offsets[part],
                broker_ms=np.full(len(held[part]), T0 + 10**9, np.int64),
                raw=[],
            )


def test_a_topic_gives_the_alerts_a_file_of_the_same_rows_gives(config: PipelineConfig):
    held: list[list[bytes]] = [[], []]
    for key, time_ms, value in rows():
        record = {"key": key, "ts": time_ms, "value": value}
        held[key == "b"].append(orjson.dumps(record))
    made = run(config, read_topic(FakeLog(held), "metrics", config, begin_ms=None))
    expected = [(a.id, a.state, a.summary) for a in run(config, parts()).alerts]
    assert [(a.id, a.state, a.summary) for a in made.alerts] == expected


def test_a_source_that_is_neither_file_nor_topic_is_refused(config: PipelineConfig):
    with pytest.raises(ConfigError, match="no file and no topic 'metrisc'"):
        list(read_topic(FakeLog([[]]), "metrisc", config, begin_ms=None))


def test_batches_are_joined_as_one():
    whole = batch()
    again = joined(list(cut(whole, [5, 100])))
    assert again.keys.equals(whole.keys)
    assert (again.values == whole.values).all()
    assert again.offsets[again.message].tolist()[:3] == [0, 1, 2]


def test_rows_outside_of_a_time_are_left_out():
    assert len(between(batch(), T0 + 10_000, T0 + 20_000)) == 2
    assert between(batch(), None, None) is not None


def span(opened: int, resolved: int | None, key: str = "a") -> Span:
    return Span(
        id=str(opened),
        key=key,
        kind="anomaly",
        opened_ms=opened,
        resolved_ms=resolved,
        peak_severity=2.0,
        summary="",
    )


def test_a_flap_is_an_alert_that_comes_right_back():
    found = [span(0, 10), span(12, 20), span(500, 510), span(511, 520, key="b"), span(513, None)]
    assert count_flaps(found, within_ms=5) == 2


def test_the_report_names_what_matters(config: PipelineConfig):
    made = run(config, parts())
    told = dict(facts(made, build_detect(config)))
    assert told["alerts"].startswith("1: ")
    assert "a at 2023-11-15 00:" in told["longest"]
    empty = dict(facts(Backtest(), build_detect(config)))
    assert empty["alerts"] == "0: 0.00 per day"


def test_the_picture_shows_series_and_alerts_and_escapes_names():
    config = parse_pipeline(TEXT)
    batches = batch()
    named = replace(batches, keys=batches.keys.replace("a", "<script>"))
    made = run(
        config,
        [Part(source=SOURCE, decoded=Decoded(batch=named, rejected=[]))],
        keep_points=True,
        keep_scores=True,
    )
    picture = drawn(made, config, as_html=False)
    ElementTree.fromstring(picture)  # noqa: S314 our own
    assert picture.startswith("<svg")
    assert picture.count("<polyline") == 1
    assert "1 other series are not drawn" in picture
    assert picture.count('class="band"') == 2, "one, and its place in the legend"
    page = drawn(made, config, as_html=True)
    assert page.startswith("<!doctype html>")
    assert "<script>" not in page


def test_a_picture_of_nothing_is_drawn_as_well(config: PipelineConfig):
    ElementTree.fromstring(drawn(Backtest(), config, as_html=False))  # noqa: S314 our own


def wide(path: Path, *, time: str = "Time") -> None:
    times = pl.from_epoch(pl.Series([T0 // 1000 + 60 * i for i in range(200)]))
    pl.DataFrame({time: times, "cpu": [1.0] * 200, "mem": [2.0] * 200}).write_csv(path)


def test_a_wide_file_gives_a_series_a_column_to_a_pipeline_that_names_none(
    config: PipelineConfig, tmp_path: Path
):
    wide(tmp_path / "in.csv")
    notes: list[str] = []
    made = run(config, read_file(tmp_path / "in.csv", config, notes=notes))
    assert set(made.keys) == {"cpu", "mem"}
    assert made.counts["points"] == 400
    assert "the time is Time" in notes


def test_a_query_of_prometheus_is_replayed_by_any_pipeline(config: PipelineConfig, tmp_path: Path):
    samples = [[T0 // 1000 + 60 * i, "1.5"] for i in range(50)]
    results = [{"metric": {"__name__": "up", "job": job}, "values": samples} for job in "ab"]
    document = {"status": "success", "data": {"resultType": "matrix", "result": results}}
    (tmp_path / "in.json").write_text(json.dumps(document))
    made = run(config, read_file(tmp_path / "in.json", config))
    assert set(made.keys) == {'up{job="a"}', 'up{job="b"}'}
    assert made.counts["points"] == 100


def test_a_column_that_the_pipeline_names_itself_must_be_there(tmp_path: Path):
    config = parse_pipeline("{name: t, input: {fields: {time: at}}, detector: robust_z}")
    wide(tmp_path / "in.csv")
    with pytest.raises(ConfigError, match=r"in\.csv has no column 'at'"):
        run(config, read_file(tmp_path / "in.csv", config))


def otlp(ms: int, value: float) -> dict[str, Any]:
    point = {"timeUnixNano": str(ms * 1_000_000), "asDouble": value}
    metric = {"name": "load", "gauge": {"dataPoints": [point]}}
    return {"resourceMetrics": [{"scopeMetrics": [{"metrics": [metric]}]}]}


@pytest.mark.parametrize("one", [False, True])
def test_messages_in_a_file_are_read_by_the_pipelines_own_decoder(tmp_path: Path, *, one: bool):
    config = parse_pipeline("{name: t, input: {format: otlp_json}, detector: robust_z}")
    messages = [otlp(T0 + i * 1000, i) for i in range(1 if one else 5)]
    text = "\n".join(json.dumps(m, indent=2 if one else None) for m in messages)
    (tmp_path / "in.json").write_text(text)
    made = run(config, read_file(tmp_path / "in.json", config))
    assert (made.counts["points"], set(made.keys)) == (len(messages), {"load"})
