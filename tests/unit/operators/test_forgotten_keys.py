"""A key that is forgotten takes its open episode with it, and says so."""

from __future__ import annotations

from streamad.config import parse_pipeline
from streamad.detectors import DETECTORS
from streamad.operators.detect import DetectOperator
from streamad.testing.batches import make_batch

PIPELINE = """
name: forget
detector: robust_z
series: {ttl: 60s}
scoring: {min_windows: 0}
"""


def test_a_key_forgotten_in_an_episode_ends_it():
    config = parse_pipeline(PIPELINE)
    operator = DetectOperator(config, DETECTORS.load("robust_z")(size=64))
    state = operator.new_state()
    calm = [("a", t * 1_000, 12.4 + 0.1 * (t % 7)) for t in range(80)]
    (began,) = operator.process(state, make_batch([*calm, ("a", 80_000, 97.2)])).findings
    (ended,) = operator.process(state, make_batch([("b", 200_000, 1.0)])).findings
    assert (began.id, began.state, began.sequence) == (ended.id, "began", 0)
    assert (ended.state, ended.sequence, ended.kind) == ("ended", 1, "anomaly")
    assert "forgotten" in ended.reason
    assert ended.peak_p_value == began.peak_p_value
