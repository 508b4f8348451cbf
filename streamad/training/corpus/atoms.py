"""Seasonal waves by their parameters, so that an anomaly can change one and leave the rest."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

Series = NDArray[np.float64]

FAMILIES: Final = ("sine", "square", "triangle", "wavelet")
WAVELETS: Final = ("morlet", "ricker", "haar", "gaus", "shan")
"""Shapes of a wavelet season; the published sixth, mexh, is the Ricker wavelet by another name."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Atom:
    """One seasonal wave.

    period : samples; phase : cycles; amplitude : half the height of a sine
    harmonics : (order, gain, shift in cycles) each, of a sine
    duty : share of a cycle a square wave is up
    depth, beat, beat_phase : of an amplitude modulation: depth 0 .. 1, period in samples, cycles
    wavelet, width, shift : name, width and place in the cycle of a wavelet, in cycles
    """

    family: str
    period: float
    phase: float
    amplitude: float
    harmonics: tuple[tuple[int, float, float], ...] = ()
    duty: float = 0.5
    depth: float = 0.0
    beat: float = 1.0
    beat_phase: float = 0.0
    wavelet: str = "morlet"
    width: float = 0.2
    shift: float = 0.0


def render(atom: Atom, start: int, stop: int) -> Series:
    """Return the wave at samples ``start .. stop-1``, float64 ``(stop - start,)``."""
    t = np.arange(start, stop, dtype=np.float64)
    cycles = t / atom.period + atom.phase
    wave = _SHAPES[atom.family](atom, cycles)
    if atom.depth > 0:
        wave = wave * (1 + atom.depth * np.sin(2 * np.pi * (t / atom.beat + atom.beat_phase)))
    return np.asarray(atom.amplitude * wave)


def draw_atom(rng: np.random.Generator, *, family: str, period: float) -> Atom:
    """Draw a wave of this family and period."""
    modulated = rng.random() < 0.15
    return Atom(
        family=family,
        period=period,
        phase=rng.random(),
        amplitude=rng.uniform(0.2, 2.0),
        harmonics=draw_harmonics(rng) if rng.random() < 0.4 else (),
        duty=0.5 if rng.random() < 0.5 else rng.uniform(0.15, 0.85),
        depth=rng.uniform(0.2, 0.8) if modulated else 0.0,
        beat=period * rng.uniform(3, 8),
        beat_phase=rng.random(),
        wavelet=WAVELETS[int(rng.integers(len(WAVELETS)))],
        width=rng.uniform(0.08, 0.35),
        shift=rng.random(),
    )


def draw_harmonics(rng: np.random.Generator) -> tuple[tuple[int, float, float], ...]:
    """Draw one to three overtones: order 2-4, gain .25-.8."""
    orders = 2 + rng.permutation(3)[: int(rng.integers(1, 4))]
    return tuple((int(order), rng.uniform(0.25, 0.8), rng.random()) for order in orders)


def _sine(atom: Atom, cycles: Series) -> Series:
    wave = np.sin(2 * np.pi * cycles)
    for order, gain, shift in atom.harmonics:
        wave += gain * np.sin(2 * np.pi * (order * cycles + shift))
    return np.asarray(wave)


def _square(atom: Atom, cycles: Series) -> Series:
    return np.where(cycles % 1.0 < atom.duty, 1.0, -1.0)


def _triangle(_: Atom, cycles: Series) -> Series:
    return np.asarray(4.0 * np.abs(cycles % 1.0 - 0.5) - 1.0)


def _wavelet(atom: Atom, cycles: Series) -> Series:
    u = ((cycles + atom.shift) % 1.0 - 0.5) / atom.width
    bell = np.exp(-0.5 * u * u)
    if atom.wavelet == "morlet":
        wave = np.cos(5.0 * u) * bell
    elif atom.wavelet == "ricker":
        wave = (1.0 - u * u) * bell
    elif atom.wavelet == "haar":
        wave = np.where(np.abs(u) < 1.0, np.where(u < 0, 1.0, -1.0), 0.0)
    elif atom.wavelet == "gaus":
        wave = -1.6 * u * bell
    else:
        wave = np.sinc(u) * np.cos(3.0 * np.pi * u)
    return np.asarray(wave)


_SHAPES: Final = {"sine": _sine, "square": _square, "triangle": _triangle, "wavelet": _wavelet}
