"""Training batches: normalised series of one width, made by workers while the network learns.

Batch ``i`` of a plan is a function of the plan and ``i`` alone, whoever makes it: a resumed
training sees what an unbroken one would have seen, and more workers change the speed alone.
"""

from __future__ import annotations

import multiprocessing
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Executor, Future, ProcessPoolExecutor, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from types import TracebackType
from typing import Final, Self

import numpy as np
from numpy.typing import NDArray

from streamad.training.corpus.config import CorpusConfig
from streamad.training.corpus.sample import Sample, draw_sample

CLIP: Final = 30.0
"""Normalised samples end here; the detector clips at the same value."""
FLAT: Final = 1e-4
"""Added to every deviation, as published: a constant series becomes zeros."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchPlan:
    """What batches hold.

    samples : values per batch, over all series and variates: wide series come in small batches
    length : longest series; others are shorter by whole patches, and padded
    widths, width_share : numbers of variates, and how often each is drawn
    shortest : samples of the shortest series (None: a quarter of the longest)
    full : share of series of the full length, others are as often short as long
    cut : share of series whose end is cut off, so that an event may be seen to begin only, as a
        detector sees it that judges the newest samples
    another: share normalised by the statistics of
        another stretch of the series, as a detector with training statistics does
    gaps : share of series with samples missing, drawn in by a line
    """

    seed: int = 0
    samples: int = 16_384
    length: int = 1024
    patch: int = 16
    widths: tuple[int, ...] = (1, 2, 3, 5)
    width_share: tuple[float, ...] = (0.7, 0.1, 0.1, 0.1)
    shortest: int | None = None
    full: float = 0.4
    cut: float = 0.0
    another: float = 0.2
    gaps: float = 0.15
    corpus: CorpusConfig = field(default_factory=CorpusConfig)


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """Series of one width, padded at their end.

    series : float32 ``(n, length, n_variates)``, normalised, 0 where padded; normal : the clean
        twins in the same units
    labels : bool ``(n, length, n_variates)``; present : bool ``(n, length)``, not padded
    """

    series: NDArray[np.float32]
    normal: NDArray[np.float32]
    labels: NDArray[np.bool_]
    present: NDArray[np.bool_]


def make_batch(plan: BatchPlan, number: int) -> Batch:
    """Make batch ``number`` of a plan."""
    rng = np.random.default_rng([plan.seed, number])
    width = int(rng.choice(plan.widths, p=np.array(plan.width_share) / sum(plan.width_share)))
    n = max(plan.samples // (plan.length * width), 1)
    series = np.zeros((n, plan.length, width), dtype=np.float32)
    normal = np.zeros_like(series)
    labels = np.zeros(series.shape, dtype=np.bool_)
    present = np.zeros(series.shape[:2], dtype=np.bool_)
    for i in range(n):
        length = plan.length
        if rng.random() >= plan.full:
            shortest = plan.shortest or max(plan.length // 4, 8 * plan.patch)
            drawn = np.exp(rng.uniform(np.log(shortest), np.log(plan.length + plan.patch)))
            length = plan.patch * min(int(drawn) // plan.patch, plan.length // plan.patch)
        beyond = int(rng.integers(1, length // 3)) if rng.random() < plan.cut else 0
        sample = draw_sample(plan.corpus, rng, length=length + beyond, n_variates=width)
        sample = _newest_cut(sample, length)
        values = sample.series
        if rng.random() < plan.gaps:
            values = _with_gaps(values, sample.labels, rng)
        loc, scale = _units(values, sample, rng, another=plan.another)
        series[i, :length] = np.clip((values - loc) / scale, -CLIP, CLIP)
        normal[i, :length] = np.clip((sample.normal - loc) / scale, -CLIP, CLIP)
        labels[i, :length] = sample.labels
        present[i, :length] = True
    return Batch(series=series, normal=normal, labels=labels, present=present)


def _newest_cut(sample: Sample, length: int) -> Sample:
    """Return the sample up to ``length``; its events are those of the whole."""
    return replace(
        sample,
        series=sample.series[:length],
        normal=sample.normal[:length],
        labels=sample.labels[:length],
    )


def _units(
    values: NDArray[np.float32], sample: Sample, rng: np.random.Generator, *, another: float
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return mean and deviation of each variate, of the series or of a stretch of its clean twin.

    The deviation has a random sign: up and down are alike.
    """
    flip = rng.choice(np.array([-1.0, 1.0], dtype=np.float32))
    of = values
    if rng.random() < another:
        start = int(rng.integers(0, len(values) // 2 + 1))
        of = sample.normal[start : start + len(values) // 2]
    # A quiet stretch is no measure of a lively series.
    scale = np.maximum(of.std(axis=0), 0.2 * values.std(axis=0))
    return of.mean(axis=0), flip * (scale + np.float32(FLAT))


def _with_gaps(
    values: NDArray[np.float32], labels: NDArray[np.bool_], rng: np.random.Generator
) -> NDArray[np.float32]:
    """Replace a few stretches without a label by the line between their neighbours."""
    out = values.copy()
    n = len(values)
    for _ in range(int(rng.integers(1, 4))):
        start = int(rng.integers(1, n - 16))
        stop = start + int(rng.integers(1, 13))
        if not labels[start:stop].any():
            share = np.linspace(0, 1, stop - start + 2, dtype=np.float32)[1:-1, None]
            out[start:stop] = (1 - share) * out[start - 1] + share * out[stop]
    return out


class Batches:
    """The batches of a plan in their order, from ``first`` on, made ahead; a context manager.

    workers : processes that make batches (0: one thread of this process, enough where a step takes
        longer than a batch)
    ahead : batches held ready per worker
    """

    def __init__(
        self, plan: BatchPlan, *, first: int = 0, workers: int = 0, ahead: int = 3
    ) -> None:
        self._plan, self._next = plan, first
        self._pool: Executor
        if workers > 0:
            # Spawned, not forked: a fork of a process with torch's threads may hang.
            context = multiprocessing.get_context("spawn")
            self._pool = ProcessPoolExecutor(workers, mp_context=context)
        else:
            self._pool = ThreadPoolExecutor(1)
        self._waiting: deque[Future[Batch]] = deque()
        self._room = ahead * max(workers, 1)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._pool.shutdown(wait=True, cancel_futures=True)

    def __iter__(self) -> Iterator[Batch]:
        while True:
            yield self.take()

    def take(self) -> Batch:
        """Return the next batch, waiting for it where it is not ready."""
        while len(self._waiting) < self._room:
            self._waiting.append(self._pool.submit(make_batch, self._plan, self._next))
            self._next += 1
        return self._waiting.popleft().result()
