"""`streamad explain`: why there was an alert, or none, by the settings that decided."""

from __future__ import annotations

import io
import json
from dataclasses import replace

import numpy as np
import orjson
import polars as pl
import pytest
from rich.console import Console

from jobs.cli import main
from jobs.explain.account import explain_rows
from jobs.explain.sources import COLUMNS, from_files, read_scores
from jobs.explain.view import as_json, panel
from jobs.explain.window import NoSuchWindowError
from jobs.moments import parse_moment
from streamad.alerts.operator import AlertOperator
from streamad.config import PipelineConfig
from streamad.errors import ConfigError
from streamad.records import (
    FLAG_CANDIDATE,
    FLAG_EPISODE,
    FLAG_ERROR,
    FLAG_INCOMPLETE,
    FLAG_SUPPRESSED,
    FLAG_WARMING,
    Explanation,
    Finding,
    ScoreBatch,
    stable_id,
)

NAN = float("nan")
T0 = 1_700_000_000_000
STEP = 60_000


def rows(
    *windows: tuple[float, int],
    key: str = "web-1",
    level: float = 4.0,
    newest: tuple[float, ...] | None = None,
) -> ScoreBatch:
    """Make a log of one key: (score, flags) a minute; a score of NaN has no p-value or level.

    newest : scores of the newest samples, whose level is 2
    """
    score = np.array([w[0] for w in windows], np.float32)
    scored = ~np.isnan(score)
    unknown = np.full(len(windows), np.nan, np.float32)
    late = unknown if newest is None else np.array(newest, np.float32)
    return ScoreBatch(
        keys=pl.Series("key", [key] * len(windows), dtype=pl.String),
        end_ms=T0 + STEP * np.arange(len(windows), dtype=np.int64),
        score=score,
        p_value=np.where(scored, np.exp(-score), np.nan).astype(np.float32),
        level=np.where(scored, level, np.nan).astype(np.float32),
        ordinal=np.arange(len(windows), dtype=np.int64),
        newest=late,
        newest_p=np.exp(-late),
        newest_level=np.where(np.isnan(late), np.nan, 2.0).astype(np.float32),
        severity=(score / 8).astype(np.float32),
        flags=np.array([w[1] for w in windows], np.uint8),
    )


def config(**sections) -> PipelineConfig:
    return PipelineConfig.model_validate({"name": "hosts", **sections})


def finding(at: int, *, state: str = "began", sequence: int = 0, p: float = 1e-6) -> Finding:
    return Finding(
        id=stable_id("hosts", "web-1", 7),
        sequence=sequence,
        state=state,
        kind="anomaly",
        pipeline="hosts",
        detector="knn",
        artifact="",
        tenant="default",
        group="hosts",
        key="web-1",
        entity={"key": "web-1"},
        window_start_ms=T0 + STEP * (at - 9),
        window_end_ms=T0 + STEP * at,
        began_ms=T0 + STEP * (at - sequence),
        score=9.0,
        p_value=p,
        peak_score=9.0,
        peak_p_value=p,
        level=4.0,
        n_windows=1,
        explanation=Explanation(
            observed={"cpu": 97.2}, expected={"cpu": 12.4}, variates={"cpu": 1.0}, time_ms=T0
        ),
        input={"topic": "cpu", "partition": 0, "offset": 5},
    )


def account(scores, at, **kwargs):
    kwargs.setdefault("config", config())
    return explain_rows(scores, key="web-1", at_ms=T0 + STEP * at, **kwargs)


def test_a_score_below_the_level_says_so_with_numbers():
    told = account(rows((1.0, 0), (3.1, 0)), 1)
    assert told.outcome == "ordinary"
    assert told.reasons == (
        "score 3.1 was below its level: p = 0.045; a candidate needs a score of 4 or more",
    )
    assert (told.decided_by, told.newest) == ("centred", None)


