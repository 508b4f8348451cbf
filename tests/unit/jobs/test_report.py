"""The report of a back-test: its numbers are those of the desk, and nothing in it obeys a key."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import orjson
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jobs.build import build_detect
from jobs.offline.backtest import Backtest, Decided, decide, in_order, replay
from jobs.offline.replay import Part
from jobs.pictures.sparkline import sparkline
from jobs.report.budgets import Budgets, Tried
from jobs.report.labels import Anomaly, Labels, detect
from jobs.report.measure import Inputs, measure
from jobs.report.page import page
from jobs.report.pictures import Pictures
from jobs.report.records import Report
from jobs.report.watch import Watch
from streamad.alerting.config import AlertingConfig, BudgetConfig, IncidentsConfig
from streamad.config import PipelineConfig, parse_pipeline
from streamad.ports import Source
from streamad.records import Decoded, Finding
from streamad.runtime.embedded import EmbeddedPipeline, Hooks
from streamad.shown import safe_text
from streamad.testing.batches import cut, make_batch
from tests.unit.paging.findings import BEGIN_MS, DAY_MS, HOUR_MS, MINUTE_MS, WEEK_MS, episode

CONFIG = parse_pipeline("{name: hosts, input: {topics: metrics}}")
WEEKS = 5


def made_findings() -> list[Finding]:
    """Return five weeks of ordinary episodes, and one strong one a week at a known time."""
    rng = np.random.default_rng(5)
    made = []
    for at in np.sort(rng.random(120)) * WEEKS:
        decades = 3.6 + rng.exponential(0.5)
        made += episode(f"host-{rng.integers(20)}/cpu", BEGIN_MS + int(at * WEEK_MS), decades)
    for week in range(1, WEEKS):
        made += episode("db-1/latency", BEGIN_MS + week * WEEK_MS + 2 * DAY_MS, 14.0)
    in_order(made)
    return made


def reported(
    findings: list[Finding], *, budgets: tuple[float | None, ...] = (None, 2.0, 10.0),
    anomalies: list[Anomaly] | None = None, config: AlertingConfig | None = None,
) -> Report:  # fmt: skip
    config = config or AlertingConfig.of(CONFIG)
    tried = []
    for at, pages in enumerate(budgets):
        budget = config.budget.model_copy(update={"pages": pages})
        decided = decide(config.model_copy(update={"budget": budget}), findings)
        tried.append(Tried(name=str(pages), asked=pages, configured=at == 1, decided=decided))
    chosen = next(one for one in tried if one.configured)
    keys = {f.key: (BEGIN_MS, BEGIN_MS + WEEKS * WEEK_MS) for f in findings}
    backtest = Backtest(
        decided=chosen.decided, findings=findings, keys=keys, first_ms=BEGIN_MS,
        last_ms=BEGIN_MS + WEEKS * WEEK_MS - 1, window_ms=10 * MINUTE_MS,
    )  # fmt: skip
    return measure(
        Inputs(
            made=backtest, watch=Watch(), tried=tried, config=CONFIG, source="made", soak_ms=0,
            gap_ms=5 * MINUTE_MS, label=None if anomalies is None else "label",
            anomalies=anomalies,
        )
    )  # fmt: skip


def test_counts_are_those_of_the_desks_own_records():
    findings = made_findings()
    report = reported(findings)
    for one in report.outcomes:
        update = {"pages": one.asked}
        config = AlertingConfig.of(CONFIG)
        budget = config.budget.model_copy(update=update)
        out = decide(config.model_copy(update={"budget": budget}), findings)
        last = {record.id: record for record in out.incidents}.values()
        weeks = Counter((r.paged_ms - BEGIN_MS) // WEEK_MS for r in last if r.paged_ms is not None)
        held = Counter(r.withheld for r in last if r.paged_ms is None)
        assert one.pages == weeks.total() > 0
        assert one.by_week == tuple(weeks[week] for week in range(WEEKS))
        assert (len(one.by_day), sum(one.by_day)) == (7 * WEEKS, one.pages)
        assert one.withheld == dict(held)
        assert sum(one.withheld_by_week) == held.total() == one.incidents - one.pages
        assert one.per_week == pytest.approx(one.pages / WEEKS)
        assert one.alerts == len({alert.id for alert in out.alerts})
    assert [one.asked for one in report.outcomes] == [None, 2, 10]
    assert report.outcomes[0].pages > report.outcomes[2].pages > report.outcomes[1].pages
    first = report.incidents[0]
    assert first.leader == "db-1/latency"
    assert first.paged_ms is not None
    assert report.top_keys[0].pages == max(key.pages for key in report.top_keys)


def test_an_anomaly_is_found_by_a_page_of_its_own_time_alone():
    at = [BEGIN_MS + week * WEEK_MS + 2 * DAY_MS for week in range(1, WEEKS)]
    planted = [Anomaly(keys=("db-1/latency",), begin_ms=ms - 3 * MINUTE_MS, end_ms=ms) for ms in at]
    elsewhere = Anomaly(keys=("web-9/cpu",), begin_ms=at[0], end_ms=at[0])
    nothing = Anomaly(keys=("db-1/latency",), begin_ms=BEGIN_MS, end_ms=BEGIN_MS + HOUR_MS)
    report = reported(made_findings(), anomalies=[*planted, elsewhere, nothing])
    one = report.configured
    assert (one.found, one.found_withheld, one.missed) == (4, 0, 2)
    assert (one.true_pages, one.false_pages) == (4, one.pages - 4)
    assert one.delay_ms == 3 * MINUTE_MS
    # What was planted is the most severe there is.
    assert one.c_index_strength == 1.0
    assert one.c_index == pytest.approx(1.0, abs=0.1)
    assert [line.fate for line in report.anomalies] == ["missed"] * 2 + ["paged"] * 4
    assert {line.real for line in report.incidents if line.leader == "db-1/latency"} == {True}


def test_an_alert_that_was_open_finds_nothing_that_begins_later():
    config = AlertingConfig.of(CONFIG)
    found = episode("a/cpu", BEGIN_MS, 12.0, length_ms=6 * HOUR_MS)
    incidents = decide(config, found).incidents
    later = Anomaly(keys=("a/cpu",), begin_ms=BEGIN_MS + HOUR_MS, end_ms=BEGIN_MS + 2 * HOUR_MS)
    own = Anomaly(keys=("a/cpu",), begin_ms=BEGIN_MS - HOUR_MS, end_ms=BEGIN_MS + HOUR_MS)
    told = detect([later, own], {incidents[0].id: incidents}, slack_ms=0)
    assert [fate.what for fate in told.fates] == ["missed", "paged"]
    assert (told.true_pages, told.false_pages) == (1, 0)


def test_labels_are_runs_of_rows_whatever_the_batches_and_never_reach_the_operator():
    marks = [0, 1, 1, 0, 0, 1, 0, 1]
    rows = [(key, t * 1000, 1.0) for t in range(8) for key in ("a", "b")]
    whole = make_batch(rows)
    texts = [str(mark) if key == "a" or t == 7 else "" for t, mark in enumerate(marks)
             for key in ("a", "b")]  # fmt: skip
    whole = replace(whole, tags={"label": pl.Series(texts), "team": whole.keys})
    expected = [
        Anomaly(keys=("a",), begin_ms=1000, end_ms=2000),
        Anomaly(keys=("a",), begin_ms=5000, end_ms=5000),
        Anomaly(keys=("a", "b"), begin_ms=7000, end_ms=7000),
    ]
    for sizes in ((), (1,) * 16, (3, 2, 5), (5, 6)):
        labels = Labels("label")
        parts = (
            Part(source=Source("f", 0), decoded=Decoded(batch=piece, rejected=[]))
            for piece in cut(whole, sizes)
        )
        passed = list(labels.taken(parts, CONFIG))
        assert all(set(part.decoded.batch.tags) == {"team"} for part in passed)
        assert labels.anomalies(begin_ms=None, end_ms=None) == expected
        assert labels.anomalies(begin_ms=3000, end_ms=6000) == expected[1:2]


# ------------------------------------------------------------------ a real run

PIPELINE = """
name: hosts
input: {topics: metrics}
windows: {size: 32}
detector: robust_z
scoring: {min_windows: 8}
"""
STEP_MS = 10 * MINUTE_MS


def series() -> list[tuple[str, int, float]]:
    """Return two weeks of three hosts with disturbances of all sizes."""
    rng = np.random.default_rng(8)
    n = 14 * 144
    made = rng.normal(50, 2, (n, 3))
    for at in rng.integers(300, n - 10, 40):
        made[at : at + rng.integers(1, 9), rng.integers(3)] += rng.uniform(8, 60)
    return [
        (f"h{host}", BEGIN_MS + t * STEP_MS, float(made[t, host]))
        for t in range(n)
        for host in range(3)
    ]


def pipeline(budget: str | None) -> PipelineConfig:
    text = PIPELINE if budget is None else f"{PIPELINE}alerts: {{budget: {budget}}}\n"
    return parse_pipeline(text)


def parts(*sizes: int) -> Iterator[Part]:
    for piece in cut(make_batch(series()), sizes):
        yield Part(source=Source("f", 0), decoded=Decoded(batch=piece, rejected=[]))


@pytest.fixture(scope="module")
def runs() -> dict[str | None, Backtest]:
    return {
        budget: replay(build_detect(pipeline(budget)), parts())
        for budget in (None, "5 per week", "20 per week")
    }


def pages_of(decided: Decided) -> dict[str, int | None]:
    return {record.id: record.paged_ms for record in decided.incidents}


@pytest.mark.parametrize("configured", [None, "5 per week"])
def test_other_budgets_decide_as_runs_of_their_own_would_without_scoring_again(
    runs: dict[str | None, Backtest], configured: str | None, monkeypatch: pytest.MonkeyPatch
):
    operator, scored = build_detect(pipeline(configured)), Counter[str]()
    budgets, model = Budgets(operator), type(operator.detector).looks

    def looks(self: Any, values: Any, **given: Any) -> Any:
        scored["windows"] += len(values)
        return model(self, values, **given)

    monkeypatch.setattr(type(operator.detector), "looks", looks)
    made = replay(operator, parts(700, 50, 1), watch=budgets)
    judged = sum(n for name, n in made.counts.items() if name == "windows")
    assert scored["windows"] <= judged
    tried = {
        one.asked: one for one in budgets.tried(made.findings, made.decided, end_ms=made.last_ms)
    }
    assert list(tried) == [None, 1, 2, 5, 10, 20, 50]
    for budget, own in runs.items():
        asked = None if budget is None else float(budget.split()[0])
        assert pages_of(tried[asked].decided) == pages_of(own.decided)
        assert tried[asked].configured == (budget == configured)
    assert len(pages_of(tried[20].decided)) > len(pages_of(tried[1].decided)) > 0


def test_what_the_report_counts_is_what_the_live_pipeline_pages(runs: dict[str | None, Backtest]):
    config = pipeline("5 per week")
    now, live = [0], {}

    def note(record: Any) -> None:
        live[record.id] = record.paged_ms

    running = EmbeddedPipeline(
        config, build_detect(config), clock=lambda: now[0], hooks=Hooks(incident=note)
    )
    rows = series()
    for start in range(0, len(rows), 3):
        now[0] = rows[start][1]
        running.feed(make_batch(rows[start : start + 3], offset=start))
        running.tick(now[0])
    counted = pages_of(runs["5 per week"].decided)
    assert live.keys() == counted.keys()
    assert {name for name, ms in live.items() if ms} == {n for n, ms in counted.items() if ms}
    # What is held back pages as time passes: at the next tick, of the one or of the other.
    late_ms = [abs(ms - (counted[name] or 0)) for name, ms in live.items() if ms is not None]
    assert max(late_ms) <= 30 * MINUTE_MS
    assert sum(ms > 0 for ms in late_ms) <= 3
    assert len(late_ms) >= 5


def test_a_watch_knows_first_scores_and_how_rare_windows_were():
    watch = Watch()
    made = replay(build_detect(pipeline(None)), parts(100, 7), watch=watch, keep_scores=True)
    p = np.concatenate([scores.p_value for scores in made.scores])
    known = np.isfinite(p)
    windows = watch.windows()
    assert watch.n_windows == len(windows) == known.sum()
    assert np.array_equal(np.sort(windows["p"].to_numpy()), np.sort(p[known]))
    for key, first_ms in watch.first_judged.items():
        ends = np.concatenate([s.end_ms[np.isfinite(s.p_value) & (s.keys == key).to_numpy()]
                               for s in made.scores])  # fmt: skip
        assert first_ms == ends.min()
    assert watch.n_rows == sum(map(len, watch.rows)) == len(series())


# ------------------------------------------------------------------ the page

ALLOWED = {
    "html", "head", "meta", "title", "style", "body", "main", "section", "h1", "h2", "p", "div",
    "span", "b", "br", "code", "table", "tr", "th", "td", "svg", "rect", "line", "polyline",
    "details", "summary", "dl", "dt", "dd", "a",
}  # fmt: skip
VOID = {"meta", "br", "rect", "line", "polyline"}


class Reader(HTMLParser):
    """Read a page as a browser would; collect what matters and require that tags pair."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.attributes: set[str] = set()
        self.links: list[str] = []
        self.shown: list[str] = []
        self.feed(text)
        assert not self.open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert tag in ALLOWED, tag
        self.attributes |= {name for name, _ in attrs}
        self.links += [value or "" for name, value in attrs if name in {"href", "src"}]
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag not in VOID:
            assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.shown.append(data)


