"""One sample of the corpus: a series, its clean twin, its labels, and what was done to it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final

import numpy as np
from numpy.typing import NDArray

from streamad.training.corpus.atoms import FAMILIES, Atom, Series
from streamad.training.corpus.background import Background, draw_background, draw_season, roughness
from streamad.training.corpus.config import CorpusConfig
from streamad.training.corpus.graph import Graph, draw_graph
from streamad.training.corpus.local import LOCAL, LocalKind
from streamad.training.corpus.seasonal import SEASONAL, SeasonalKind

KINDS: Final = (*LOCAL, *SEASONAL)
"""All kinds of anomalies, local ones first."""
TRIES: Final = 6
"""How often an anomaly that cannot be seen, or finds no room, is drawn again."""
EDGE: Final = 0.05
"""A change and its label begin and end at this share of its height."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """An anomaly: its kind, its variate, and the samples ``start .. stop-1`` labelled there.

    endogenous : it went through the graph, so that its effects on other variates are labelled too
    """

    kind: str
    variate: int
    start: int
    stop: int
    endogenous: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """A series and what is known of it.

    series, normal : float32 ``(length, n_variates)``, with and without its anomalies
    labels : bool ``(length, n_variates)``, the samples of each variate that are anomalous
    """

    series: NDArray[np.float32]
    normal: NDArray[np.float32]
    labels: NDArray[np.bool_]
    events: tuple[Event, ...]


def draw_sample(
    config: CorpusConfig,
    rng: np.random.Generator,
    *,
    length: int,
    n_variates: int = 1,
    kinds: tuple[str, ...] | None = None,
) -> Sample:
    """Draw one sample.

    kinds : the anomalies it shall have, one each (None: drawn, or none at all)

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> sample = draw_sample(CorpusConfig(), rng, length=400, kinds=("sudden_increase",))
    >>> changed = np.abs(sample.series - sample.normal) > 0
    >>> bool(changed.any() and not changed[~sample.labels].any())
    True
    """
    wanted = _draw_kinds(config, rng, n_variates) if kinds is None else list(kinds)
    where = rng.integers(0, n_variates, size=len(wanted)).tolist()
    parts = [
        _draw_part(config, rng, length, [k for k, w in zip(wanted, where, strict=True) if w == v])
        for v in range(n_variates)
    ]
    graph = draw_graph(config, rng, n_variates)
    clean = graph.joined(np.stack([part.background.values for part in parts], axis=1))
    making = _Making(config, rng, graph, clean)
    events = []
    for kind, variate in zip(wanted, where, strict=True):
        event = making.inject(kind, variate, parts[variate].acted_on.get(kind))
        if event is not None:
            events.append(event)
    return Sample(
        series=making.series.astype(np.float32),
        normal=clean.astype(np.float32),
        labels=making.labels,
        events=tuple(events),
    )


class _Making:
    """A sample in the making."""

    def __init__(
        self, config: CorpusConfig, rng: np.random.Generator, graph: Graph, clean: Series
    ) -> None:
        self.config, self.rng, self.graph, self.clean = config, rng, graph, clean
        self.series = clean.copy()
        self.labels = np.zeros(clean.shape, dtype=np.bool_)
        self.scales = np.array([_scale(column) for column in clean.T])

    def inject(self, kind: str, variate: int, atom: Atom | None) -> Event | None:
        """Put an anomaly in; None where none was found that can be seen and has room."""
        for _ in range(TRIES):
            start, delta, after = self._draw(kind, variate, atom)
            stop = start + len(delta)
            if not after:
                # A label ends where the change does: a wavelet may fill little of its window.
                large = np.flatnonzero(np.abs(delta) >= EDGE * np.abs(delta).max(initial=0.0))
                delta = delta[large[0] : large[-1] + 1] if len(large) else delta
                start += int(large[0]) if len(large) else 0
                stop = start + len(delta)
            elif self.rng.random() < self.config.stays:
                delta = np.concatenate([delta, np.full(len(self.clean) - stop, after)])
                stop, after = len(self.clean), 0.0
            seen = float(np.sqrt(np.mean(delta * delta))) / self.scales[variate]
            room = self.labels[max(start - 3, 0) : stop + 3, variate]
            if seen >= self.config.visible and not room.any():
                endogenous = self._apply(kind, variate, start, delta, after)
                return Event(
                    kind=kind, variate=variate, start=start, stop=stop, endogenous=endogenous
                )
        return None

    def _draw(self, kind: str, variate: int, atom: Atom | None) -> tuple[int, Series, float]:
        """Return first sample, change and lasting shift of an anomaly."""
        config, rng, length = self.config, self.rng, len(self.clean)
        if atom is not None:
            n = _window(rng, config.seasonal_window, length)
            n = min(max(n, int(np.ceil(0.6 * atom.period))), length // 2)
            start = int(rng.integers(length // 16, length - n + 1))
            return start, SEASONAL[kind].delta(atom, rng, start, start + n), 0.0
        local = LOCAL[kind]
        n = _window(rng, config.local_window, length)
        latest = length - n if not local.lasting else length - max(length // 16, n)
        start = int(rng.integers(length // 16, latest + 1))
        size = rng.uniform(*config.amplitude) * self.scales[variate]
        if rng.random() < config.extreme:
            size *= rng.uniform(1.0, 5.0)
        change = local.make(rng, self.clean[start : start + n, variate], float(size))
        return start, change.delta[: length - start], change.after

    def _apply(self, kind: str, variate: int, start: int, delta: Series, after: float) -> bool:
        """Add a change, and ``after`` it for good; return whether it went through the graph."""
        stop = start + len(delta)
        self.labels[start:stop, variate] = True
        config, n_variates = self.config, self.clean.shape[1]
        chance = config.endogenous_local if kind in LOCAL else config.endogenous_seasonal
        if n_variates == 1 or self.rng.random() >= chance:
            self.series[start:stop, variate] += delta
            self.series[stop:, variate] += after
            self.clean[stop:, variate] += after
            return False
        own = np.zeros(self.clean.shape)
        # So much that what shows at the variate itself is the change as drawn.
        share = 1.0 - self.graph.share[variate]
        own[start:stop, variate] = delta / share
        own[stop:, variate] = after / share
        effect = self.graph.joined(own)
        self.series += effect
        for v in range(n_variates):
            changed = np.flatnonzero(np.abs(effect[:, v]) >= config.visible * self.scales[v])
            end = stop
            if v != variate and len(changed):
                end = int(changed[-1]) + 1 if not after else int(changed[0]) + stop - start
                self.labels[changed[0] : end, v] = True
            if after:
                self.clean[end:, v] += effect[end:, v]
        return True


@dataclass(frozen=True, slots=True)
class _Part:
    """The own part of a variate, and which of its waves each seasonal kind acts on."""

    background: Background
    acted_on: dict[str, Atom]


def _draw_part(
    config: CorpusConfig, rng: np.random.Generator, length: int, kinds: list[str]
) -> _Part:
    """Draw a clean series whose season has what the seasonal kinds among these act on."""
    seasonal = [kind for kind in kinds if kind in SEASONAL]
    if not seasonal:
        return _Part(draw_background(config, rng, length, atoms=None), {})
    atoms: list[Atom] = []
    place: dict[str, int] = {}
    for name in seasonal:
        kind = SEASONAL[name]
        family = kind.family or FAMILIES[int(rng.choice(4, p=[0.4, 0.1, 0.1, 0.4]))]
        fits = [i for i, atom in enumerate(atoms) if atom.family == family]
        if not fits:
            fits = [len(atoms)]
            atoms += draw_season(config, rng, length, family=family)
        at = place[name] = fits[0]
        atoms[at] = kind.needs(replace(atoms[at], amplitude=max(atoms[at].amplitude, 0.6)), rng)
    background = draw_background(config, rng, length, atoms=tuple(atoms))
    return _Part(background, {name: atoms[at] for name, at in place.items()})


def _draw_kinds(config: CorpusConfig, rng: np.random.Generator, n_variates: int) -> list[str]:
    if rng.random() >= config.anomalous:
        return []
    chosen: list[str] = []
    if rng.random() < config.seasonal:
        chosen += _weighted(SEASONAL, rng, int(rng.integers(1, 3)))
    if not chosen or rng.random() < 0.6:
        chosen += _weighted(LOCAL, rng, int(rng.integers(1, 4 if n_variates == 1 else 5)))
    return chosen


def _weighted(
    kinds: dict[str, LocalKind] | dict[str, SeasonalKind], rng: np.random.Generator, n: int
) -> list[str]:
    weights = np.array([kind.weight for kind in kinds.values()])
    return [str(name) for name in rng.choice(list(kinds), size=n, p=weights / weights.sum())]


def _window(rng: np.random.Generator, window: tuple[int, int], length: int) -> int:
    """Return how many samples an anomaly lasts: short ones as often as long ones."""
    low, high = window[0], min(window[1], length // 3)
    return int(np.exp(rng.uniform(np.log(low), np.log(max(high, low + 1)))))


def _scale(values: Series) -> float:
    return max(float(values.std()) + 2.0 * roughness(values), 0.1)
