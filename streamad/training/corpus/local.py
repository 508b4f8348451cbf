"""Local anomalies: what is added to a stretch of a series. 21 kinds."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import numpy as np

from streamad.training.corpus.atoms import Series


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """What an anomaly adds: ``delta (n,)`` from its first sample on, and ``after`` it for good."""

    delta: Series
    after: float = 0.0


Maker = Callable[[np.random.Generator, Series, float], Change]
"""Makes a change from (rng, the clean stretch ``(n,)``, the amplitude in units of the series)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LocalKind:
    """A kind: its weight among local kinds, and how it is made; ``lasting``: its level stays."""

    weight: float
    make: Maker
    lasting: bool = False


def _spike(sign: float) -> Maker:
    """Rise and fall within one to three samples each."""

    def make(rng: np.random.Generator, clean: Series, size: float) -> Change:
        del clean
        rise = 1 if rng.random() < 0.8 else int(rng.integers(2, 4))
        fall = 1 if rng.random() < 0.8 else int(rng.integers(2, 4))
        up = np.linspace(0, 1, rise + 1)[1:]
        down = np.linspace(1, 0, fall + 1)[1:-1]
        return Change(delta=sign * size * np.concatenate([up, down]))

    return make


def _outlier(rng: np.random.Generator, clean: Series, size: float) -> Change:
    del clean
    return Change(delta=np.array([rng.choice([-1.0, 1.0]) * 1.5 * size]))