NASTY = st.one_of(
    st.text(min_size=1, max_size=60),
    st.sampled_from(
        [
            "<script>alert(1)</script>", "</style><img src=x onerror=alert(1)>", "\x1b[2J\x07",
            "\"' onmouseover='x", "a\u202eb", "&lt;b&gt;", "javascript:alert(1)",
        ]
    ),
)  # fmt: skip


@settings(max_examples=40, deadline=None)
@given(NASTY, NASTY, NASTY)
def test_no_key_name_or_reason_becomes_markup(key: str, reason: str, column: str):
    findings = episode(
        key, BEGIN_MS + DAY_MS, 12.0, entity={"host": key}, group=reason, degraded=reason,
        detector=column, artifact=reason,
    )  # fmt: skip
    report = reported(findings, anomalies=[Anomaly(keys=(key,), begin_ms=0, end_ms=BEGIN_MS)])
    report = replace(
        report, label=column, source=reason, rejected={reason: 3}, details={reason: key},
        notes=(reason,), degraded=reason,
    )  # fmt: skip
    at = np.arange(9) * MINUTE_MS + BEGIN_MS + DAY_MS
    drawn = sparkline(at, np.arange(9.0), event_ms=(int(at[3]), int(at[5])), name=key)
    text = page(report, {report.incidents[0].id: drawn})
    text.encode("utf-8")
    read = Reader(text)
    assert not {name for name in read.attributes if name.startswith("on") or name == "style"}
    assert read.links == []
    assert not {char for char in text if ord(char) < 32} - {"\n"}
    assert "\x1b" not in text
    assert "\u202e" not in text
    assert safe_text(key, 90).strip() in "".join(read.shown)


