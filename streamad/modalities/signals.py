"""Signals: rows of measured values, judged by sliding windows of a (multivariate) series."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from streamad.detectors.base import WindowExplanations, smoothing
from streamad.modalities.base import Item, Modality, Span
from streamad.modalities.levels import levels_of
from streamad.modalities.merged import merged_rows
from streamad.records import Explanation, SignalBatch
from streamad.scoring.episodes import EpisodePlan
from streamad.scoring.sudden import sudden
from streamad.windows.kinds import CODES, DECLARED, GAUGE, UNKNOWN, kinds_of
from streamad.windows.signals import SignalWindows, WindowPlan

NEWEST_AT = 4
"""Samples after the judged one at which the newest look is evidence for the centred one."""


class Signals(Modality):
    """Windows of series."""

    name = "signals"
    records = "signals"
    unit = "sample"

    def describe(self) -> str:
        """Return the window's size and how many variates it has."""
        n = self.plan.n_variates
        return f"{self.detector.size} samples, {n} variate{'' if n == 1 else 's'}"

    @property
    def plan(self) -> WindowPlan:
        """Return how samples are made and windows cut."""
        config, series = self.config, self.config.series
        return WindowPlan(
            size=self.detector.size,
            stride=config.windows.stride,
            n_variates=len(config.input.fields.variate_names),
            step_ms=series.step or 0,
            lateness_ms=series.lateness,
            kind=series.kind,
            aggregate=series.aggregate,
            fill=series.gaps.fill,
            max_missing=series.gaps.max_share,
            nan_limit=self.detector.info.nan_ok,
            reorder=series.reorder,
            min_periods=self.detector.min_periods,
        )

    @property
    def episodes(self) -> EpisodePlan:
        """Return when episodes of a series begin and end, in windows."""
        config, detector = self.config, self.detector
        scoring, size, stride = config.scoring, detector.size, config.windows.stride
        two = detector.info.n_looks == 2
        delay = (detector.lag - smoothing(size) - NEWEST_AT) // stride if two else 0
        return EpisodePlan(
            **levels_of(config)._asdict(),
            min_windows=scoring.min_windows,
            min_duration=scoring.min_duration,
            cool_down=scoring.cool_down,
            adopt_ms=scoring.adopt_after,
            first_ms=scoring.first_day,
            update_every=scoring.update_every,
            memory_ms=scoring.memory,
            size=detector.reach,
            window=size,
            stride=stride,
            step_ms=config.series.step or 0,
            smooth_delay=max(delay, 0),
            learns=detector.info.learns,
            power=detector.info.power,
            zone=scoring.timezone,
        )

    def windows(self) -> SignalWindows:
        """Return the windows of series, empty."""
        return SignalWindows(self.plan)

    def waiting(self, values: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the values: they are the first window's."""
        return values

    def kinds(
        self, batch: SignalBatch, usable: NDArray[np.bool_]
    ) -> tuple[NDArray[np.int8] | None, NDArray[np.int64]]:
        """Return each row's kind for ``series.kind: auto``; else rows declared to be of another."""
        kind, found = self.config.series.kind, kinds_of(batch)
        if kind == "auto":
            return None if found is None else np.maximum(found, GAUGE), np.empty(0, np.int64)
        if found is not None and self.config.input.format in DECLARED:
            return None, np.flatnonzero(usable & (found != UNKNOWN) & (found != CODES[kind]))
        return None, np.empty(0, np.int64)

    def merged(self, batch: SignalBatch, hashes: NDArray[np.uint64]) -> NDArray[np.int64]:
        """Return the rows whose key and time another row of their message has."""
        return merged_rows(batch, hashes)

    def sudden(self, values: NDArray[np.float32]) -> NDArray[np.bool_] | None:
        """Return which windows end with a break, where the detector has a newest look."""
        return sudden(values) if self.detector.info.n_looks > 1 else None

    def effect(self, why: WindowExplanations) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Return observed and expected of each window's most telling variate."""
        rows, worst = np.arange(len(why.share)), why.share.argmax(axis=1)
        return why.observed[rows, worst], why.expected[rows, worst]

    def explanation(self, why: WindowExplanations, i: int, item: Item) -> Explanation:
        """Return an explanation by variate name.

        Where samples are irregular the explained sample's time is estimated as if they were not.
        """
        names = self.config.input.fields.variate_names
        observed, expected, share = (
            dict(zip(names, column[i].astype(float).tolist(), strict=True))
            for column in (why.observed, why.expected, why.share)
        )
        return Explanation(
            observed=observed,
            expected=expected,
            variates=share,
            time_ms=sample_time(item, int(why.position[i])),
            note=why.note[i] if why.note is not None else "",
        )

    def span(self, why: WindowExplanations | None, i: int, item: Item) -> Span:
        """Return the times of the first and last anomalous sample of a window."""
        if why is None:
            return Span(item.end_ms, item.end_ms, stands_out=True, both_sides=False)
        if why.first is None or why.last is None:
            at_ms = sample_time(item, int(why.position[i]))
            return Span(at_ms, at_ms, stands_out=True, both_sides=False)
        if why.first[i] < 0:
            at_ms = sample_time(item, int(why.position[i]))
            return Span(at_ms, at_ms, stands_out=False, both_sides=True)
        first_ms = sample_time(item, int(why.first[i]))
        return Span(first_ms, sample_time(item, int(why.last[i])), stands_out=True, both_sides=True)


def sample_time(item: Item, place: int) -> int:
    """Return the time of a window's sample."""
    return item.start_ms + (item.end_ms - item.start_ms) * place // max(item.size - 1, 1)
