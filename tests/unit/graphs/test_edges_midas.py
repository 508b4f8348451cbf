"""The edge stream against a plain reading of MIDAS-F, and its hashes and surprise."""

import math

import numpy as np
import polars as pl
import pytest

from streamad.detectors.graphs.edges import EdgeStream
from streamad.graphs.kernels import bucket_of, hash_pair, surprise
from streamad.graphs.names import hashes_of
from tests.unit.graphs.streams import TICK, edges, joined, traffic


class Reference:
    """MIDAS-F in plain Python (Bhatia et al., algorithm 4), with the surprise and its bounds."""

    def __init__(self, plan):
        self.__dict__.update(plan)
        self.current = {}
        self.total = {}
        self.held = {}
        self.tick, self.n = None, 0

    def end(self, passed):
        for at in self.current:
            a, s, held = self.current[at], self.total.get(at, 0.0), self.held.get(at, 0)
            if 0 < self.adopt_after <= held:
                s, held = max(s, a * self.n), 0
            s += a if held == 0 else s * (1.0 / max(self.n, 1))
            if self.n >= self.horizon:
                s *= self.horizon / (self.horizon + 1)
            self.total[at], self.held[at] = s, held + 1 if held else 0
            self.current[at] = a * self.decay**passed
        self.n = min(self.n + 1, self.horizon)

    def see(self, tick, source, target, weight):
        if self.tick is None:
            self.tick = tick
        elif tick > self.tick:
            self.end(tick - self.tick)
            self.tick = tick
        u, v = (hashes_of(pl.Series([name]))[0] for name in (source, target))
        best, statistics = 0.0, []
        for kind, key in enumerate((np.uint64(hash_pair(u, v)), u, v)):
            places = [
                (kind, row, bucket_of(key, row, self.seed, self.buckets))
                for row in range(self.rows)
            ]
            for at in places:
                self.current[at] = self.current.get(at, 0.0) + weight
            a = min(self.current[at] for at in places)
            s = min(self.total.get(at, 0.0) for at in places)
            t = self.n + 1
            published = 0.0 if s == 0 or t == 1 else (a + s - a * t) ** 2 / (s * (t - 1))
            statistics.append(published)
            for at in places:
                held = self.held.get(at, 0)
                self.held[at] = max(held, 1) if published >= self.threshold else 0
            m = (s + 1) / (self.n + 1)
            if self.n and a > m:
                nats = a * math.log(a / m) - (a + 1) * math.log((a + 1) / (m + 1))
                best = max(best, nats / math.log(10))
        return best, statistics


@pytest.mark.parametrize("seed", range(6))
def test_scores_are_those_of_a_plain_reading_of_midas_f(seed):
    rng = np.random.default_rng(seed)
    plan = {
        "rows": int(rng.integers(1, 4)), "buckets": int(rng.choice([16, 50, 300])),
        "decay": float(rng.choice([0, 0.5, 0.8])), "threshold": float(rng.choice([5, 50, np.inf])),
        "adopt_after": int(rng.choice([0, 3, 10])), "horizon": int(rng.choice([20, 10_000])),
        "seed": seed,
    }  # fmt: skip
    flood = edges([60_500] * 80, ["s0"] * 80, [f"x{i % 3}" for i in range(80)])
    rows = joined(traffic(60, seed=seed), flood, traffic(40, seed=seed + 9, first=64))
    detector = EdgeStream(tick=TICK, **plan)
    got = detector.observe(detector.new_shared(), rows)
    reference = Reference(plan)
    wanted = [
        reference.see(int(t) // TICK, s, d, w)[0]
        for t, s, d, w in zip(rows.time_ms, rows.source, rows.target, rows.weight, strict=True)
    ]
    np.testing.assert_allclose(got, wanted, rtol=1e-5, atol=1e-6)


def test_the_published_statistic_can_be_had_from_what_is_judged():
    rows = traffic(50, seed=3)
    plan = {"rows": 2, "buckets": 64, "decay": 0.5, "threshold": 1000.0, "adopt_after": 0}
    plan |= {"horizon": 10_000, "seed": 1}
    detector = EdgeStream(tick=TICK, **plan)
    judged = detector.judge(detector.new_shared(), rows)
    reference = Reference(plan)
    for i in range(len(rows)):
        tick = int(rows.time_ms[i]) // TICK
        _, wanted = reference.see(tick, rows.source[i], rows.target[i], 1.0)
        n = reference.n
        a, s = judged.counts[i], judged.usual[i] * (n + 1) - 1
        with np.errstate(all="ignore"):
            got = np.where((s > 1e-9) & (n > 0), (a + s - a * (n + 1)) ** 2 / (s * n), 0.0)
        np.testing.assert_allclose(got, wanted, rtol=1e-6, atol=1e-9)


def test_surprise_is_in_decades_and_never_negative():
    assert surprise(3.0, 3.0) == 0
    assert surprise(1.0, 5.0) == 0
    # P(X >= 1) of a geometric count of mean m is m / (1 + m); the bound lies below 3 decades.
    assert 2 < surprise(1.0, 0.001) < 3
    assert surprise(2e6, 1e3) == pytest.approx(surprise(2e9, 1e6), rel=2e-3)
    assert np.isfinite(surprise(1e18, 1e-9))


def test_hashes_are_fixed_for_ever():
    names = pl.Series(["", "a", "web-1", "é", None])
    found = hashes_of(names).tolist()
    assert found[0] == found[4]
    assert found[2] == 17687519785067183837
    h = 0xCBF29CE484222325
    for byte in "é".encode():
        h = (h ^ byte) * 0x100000001B3 % 2**64
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
        h = (h ^ (h >> shift)) * factor % 2**64
    assert found[3] == h ^ (h >> 31)
    assert hashes_of(names[2:4]).tolist() == found[2:4]


def test_buckets_are_spread_evenly_and_rows_are_independent():
    keys = hashes_of(pl.Series([f"host-{i}" for i in range(20_000)]))
    rows = np.array([[bucket_of(k, r, 0, 100) for k in keys] for r in range(2)])
    counts = np.bincount(rows[0], minlength=100)
    assert counts.min() > 130
    assert counts.max() < 270
    assert abs(np.corrcoef(rows)[0, 1]) < 0.03