def test_the_page_loads_nothing_and_links_only_where_settings_say():
    template = "https://grafana.example.org/d/x?host={host}"
    alerts = {"links": {"dashboard": template}}
    config = AlertingConfig.model_validate({"name": "h", "findings": "f", "alerts": alerts,
                                            "budget": {"pages": "2 per week"}})  # fmt: skip
    report = reported(made_findings(), config=config)
    text = page(report, {})
    read = Reader(text)
    assert set(read.links) >= {"https://grafana.example.org/d/x?host=db-1"}
    assert all(one.startswith("https://grafana.example.org/d/x?host=") for one in read.links)
    lowered = text.lower()
    for word in ("<script", "<link", "<img", "<iframe", "url(", "@import", "javascript:"):
        assert word not in lowered
    assert "default-src 'none'" in text
    assert "prefers-color-scheme:dark" in text


def test_the_report_as_json_has_no_number_that_json_lacks():
    body = json.loads(orjson.dumps(reported(made_findings())))
    assert [one["configured"] for one in body["outcomes"]] == [False, True, False]
    assert body["incidents"][0]["leader"] == "db-1/latency"


def test_a_replay_without_a_row_or_an_alert_is_a_page_too():
    report = reported([])
    assert report.configured.pages == 0
    Reader(page(replace(report, first_ms=None, last_ms=None, weeks=0.0), {}))
    Reader(page(report, {}))