def test_the_look_that_decided_is_named_first():
    log = rows((1.0, 0), (1.5, FLAG_CANDIDATE), newest=(0.5, 6.0))
    told = account(log, 1)
    assert told.decided_by == "newest"
    assert told.reasons[:2] == (
        "decided by the look at the newest samples: score 6 reached its level: p = 0.0025; "
        "a candidate needs a score of 2 or more",
        "centred look: score 1.5 was below its level: p = 0.22; "
        "a candidate needs a score of 4 or more",
    )
    assert told.around.score == (0.5, 6.0)
    stream = io.StringIO()
    Console(file=stream, width=120).print(panel(told))
    assert "scores of 2 windows (look at the newest samples)" in stream.getvalue()
    centred = account(rows((9.0, FLAG_CANDIDATE), newest=(0.5,)), 0)
    assert centred.reasons[0].startswith("decided by the centred look: score 9 reached its level")


def test_a_series_that_stands_still_is_a_candidate_below_both_levels():
    told = account(rows((0.1, FLAG_CANDIDATE), newest=(0.2,)), 0)
    assert told.decided_by == "frozen"
    assert "the value did not change" in told.reasons[0]


def test_a_score_at_its_level_that_is_no_candidate_says_why():
    told = account(rows((9.0, 0), newest=(0.2,)), 0)
    assert told.outcome == "ordinary"
    assert "scoring.first_day" in told.reasons[-1]


def test_the_severity_is_that_of_the_window_as_logged():
    log = rows((1.0, 0), (9.0, FLAG_CANDIDATE | FLAG_EPISODE))
    assert account(log, 1, findings=[finding(1, p=1e-9)]).severity == 9 / 8
    assert account(rows((NAN, FLAG_WARMING)), 0).severity is None


@pytest.mark.parametrize(
    ("level", "words"), [("2d", "(scoring.exit = 2d)"), (0.01, "(scoring.exit = 0.01)")]
)
def test_levels_are_written_as_in_the_pipeline(level, words):
    told = account(rows((0.5, FLAG_EPISODE)), 0, config=config(scoring={"exit": level}))
    assert any(words in reason for reason in told.reasons)


@pytest.mark.parametrize(
    ("flag", "words"),
    [
        (FLAG_INCOMPLETE, "more than 20% of its samples were missing (series.gaps.max_share)"),
        (FLAG_WARMING, "was still warming up on this key"),
        (FLAG_ERROR, "the detector failed on it"),
    ],
)
def test_a_window_without_a_score_says_why(flag, words):
    told = account(rows((1.0, 0), (NAN, flag)), 1)
    assert told.outcome == "not_scored"
    assert words in told.reasons[0]
    assert told.score is None


def test_a_suppressed_window_names_the_settings_that_suppress():
    scoring = {"direction": "above", "min_effect": {"absolute": 5, "relative": 0.1}}
    told = account(rows((9.0, FLAG_SUPPRESSED)), 0, config=config(scoring=scoring))
    assert told.outcome == "suppressed"
    assert "it must be above the expected value (scoring.direction)" in told.reasons[1]
    assert "by 5 or more (scoring.min_effect.absolute)" in told.reasons[1]
    assert "by 10% or more (scoring.min_effect.relative)" in told.reasons[1]


def test_a_candidate_that_came_too_seldom_counts_how_often():
    log = rows((9.0, FLAG_CANDIDATE), (1.0, 0), (9.0, FLAG_CANDIDATE), (NAN, FLAG_INCOMPLETE),
               (9.0, FLAG_CANDIDATE))  # fmt: skip
    told = account(log, 4, config=config(scoring={"min_duration": 3}))
    assert told.outcome == "candidate"
    assert "it was consecutive candidate 2, and scoring.min_duration requires 3" in told.reasons[1]


def test_a_finding_below_the_boundary_says_how_far():
    log = rows((1.0, 0), (9.0, FLAG_CANDIDATE | FLAG_EPISODE))
    weekly = config(alerts={"level": "7d"})
    told = account(log, 1, findings=[finding(1, p=4e-4)], config=weekly)
    assert told.outcome == "finding"
    assert told.reasons[0] == (
        "finding, but no alert: peak severity 0.85 < 1.0 "
        "(p = 0.0004; alerts.level = 7d is p = 0.0001 for this key)"
    )


