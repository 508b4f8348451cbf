"""What a week of logins alerts on: planted anomalies, and little else."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest

from streamad.config import parse_pipeline
from streamad.detectors.events.rare import RareEvents
from streamad.events.rows import EventRows
from streamad.operators.detect import DetectOperator
from streamad.testing.batches import make_held

KEYS, PROCESSES, DAY_MS = 8, 80, 86_400_000
CONFIG = parse_pipeline(
    "{name: audit, input: {records: events, fields: {key: user, categories: [process, parent, "
    "host]}}, detector: rare_events}"
)


def week(seed, days, begin_day):
    """Return events of users with habits, a few in a thousand out of them, in the order of time."""
    draw, fixed = np.random.default_rng(seed), np.random.default_rng(7)
    habits = fixed.dirichlet(np.full(PROCESSES, 0.05), KEYS)
    parents = fixed.integers(0, 9, PROCESSES)
    rows = []
    for user in range(KEYS):
        n = draw.poisson(days * 480)
        process = draw.choice(PROCESSES, n, p=0.995 * habits[user] + 0.005 / PROCESSES)
        parent = np.where(draw.random(n) < 0.005, draw.integers(0, 9, n), parents[process])
        host = draw.integers(0, 20, n)
        at = begin_day * DAY_MS + draw.uniform(0, days * DAY_MS, n)
        rows += zip(at.astype(int), [user] * n, process, parent, host, strict=True)
    return sorted((int(t), f"u{u}", f"p{p}", f"q{q}", f"h{h}") for t, u, p, q, h in rows)


def batch_of(rows):
    time_ms, user, *fields = (list(column) for column in zip(*rows, strict=True))
    names = ("process", "parent", "host")
    frame = pl.DataFrame(dict(zip(names, fields, strict=True)))
    return make_held(user, EventRows(np.array(time_ms), frame))


@pytest.mark.parametrize("seed", [11, 12, 13])
def test_new_values_are_found_and_a_week_is_as_calm_as_its_level_promises(seed):
    train = batch_of(week(seed, 3, 0))
    codes = train.keys.str.slice(1).cast(pl.Int32).to_numpy()
    detector = RareEvents().fit(train.values, groups=codes)
    groups = {f"u{i}": i for i in range(KEYS)}
    operator = DetectOperator(CONFIG, detector, groups=groups)
    planted = {f"u{i}": (3 + i) * DAY_MS + 7_777 for i in range(1, 6)}
    strange = [(at, user, f"evil-{user}", f"odd-{user}", "h1") for user, at in planted.items()]
    rows = sorted([*week(seed + 100, 7, 3), *strange])
    out = operator.process(operator.new_state(), batch_of(rows))
    began = [one for one in out.findings if one.state == "began"]
    found = {one.key for one in began if one.began_ms == planted.get(one.key)}
    assert len(found) >= 4, "what was never seen is found, or lies among what is as rare"
    alerts = {
        one.id for one in out.findings if one.state != "ended" and one.peak_p_value <= one.alert_p
    }
    # The level is what comes once in five days per key and look: 2 x 8 keys x 7 days / 5 = 22.
    assert len(alerts) <= 45, f"{len(alerts)} alerts on {len(rows)} events"