# ------------------------------------------------------------------ small pictures


def test_a_sparkline_shows_every_spike_the_event_and_what_was_expected():
    n = 5000
    values = np.zeros(n)
    values[1234] = 9.0
    at = np.arange(n) * 1000
    svg = sparkline(at, values, event_ms=(1_234_000, 1_240_000), expected=0.5, name="a<b")
    root = ElementTree.fromstring(svg)  # noqa: S314 - our own text
    (line,) = (one for one in root if one.tag.endswith("polyline"))
    points = [tuple(map(float, pair.split(","))) for pair in line.attrib["points"].split()]
    assert min(y for _, y in points) == pytest.approx(4.0), "the spike reaches the top"
    assert len(points) < 700
    assert "a&lt;b: 0 to 9, expected about 0.5" in svg
    band = next(one for one in root if one.tag.endswith("rect"))
    assert float(band.attrib["x"]) == pytest.approx(4 + 292 * 1234 / 4999, abs=0.1)


@pytest.mark.parametrize("values", [[1.0], [2.0, 2.0, 2.0], [math.nan, 1.0, math.inf]])
def test_a_sparkline_of_little_is_drawn_still(values: list[float]):
    svg = sparkline(np.arange(len(values)) * 10, np.array(values), event_ms=(0, 10))
    ElementTree.fromstring(svg)  # noqa: S314 - our own text
    assert "nan" not in svg
    assert "inf" not in svg


