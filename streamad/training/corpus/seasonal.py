"""Seasonal anomalies: a wave goes on for a stretch with a parameter changed. 20 kinds."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Final

import numpy as np

from streamad.training.corpus.atoms import FAMILIES, WAVELETS, Atom, Series, draw_harmonics, render


def _as_it_is(atom: Atom, _: np.random.Generator) -> Atom:
    return atom


Turn = Callable[[Atom, np.random.Generator], Atom]


@dataclass(frozen=True, slots=True, kw_only=True)
class SeasonalKind:
    """A kind: its weight among seasonal kinds, the atoms it needs, and what becomes of one.

    family : the atom's family must be this (None: any)
    needs : makes an atom of that family one the kind can act on, before the clean twin is drawn
    change : returns the atom as it is during the anomaly, given (atom, rng, first sample)
    adds : adds something that is no change of the atom: (rng, atom, start, stop) -> ``(n,)``
    """

    weight: float
    family: str | None = None
    needs: Turn = _as_it_is
    change: Callable[[Atom, np.random.Generator, int], Atom] | None = None
    adds: Callable[[np.random.Generator, Atom, int, int], Series] | None = None

    def delta(self, atom: Atom, rng: np.random.Generator, start: int, stop: int) -> Series:
        """Return what the anomaly adds to samples ``start .. stop-1``."""
        out = np.zeros(stop - start)
        if self.change is not None:
            out += render(self.change(atom, rng, start), start, stop) - render(atom, start, stop)
        if self.adds is not None:
            out += self.adds(rng, atom, start, stop)
        return out


# what an atom must have ---------------------------------------------------------------------------


def _with_overtones(atom: Atom, rng: np.random.Generator) -> Atom:
    return atom if atom.harmonics else replace(atom, harmonics=draw_harmonics(rng))


def _modulated(atom: Atom, rng: np.random.Generator) -> Atom:
    if atom.depth > 0.3:
        return atom
    return replace(atom, depth=rng.uniform(0.5, 0.9), beat=atom.period * rng.uniform(3, 6))


# what becomes of it -------------------------------------------------------------------------------


def _scaled(atom: Atom, rng: np.random.Generator, _: int) -> Atom:
    factor = rng.uniform(0.35, 0.75) if rng.random() < 0.5 else rng.uniform(1.35, 2.2)
    return replace(atom, amplitude=atom.amplitude * factor)


def _inverted(atom: Atom, _: np.random.Generator, __: int) -> Atom:
    return replace(atom, amplitude=-atom.amplitude)


def _shifted(atom: Atom, rng: np.random.Generator, _: int) -> Atom:
    radians = rng.choice([-1.0, 1.0]) * rng.uniform(0.47, 4.71)
    return replace(atom, phase=atom.phase + radians / (2 * np.pi))


def _faster_or_slower(atom: Atom, rng: np.random.Generator, start: int) -> Atom:
    factor = rng.uniform(0.5, 0.8) if rng.random() < 0.5 else rng.uniform(1.25, 1.9)
    period = atom.period / factor
    # The phase is continuous where it begins: only the pace changes.
    return replace(atom, period=period, phase=atom.phase + start / atom.period - start / period)


def _other_width(atom: Atom, rng: np.random.Generator, _: int) -> Atom:
    factor = rng.uniform(0.4, 0.7) if rng.random() < 0.5 else rng.uniform(1.5, 2.5)
    return replace(atom, width=atom.width * factor)


def _other_place(atom: Atom, rng: np.random.Generator, _: int) -> Atom:
    return replace(atom, shift=atom.shift + rng.choice([-1.0, 1.0]) * rng.uniform(0.15, 0.5))


def _other_wavelet(atom: Atom, rng: np.random.Generator, _: int) -> Atom:
    others = [name for name in WAVELETS if name != atom.wavelet]
    return replace(atom, wavelet=others[int(rng.integers(len(others)))])


def _one_overtone_more(atom: Atom, rng: np.random.Generator, _: int) -> Atom:
    more = (int(rng.integers(2, 5)), rng.uniform(0.25, 0.8), rng.random())
    return replace(atom, harmonics=(*atom.harmonics, more))


def _one_overtone_less(atom: Atom, rng: np.random.Generator, _: int) -> Atom:
    gone = int(rng.integers(len(atom.harmonics)))
    return replace(atom, harmonics=atom.harmonics[:gone] + atom.harmonics[gone + 1 :])


def _overtones_shifted(atom: Atom, rng: np.random.Generator, _: int) -> Atom:
    turned = tuple((o, g, s + rng.uniform(0.2, 0.8)) for o, g, s in atom.harmonics)
    return replace(atom, harmonics=turned)


def _other_depth(atom: Atom, rng: np.random.Generator, _: int) -> Atom:
    return replace(atom, depth=0.0 if rng.random() < 0.5 else atom.depth * rng.uniform(1.5, 2.5))


def _other_beat(atom: Atom, rng: np.random.Generator, _: int) -> Atom:
    return replace(atom, beat=atom.beat * rng.uniform(0.2, 0.5))


def _beat_shifted(atom: Atom, rng: np.random.Generator, _: int) -> Atom:
    return replace(atom, beat_phase=atom.beat_phase + rng.uniform(0.25, 0.75))


def _other_family(atom: Atom, rng: np.random.Generator, _: int) -> Atom:
    others = [name for name in FAMILIES if name != atom.family]
    return replace(atom, family=others[int(rng.integers(len(others)))])


def _pulse_shifted(atom: Atom, rng: np.random.Generator, _: int) -> Atom:
    return replace(atom, phase=atom.phase + rng.choice([-1.0, 1.0]) * rng.uniform(0.1, 0.35))


def _other_duty(atom: Atom, rng: np.random.Generator, _: int) -> Atom:
    factor = rng.uniform(0.5, 0.75) if rng.random() < 0.5 else rng.uniform(1.3, 1.6)
    return replace(atom, duty=min(atom.duty * factor, 0.95))


def _gone(atom: Atom, _: np.random.Generator, __: int) -> Atom:
    return replace(atom, amplitude=0.0)


def _more_noise(rng: np.random.Generator, atom: Atom, start: int, stop: int) -> Series:
    return np.asarray(rng.uniform(0.2, 1.1) * atom.amplitude * rng.standard_normal(stop - start))


def _one_wavelet_more(rng: np.random.Generator, atom: Atom, start: int, stop: int) -> Series:
    more = replace(
        atom,
        family="wavelet",
        wavelet=WAVELETS[int(rng.integers(len(WAVELETS)))],
        width=rng.uniform(0.08, 0.35),
        phase=rng.random(),
        amplitude=max(atom.amplitude, 0.5) * rng.uniform(0.6, 1.4),
    )
    return render(more, start, stop)


def _wavelet(
    weight: float, change: Callable[[Atom, np.random.Generator, int], Atom]
) -> SeasonalKind:
    return SeasonalKind(weight=weight, family="wavelet", change=change)


def _overtone(
    weight: float, change: Callable[[Atom, np.random.Generator, int], Atom]
) -> SeasonalKind:
    return SeasonalKind(weight=weight, family="sine", needs=_with_overtones, change=change)


def _beating(
    weight: float, change: Callable[[Atom, np.random.Generator, int], Atom]
) -> SeasonalKind:
    return SeasonalKind(weight=weight, needs=_modulated, change=change)


SEASONAL: Final[dict[str, SeasonalKind]] = {
    "amplitude_scaling": SeasonalKind(weight=1.0, change=_scaled),
    "waveform_inversion": SeasonalKind(weight=0.8, change=_inverted),
    "phase_shift": SeasonalKind(weight=0.8, change=_shifted),
    "frequency_change": SeasonalKind(weight=0.7, change=_faster_or_slower),
    "wavelet_scale": _wavelet(0.6, _other_width),
    "wavelet_shift": _wavelet(0.6, _other_place),
    "wavelet_amplitude": _wavelet(0.6, _scaled),
    "wavelet_family": _wavelet(0.4, _other_wavelet),
    "noise_injection": SeasonalKind(weight=0.5, adds=_more_noise),
    "add_harmonic": SeasonalKind(weight=0.5, family="sine", change=_one_overtone_more),
    "remove_harmonic": _overtone(0.4, _one_overtone_less),
    "harmonic_phase": _overtone(0.6, _overtones_shifted),
    "modulation_depth": _beating(0.4, _other_depth),
    "modulation_frequency": _beating(0.4, _other_beat),
    "modulation_phase": _beating(0.4, _beat_shifted),
    "waveform_change": SeasonalKind(weight=0.4, change=_other_family),
    "pulse_shift": SeasonalKind(weight=0.4, family="square", change=_pulse_shifted),
    "pulse_width": SeasonalKind(weight=0.5, family="square", change=_other_duty),
    "add_wavelet": SeasonalKind(weight=0.3, adds=_one_wavelet_more),
    "remove_wavelet": _wavelet(0.3, _gone),
}
"""Names, weights and ranges of the published corpus; factors close to 1 are left out, which would
be labelled and not seen. A published window may end within half a cycle, here it has .6 of one."""