def test_an_alert_is_named_with_its_severity_and_whether_it_pages():
    log = rows((1.0, 0), (9.0, FLAG_CANDIDATE | FLAG_EPISODE), (0.5, FLAG_EPISODE))
    findings = [finding(1), finding(2, state="ended", sequence=1)]
    operator = AlertOperator(config())
    alerts = operator.process(operator.new_state(), [(f, f.window_end_ms) for f in findings])
    told = account(log, 2, findings=findings, alerts=alerts)
    assert told.outcome == "alert"
    assert told.alert.state == "resolved"
    assert told.reasons[0].startswith(f"alert {findings[0].id[:12]} opened at 2023-11-14 22:14:20")
    assert "an episode was open: it ends after scoring.cool_down = 5" in told.reasons[2]
    late = [replace(alert, past=True) for alert in alerts]
    assert "paged nobody" in account(log, 2, findings=findings, alerts=late).reasons[0]


def test_an_alert_that_should_be_there_is_missed():
    log = rows((9.0, FLAG_CANDIDATE | FLAG_EPISODE))
    told = account(log, 0, findings=[finding(0)])
    assert "does the alert stage run" in told.reasons[0]


def test_a_window_after_an_episode_does_not_belong_to_it():
    log = rows((9.0, FLAG_EPISODE), (0.5, FLAG_EPISODE), (0.4, 0))
    told = account(log, 2, findings=[finding(0), finding(1, state="ended", sequence=1)])
    assert told.outcome == "ordinary"
    assert told.finding is None


def test_the_nearest_window_is_told_with_its_distance():
    told = explain_rows(rows((1.0, 0), (2.0, 0)), key="web-1", at_ms=T0 + 80_000, config=config())
    assert told.window_end_ms == T0 + STEP
    assert told.reasons[-1].endswith("UTC, 20 s from the requested time")


def test_silence_and_failures_about_that_time_are_told():
    silent = replace(finding(1), kind="no_data", reason="no data for 90 s", window_start_ms=T0)
    told = account(rows((1.0, 0)), 0, findings=[silent])
    assert "no data: no data for 90 s" in told.reasons


@pytest.mark.parametrize(("kind", "outcome"), [("no_data", "silent"), ("error", "failing")])
def test_an_open_alert_of_another_kind_is_no_ordinary_state(kind: str, outcome: str):
    began = replace(finding(2), kind=kind, reason="why", began_ms=T0 + 2 * STEP)
    ended = replace(began, state="ended", sequence=1, window_end_ms=T0 + 9 * STEP)
    log = rows((1.0, 0), (1.0, 0))
    before, within, open_still, after = (
        explain_rows(log, key="web-1", at_ms=T0 + at * STEP, config=config(), findings=given)
        for at, given in ((1, [began]), (5, [began, ended]), (99, [began]), (10, [began, ended]))
    )
    assert [one.outcome for one in (before, after)] == ["ordinary"] * 2
    assert [one.outcome for one in (within, open_still)] == [outcome] * 2
    assert "since 2023-11-14 22:15:20 UTC: why" in within.reasons[0]
    assert within.finding is not None


def test_a_back_test_writes_what_explain_reads(tmp_path, capsys):
    lines = ["ts,value"]
    values = np.random.default_rng(0).normal(10, 1, 700)
    values[500:503] += 40
    lines += [f"{T0 + STEP * i},{value:.3f}" for i, value in enumerate(values)]
    (tmp_path / "data.csv").write_text("\n".join(lines))
    (tmp_path / "pipeline.yaml").write_text("{name: p, detector: robust_z, windows: {size: 32}}")
    names = ("pipeline.yaml", "data.csv", "s.parquet", "f.jsonl", "a.jsonl")
    pipeline, data, scores, findings, alerts = (str(tmp_path / name) for name in names)
    written = ["--scores", scores, "--findings", findings]
    assert main(["backtest", pipeline, data, "-o", alerts, *written]) == 0
    read = [*written, "--alerts", alerts, "--json"]
    capsys.readouterr()
    for at, outcome in ((300, "ordinary"), (501, "alert")):
        assert main(["explain", "data", *read, "--at", f"{T0 + STEP * at}"]) == 0
        assert json.loads(capsys.readouterr().out)["outcome"] == outcome
    assert main(["backtest", pipeline, data, "-o", alerts, "--scores", "s.csv"]) == 2
    assert "name a file that ends in .parquet" in capsys.readouterr().err