def test_pictures_are_of_the_leaders_and_of_the_variate_that_scored():
    report = reported(made_findings())
    leader = report.incidents[0]
    rows = [("db-1/latency", leader.began_ms + t * MINUTE_MS, (1.0, float(t == 0)))
            for t in range(-30, 30)]  # fmt: skip
    report = replace(report, incidents=(replace(leader, shares={"b": 0.9, "a": 0.1}),))
    drawn = Pictures([make_batch(rows)], ("a", "b"), "signals").of(report, window_ms=HOUR_MS)
    assert "db-1/latency b: 0 to 1" in drawn[leader.id]


# ------------------------------------------------------------------ the command


def test_mistakes_are_found_before_the_replay(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    from jobs import cli

    rows = "\n".join(f"a,{t * 60_000},{t % 7},0" for t in range(200))
    data, file = tmp_path / "in.csv", tmp_path / "p.yaml"
    data.write_text(f"key,ts,value,is_bad\n{rows}\n")
    file.write_text(PIPELINE)
    given = ["backtest", str(file), str(data), "-o", str(tmp_path / "a.jsonl")]
    assert cli.main([*given, "--report", "x.pdf"]) == 2
    assert "reports are written as .html or .json" in capsys.readouterr().err
    assert cli.main([*given, "--label", "is_bad"]) == 2
    assert "--label is for --report" in capsys.readouterr().err
    out = tmp_path / "r.html"
    assert cli.main([*given, "--report", str(out), "--label", "is_bat"]) == 2
    assert "is_bad" in capsys.readouterr().err
    made = tmp_path / "r.json"
    code = cli.main([*given, "--report", str(out), "--report", str(made), "--label", "is_bad"])
    assert code == 0, capsys.readouterr().err
    Reader(out.read_text())
    body = json.loads(made.read_text())
    assert (body["label"], body["n_anomalies"], body["points"]) == ("is_bad", 0, 200)


def test_time_passes_between_findings_as_it_does_live():
    config = AlertingConfig.of(CONFIG).model_copy(update={"incidents": IncidentsConfig(hold="20m")})
    config = config.model_copy(
        update={"budget": BudgetConfig(kinds=("no_data",), digest_every="1d")}
    )
    began, *rest = episode("a/cpu", BEGIN_MS + HOUR_MS, 9.0)
    late = episode("b/cpu", BEGIN_MS + 9 * DAY_MS, 9.0)
    decided = decide(config, [began, *rest, *late], end_ms=BEGIN_MS + 10 * DAY_MS)
    first = [one for one in decided.incidents if one.members[0].key == "a/cpu"]
    assert first[-1].state == "resolved"
    # Its own time and not that of the next finding, nine days later.
    written = [one.to_ms for one in decided.digests]
    assert BEGIN_MS + DAY_MS <= written[0] <= BEGIN_MS + 2.5 * DAY_MS
