"""What a series is before anything is wrong with it: trend, season, noise."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from streamad.compiled import compiled
from streamad.training.corpus.atoms import FAMILIES, Atom, Series, draw_atom, render
from streamad.training.corpus.config import CorpusConfig
from streamad.training.synthetic import base_series


@dataclass(frozen=True, slots=True, kw_only=True)
class Background:
    """A clean series ``(length,)``, and the atoms its season is made of."""

    values: Series
    atoms: tuple[Atom, ...]


def draw_background(
    config: CorpusConfig, rng: np.random.Generator, length: int, *, atoms: tuple[Atom, ...] | None
) -> Background:
    """Draw a clean series; ``atoms`` are the season it shall have (None: drawn, perhaps none)."""
    if atoms is None and rng.random() < config.telemetry:
        values = base_series(length, rng).astype(np.float64)
        values /= max(float(values.std()), 1e-3)
        return Background(values=values, atoms=())
    season = draw_season(config, rng, length) if atoms is None else atoms
    values = _trend(rng, length)
    for atom in season:
        values += render(atom, 0, length)
    return Background(values=values + _noise(rng, length), atoms=season)


def draw_season(
    config: CorpusConfig, rng: np.random.Generator, length: int, *, family: str | None = None
) -> tuple[Atom, ...]:
    """Draw one to three waves, mostly of one family; with ``family`` at least one of it."""
    if family is None:
        which = rng.choice(5, p=[0.30, 0.30, 0.05, 0.05, 0.30])
        if which == 0:
            return ()
        family = FAMILIES[which - 1]
    atoms = []
    for i in range(int(rng.integers(1, 4))):
        of = family if i == 0 or rng.random() < 0.7 else FAMILIES[int(rng.integers(4))]
        atoms.append(draw_atom(rng, family=of, period=_period(config, rng, length)))
    return tuple(atoms)


def _period(config: CorpusConfig, rng: np.random.Generator, length: int) -> float:
    if rng.random() < config.long_periods:
        return float(np.exp(rng.uniform(np.log(20.0), np.log(max(length / 3, 30.0)))))
    low, high = (30.0, 120.0) if rng.random() < 0.5 else (6.0, 30.0)
    return min(float(rng.uniform(low, high)), length / 3)


def _trend(rng: np.random.Generator, length: int) -> Series:
    """Return up, down, steady, several segments or an integrated ARMA process."""
    which = rng.choice(5, p=[0.2, 0.2, 0.2, 0.3, 0.1])
    line = np.linspace(0.0, 1.0, length)
    if which == 0:
        return np.asarray(rng.uniform(0.3, 3.0) * line)
    if which == 1:
        return np.asarray(-rng.uniform(0.3, 3.0) * line)
    if which == 2:
        return np.zeros(length)
    if which == 3:
        knots = np.sort(rng.random(int(rng.integers(1, 5))))
        at = np.concatenate([[0.0], knots, [1.0]])
        slopes = 0.02 * rng.standard_normal(at.size - 1) * length * np.diff(at)
        return np.interp(line, at, np.concatenate([[0.0], np.cumsum(slopes)]))
    ar, ma = rng.uniform(-0.6, 0.6, size=2), rng.uniform(-0.6, 0.6, size=2)
    steps = _arma(0.05 * rng.standard_normal(length + 2), ar / 1.5, ma)
    path = np.cumsum(steps)
    # Twice integrated, a path leaves every other component behind: it is brought to their size.
    return path if rng.random() < 0.7 else np.cumsum(path) * (2.0 / max(length, 1))


def _noise(rng: np.random.Generator, length: int) -> Series:
    """Return noise with windows of lower volatility."""
    level = float(rng.choice([0.01, 0.05, 0.10, 0.20]))
    gain = np.ones(length)
    for _ in range(int(rng.integers(0, 4))):
        start = int(rng.integers(0, length))
        gain[start : start + int(rng.integers(length // 10, length // 3))] *= rng.uniform(0.1, 1.0)
    return np.asarray(level * gain * rng.standard_normal(length))


def roughness(values: Series) -> float:
    """Return a noise level: the median step, as a deviation of white noise."""
    return float(np.median(np.abs(np.diff(values)))) / 0.954


@compiled
def _arma(shocks: Series, ar: Series, ma: Series) -> Series:
    out = np.zeros(len(shocks))
    for t in range(2, len(shocks)):
        past = ar[0] * out[t - 1] + ar[1] * out[t - 2]
        out[t] = past + shocks[t] + ma[0] * shocks[t - 1] + ma[1] * shocks[t - 2]
    return out[2:]
