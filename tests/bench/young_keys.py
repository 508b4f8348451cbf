"""What a detector without training makes of keys that were never seen: ordinary ones, and jumps.

    python -m tests.bench.young_keys --detector timercd --size 512

Thirty made hosts a shape, a sample a minute, as in ``tests/unit/operators/test_first_day.py``:
printed is how many reach the default level in their first ``--minutes``. Then one host of noise,
ten seeds, which jumps by so many deviations for one sample: the score that 8 of 10 seeds reach.
"""

from __future__ import annotations

import argparse
import math

import numpy as np

from jobs.build import build_detect
from streamad.config import parse_pipeline
from streamad.testing.batches import make_columns
from tests.unit.operators.test_first_day import BEGIN_MS, MINUTE, shapes

AFTER = (64, 100, 200, 400)
JUMP, SEEDS, LATER = 16.0, 10, 24


def judged(values, given):
    """Return the keys that reach severity 1.0, and the greatest score of each of the last rows."""
    pipeline = f"{{name: t, detector: {{name: {given.detector}}}, windows: {{size: {given.size}}}}}"
    operator = build_detect(parse_pipeline(pipeline))
    n_keys, n = values.shape
    times = np.repeat(BEGIN_MS + MINUTE * np.arange(n), n_keys)
    batch = make_columns([f"k{i}" for i in range(n_keys)] * n, times, values.T.ravel())
    state, reached, scores = operator.new_state(), set(), {}
    for at in range(0, len(batch), 4_000):
        out = operator.process(state, batch.take(at, min(at + 4_000, len(batch))))
        for log in out.scores:
            for key, end_ms, score in zip(log.keys, log.end_ms, log.score, strict=True):
                if end_ms >= BEGIN_MS + MINUTE * (n - LATER) and math.isfinite(score):
                    scores[key] = max(float(score), scores.get(key, 0.0))
        reached |= {
            one.key
            for one in out.findings
            if one.state != "ended"
            and 0 < one.peak_p_value < 1
            and math.log(one.peak_p_value) / math.log(one.alert_p) >= 1
        }
    return reached, scores


def main() -> None:
    """Read the command line and measure."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--detector", default="timercd")
    parser.add_argument("--size", type=int, default=512)
    parser.add_argument("--minutes", type=int, default=512)
    given = parser.parse_args()
    for name in ("flat", "season", "counts"):
        values = shapes(name, np.random.default_rng(0))[:, : given.minutes]
        reached, _ = judged(values, given)
        print(f"{name}: {len(reached)} of {len(values)} alert", flush=True)
    for n in AFTER:
        rng = np.random.default_rng(n)
        values = 50 + rng.normal(0, 1, (SEEDS, n + LATER))
        values[:, n] += JUMP
        _, scores = judged(values, given)
        low = np.quantile([scores.get(f"k{i}", 0.0) for i in range(SEEDS)], 0.2)
        print(f"jump of {JUMP:.0f} deviations after {n} samples: {low:.1f} or more", flush=True)


if __name__ == "__main__":
    main()