def test_a_window_logged_twice_counts_once_and_the_later_row_wins():
    log = rows((1.0, 0), (2.0, 0))
    log = replace(log, end_ms=np.array([T0, T0]), ordinal=np.array([3, 3]))
    told = account(log, 0)
    assert told.score == 2.0
    assert len(told.around.score) == 1


def test_a_key_that_is_not_there_offers_the_nearest():
    with pytest.raises(NoSuchWindowError, match="did you mean 'web-1'"):
        explain_rows(rows((1.0, 0)), key="web1", at_ms=T0, config=config())
    with pytest.raises(NoSuchWindowError, match="check the topic, the file"):
        explain_rows(rows(), key="web1", at_ms=T0, config=config())


def test_the_panel_shows_reasons_scores_and_what_was_expected():
    log = rows(*[(1.0, 0)] * 40, (9.0, FLAG_CANDIDATE | FLAG_EPISODE))
    told = account(log, 40, findings=[finding(40, p=4e-4)])
    stream = io.StringIO()
    Console(file=stream, width=100).print(panel(told))
    text = stream.getvalue()
    for words in ("a finding, but no alert", "97.2 at 22:13:20, expected about 12.4", "█", "▲"):
        assert words in text
    bars = next(line for line in text.splitlines() if "█" in line)
    mark = next(line for line in text.splitlines() if "▲" in line)
    assert bars.index("█") == mark.index("▲")


def test_the_json_is_strict_even_where_nothing_was_scored():
    told = account(rows((NAN, FLAG_WARMING), (1.0, 0)), 0)
    body = json.loads(json.dumps(as_json(told), allow_nan=False))
    assert body["outcome"] == "not_scored"
    assert body["around"]["score"] == [None, 1.0]


@pytest.mark.parametrize("kind", ["parquet", "ipc", "ipc_stream"])
def test_a_log_in_a_file_explains_as_a_topic_does(tmp_path, kind):
    log = rows((1.0, 0), (9.0, FLAG_CANDIDATE | FLAG_EPISODE))
    frame = pl.DataFrame(
        {"key": log.keys, "end_ms": pl.Series(log.end_ms).cast(pl.Datetime("ms", "UTC"))}
        | {name: getattr(log, name) for name in COLUMNS if name != "end_ms"}
    )
    getattr(frame, f"write_{kind}")(tmp_path / "scores")
    (tmp_path / "findings.jsonl").write_bytes(orjson.dumps(finding(1, p=4e-4)) + b"\n")
    evidence = from_files(tmp_path / "scores", findings=tmp_path / "findings.jsonl", alerts=None)
    told = evidence.explain(key="web-1", at_ms=T0 + STEP, config=config())
    again = account(log, 1, findings=[finding(1, p=4e-4)])
    assert told == again


def test_a_file_that_is_no_log_is_refused_with_what_it_lacks(tmp_path):
    pl.DataFrame({"key": ["a"]}).write_parquet(tmp_path / "x.parquet")
    with pytest.raises(ConfigError, match="lacks the columns"):
        read_scores(tmp_path / "x.parquet")
    (tmp_path / "y").write_text("hello")
    with pytest.raises(ConfigError, match="cannot be read as scores"):
        read_scores(tmp_path / "y")
    (tmp_path / "f.jsonl").write_text('{"id": 3}\n')
    whole = {"key": ["a"], "end_ms": 0, "flags": 0, "score": 0.5, "p_value": 0.5, "level": 1.0}
    pl.DataFrame(whole).write_parquet(tmp_path / "s")
    assert np.isnan(read_scores(tmp_path / "s").severity).all(), "of an earlier version"
    with pytest.raises(ConfigError, match=r"f.jsonl:1: is no finding"):
        from_files(tmp_path / "s", findings=tmp_path / "f.jsonl", alerts=None)


def test_moments_are_read_as_people_write_them():
    assert parse_moment("2023-11-14T22:13:20", now_ms=0) == T0
    assert parse_moment("2023-11-14T23:13:20+01:00", now_ms=0) == T0
    assert parse_moment("now", now_ms=5) == 5
    with pytest.raises(ConfigError, match="is not a time"):
        parse_moment("yesterday", now_ms=0)
