"""The embedded pipeline: who hears of what, and what passing time does."""

from __future__ import annotations

from streamad.config import PipelineConfig, parse_pipeline
from streamad.detectors import DETECTORS
from streamad.operators.detect import DetectOperator
from streamad.runtime.embedded import EmbeddedPipeline, Hooks
from streamad.testing.batches import make_batch

CALM = [("a", t * 1_000, 12.4 + 0.1 * (t % 7)) for t in range(80)]
PIPELINE = """
name: embedded
detector: robust_z
series: {silence: 30s, max_keys: 1}
scoring: {min_windows: 0}
"""


def built(hooks: Hooks, clock=lambda: 90_000) -> EmbeddedPipeline:
    config: PipelineConfig = parse_pipeline(PIPELINE)
    operator = DetectOperator(config, DETECTORS.load("robust_z")(size=64))
    return EmbeddedPipeline(config, operator, clock, hooks=hooks)


def test_hooks_hear_of_scores_rejections_late_rows_and_findings():
    scores, rejected, late, findings = [], [], [], []
    pipeline = built(
        Hooks(scores=scores.append, rejected=rejected.append, late=late.append,
              finding=findings.append)
    )  # fmt: skip
    rows = [*CALM, ("b", 80_000, 1.0), ("a", 5_000, 1.0), ("a", 81_000, 97.0)]
    (opened,) = pipeline.feed(make_batch(rows, offset=100))
    assert sum(map(len, scores)) == 80 - 63 + 1
    assert [r.reason for r in rejected] == ["key_limit"]
    assert [rows.rows.tolist() for rows in late] == [[81]]
    assert [finding.id for finding in findings] == [opened.id]
    assert pipeline.offset == 183
    assert pipeline.open_alerts == [opened]
    assert pipeline.counts["points"] == 83


def test_passing_time_makes_a_silent_key_an_alert_and_a_record_ends_it():
    pipeline = built(Hooks())
    assert pipeline.feed(make_batch(CALM)) == []
    assert pipeline.tick(100_000) == []
    (silent,) = pipeline.tick(120_000)
    assert (silent.kind, silent.summary) == ("no_data", "a has sent no data since 00:01:19 UTC")
    ended = pipeline.feed(make_batch([("a", 121_000, 12.0), ("a", 140_000, 12.0)]))
    assert [alert.state for alert in ended] == ["resolved"]


def test_what_happened_long_before_it_was_read_is_past():
    pipeline = built(Hooks(), clock=lambda: 80_000 + 3_600_001)
    (opened,) = pipeline.feed(make_batch([*CALM, ("a", 80_000, 97.0)]))
    assert opened.past