def _spikes(sign: float) -> Maker:
    """Three or more spikes, one after the other."""

    def make(rng: np.random.Generator, clean: Series, size: float) -> Change:
        n = max(len(clean), 8)
        delta = np.zeros(n)
        # Close enough for all of it to be one event: a spike in every three to ten samples.
        at = np.arange(0, n, int(rng.integers(3, min(n // 2, 10) + 1)))
        at[1:] += rng.integers(-1, 2, size=at.size - 1)
        at = np.unique(np.append(np.minimum(at, n - 1), n - 1))
        delta[at] = sign * size * rng.uniform(0.6, 1.0, size=at.size)
        return Change(delta=delta)

    return make


def _ramp(rng: np.random.Generator, n: int) -> Series:
    """Return a rise from above 0 to 1 in ``n`` samples, of one of four shapes."""
    x = np.arange(1, n + 1) / n
    shapes = (x * x, np.sin(0.5 * np.pi * x), x, 1.0 - (1.0 - x) ** 2)
    return np.asarray(shapes[int(rng.integers(4))])


def _wide_spike(sign: float) -> Maker:
    """Rise and fall over the whole stretch, with a short top."""

    def make(rng: np.random.Generator, clean: Series, size: float) -> Change:
        n = len(clean)
        rise = max(int(n * rng.uniform(0.3, 0.6)), 1)
        fall = max(n - rise, 1)
        bump = np.concatenate([_ramp(rng, rise), _ramp(rng, fall)[::-1]])
        return Change(delta=sign * size * bump)

    return make


def _sudden(sign: float) -> Maker:
    """Another level for the stretch: reached by a sigmoid, left at once or by a sigmoid."""

    def make(rng: np.random.Generator, clean: Series, size: float) -> Change:
        n = len(clean)
        t = np.arange(n)
        steepness = rng.uniform(0.4, 4.0)
        level = 1.0 / (1.0 + np.exp(-steepness * (t - 2.0 / steepness)))
        if rng.random() < 0.5:
            level *= 1.0 / (1.0 + np.exp(-steepness * (n - 1 - t - 2.0 / steepness)))
        return Change(delta=sign * size * level)

    return make


def _hump(sign: float) -> Maker:
    """Draw a rounded hump (convex: up, concave: down) with a flat middle."""

    def make(rng: np.random.Generator, clean: Series, size: float) -> Change:
        x = (np.arange(len(clean)) + 1) / (len(clean) + 1)
        flat = rng.uniform(1.2, 3.0)
        return Change(delta=sign * size * np.clip(flat * np.sin(np.pi * x), 0.0, 1.0))

    return make


def _asymmetric(sign: float, *, fast_first: bool) -> Maker:
    """Exponential rise and decline, one of 1-3 and the other of 4-12 samples' time constant."""

    def make(rng: np.random.Generator, clean: Series, size: float) -> Change:
        fast, slow = rng.uniform(1.0, 3.0), rng.uniform(4.0, 12.0)
        n = max(len(clean), int(4 * (fast + slow)))
        first, second = (fast, slow) if fast_first else (slow, fast)
        top = int(np.ceil(3 * first))
        t = np.arange(n, dtype=np.float64)
        rising = np.exp(np.minimum(t - top, 0.0) / first)
        falling = np.exp(-np.maximum(t - top, 0.0) / second)
        kept = np.flatnonzero(rising * falling > 0.05)
        return Change(delta=sign * size * (rising * falling)[kept[0] : kept[-1] + 1])

    return make


def _shift_after(spike: float, shift: float) -> Maker:
    """Spike, and keep another level for good."""

    def make(rng: np.random.Generator, clean: Series, size: float) -> Change:
        level = shift * size * rng.uniform(0.5, 1.2)
        height = np.array([spike * size * rng.uniform(1.0, 2.0)])
        relax = 1.0 - np.exp(-np.arange(1, max(len(clean), 2)) / rng.uniform(0.3, 3.0))
        return Change(delta=np.concatenate([height, level * relax]), after=level)

    return make


def _shake(rng: np.random.Generator, clean: Series, size: float) -> Change:
    """Oscillate fast, .1-.35 cycles per sample, swelling and fading."""
    n = max(len(clean), 8)
    t = np.arange(n)
    envelope = np.clip(3.0 * np.sin(np.pi * (t + 1) / (n + 1)), 0.0, 1.0)
    wave = np.sin(2 * np.pi * (rng.uniform(0.1, 0.35) * t + rng.random()))
    return Change(delta=0.8 * size * envelope * wave)


def _plateau(rng: np.random.Generator, clean: Series, size: float) -> Change:
    """Stand still, as a stuck sensor does; now and then at its limit."""
    stuck = clean[0] if rng.random() < 0.7 else clean.mean() + rng.choice([-1.0, 1.0]) * size
    return Change(delta=stuck - clean)


LOCAL: Final[dict[str, LocalKind]] = {
    "upward_spike": LocalKind(weight=1.0, make=_spike(1.0)),
    "downward_spike": LocalKind(weight=1.0, make=_spike(-1.0)),
    "continuous_upward_spikes": LocalKind(weight=0.8, make=_spikes(1.0)),
    "continuous_downward_spikes": LocalKind(weight=0.8, make=_spikes(-1.0)),
    "wide_upward_spike": LocalKind(weight=0.6, make=_wide_spike(1.0)),
    "wide_downward_spike": LocalKind(weight=0.6, make=_wide_spike(-1.0)),
    "outlier": LocalKind(weight=0.4, make=_outlier),
    "sudden_increase": LocalKind(weight=0.7, make=_sudden(1.0)),
    "sudden_decrease": LocalKind(weight=0.7, make=_sudden(-1.0)),
    "convex_plateau": LocalKind(weight=0.5, make=_hump(1.0)),
    "concave_plateau": LocalKind(weight=0.5, make=_hump(-1.0)),
    "rapid_rise_slow_decline": LocalKind(weight=0.5, make=_asymmetric(1.0, fast_first=True)),
    "slow_rise_rapid_decline": LocalKind(weight=0.5, make=_asymmetric(1.0, fast_first=False)),
    "rapid_decline_slow_rise": LocalKind(weight=0.5, make=_asymmetric(-1.0, fast_first=True)),
    "slow_decline_rapid_rise": LocalKind(weight=0.5, make=_asymmetric(-1.0, fast_first=False)),
    "increase_after_upward_spike": LocalKind(weight=0.4, make=_shift_after(1.0, 1.0), lasting=True),
    "decrease_after_upward_spike": LocalKind(
        weight=0.4, make=_shift_after(1.0, -1.0), lasting=True
    ),
    "increase_after_downward_spike": LocalKind(
        weight=0.4, make=_shift_after(-1.0, 1.0), lasting=True
    ),
    "decrease_after_downward_spike": LocalKind(
        weight=0.4, make=_shift_after(-1.0, -1.0), lasting=True
    ),
    "shake": LocalKind(weight=0.3, make=_shake),
    "plateau": LocalKind(weight=0.2, make=_plateau),
}
"""Names as in ChatTS (Xie et al., arXiv 2412.03104) and the corpus of TimeRCD, with its weights."""
