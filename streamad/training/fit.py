"""Fit a detector on a table of series, the way it will be used, and measure its tail honestly.

Nothing here needs torch: windows come from the code that cuts them live, and the tail is measured
on the last third of each series after a fit on the rest, through the live operator.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from streamad.artifacts import Manifest, SeriesShape, TrainingRange
from streamad.config import PipelineConfig
from streamad.detectors.contract import Floats, Ints, ItemDetector
from streamad.errors import TrainingError
from streamad.operators.detect import DetectOperator
from streamad.records import SignalBatch
from streamad.scoring.law import box_cox, fit_law, from_box_cox, law_of_tail, tail_of_law
from streamad.windows.keys import KeyTable
from streamad.windows.kinds import GAUGE, kinds_of
from streamad.windows.period import MAX_SHARE, MAX_SIZE, choose_size
from streamad.windows.signals import SignalWindows, WindowPlan

MAX_WINDOW_BYTES = 256 * 2**20
"""Windows held for one fit; more series than this are cut at a longer stride."""
N_SEEDS = 64
"""Block maxima an artifact holds per key at the most."""
TAIL_WINDOWS = 200
"""Fewer scored windows say too little of a tail; the detector's own default is kept."""
HELD_OUT = 3
"""The last of this many parts of each series measures the tail."""
MAX_SERIES_FOR_SIZE = 64
LEAST_SIZE = 16
SIZE_WITHOUT_PERIOD = MAX_SIZE
"""Where nothing repeats, more context was measured to be better than less."""

Make = Callable[[int | None], ItemDetector[Any]]
Progress = Callable[[str], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingWindows:
    """Windows of several series: ``values`` ``(n, size, n_variates)``, ``groups`` ``(n,)``.

    names : the key of each group; keys too short for a window are no group
    """

    values: Floats
    groups: Ints
    names: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Fitted:
    """A fitted detector, what its manifest has to say, and block maxima per group (`Episodes`)."""

    detector: ItemDetector[Any]
    manifest: Manifest
    seeds: Floats


def fit_detector(
    make: Make,
    config: PipelineConfig,
    batch: SignalBatch,
    *,
    facts: Mapping[str, str] | None = None,
    progress: Progress = lambda _: None,
) -> Fitted:
    """Fit on all of ``batch``; the tail comes from a fit on its first two thirds.

    make : builds the detector, unfitted, for a window size (None: the detector's default)
    batch : rows of one or many keys in time order; each key is a group of the detector
    facts : for the manifest: ``licence``, ``created``, ``detector_version``
    """
    if len(batch) == 0:
        msg = "there are no rows to fit on"
        raise TrainingError(msg)
    detector = make(pick_size(make, config, batch))
    progress("measuring the tail")
    measured = measure_tail(make, config, batch, size=detector.size)
    progress("fitting")
    windows = cut_windows(config, detector, batch)
    if len(windows.values) == 0:
        longest = max(len(one) for one in split(batch))
        msg = (
            f"no training window could be cut: windows have {detector.size} samples and the "
            f"longest series has {longest} rows; give more rows, or a smaller windows.size"
        )
        raise TrainingError(msg)
    detector.fit(windows.values, groups=windows.groups)
    manifest = Manifest(
        detector=detector.info.name,
        params=dict(config.detector.params),
        size=detector.size,
        stride=config.windows.stride,
        variates=config.input.fields.variate_names,
        fields=config.input.fields,
        series=SeriesShape(
            kind=config.series.kind, step=config.series.step, aggregate=config.series.aggregate
        ),
        config_checksum=config.decision_checksum(),
        trained=TrainingRange(
            rows=len(batch),
            windows=len(windows.values),
            from_ms=int(batch.time_ms.min()),
            to_ms=int(batch.time_ms.max()),
        ),
        groups=windows.names,
        tail=measured.tail,
        tail_windows=measured.n_windows,
    ).model_copy(update=dict(facts or {}))
    none = np.full((detector.info.n_looks, N_SEEDS), -1, np.float32)
    seeds = np.stack([measured.seeds.get(name, none) for name in windows.names])
    return Fitted(detector=detector, manifest=manifest, seeds=seeds)


def pick_size(make: Make, config: PipelineConfig, batch: SignalBatch) -> int:
    """Return the configured size, or for ``auto`` the one most series' periods ask for.

    A quarter of the longest training series at most, so that there is something to compare with:
    an eighth and a half were measured to be worse, for long windows and for short training parts.
    For a detector that takes partial windows a window is no unit to compare but all it may know:
    it has its default size.
    """
    if config.windows.size != "auto":
        return config.windows.size
    default = make(None)
    if default.min_periods < default.size:
        return default.size
    series = split(batch)[:MAX_SERIES_FOR_SIZE]
    longest = max(len(one) for one in series)
    most = max(LEAST_SIZE, longest // 4)
    size = choose_size(
        [one.values for one in series],
        default=SIZE_WITHOUT_PERIOD,
        # In its terms: training rows are all that is known of how long the series will be.
        n_rows=most * MAX_SHARE,
    )
    return max(min(size, longest), default.info.min_size)


def split(batch: SignalBatch) -> list[SignalBatch]:
    """Return one batch a key, keys in order of appearance."""
    if batch.keys.n_unique() <= 1:
        return [batch] if len(batch) else []
    codes, _ = KeyTable(len(batch)).encode(batch.keys)
    order = np.argsort(codes, kind="stable")
    bounds = np.flatnonzero(np.diff(codes[order])) + 1
    return [rows_of(batch, rows) for rows in np.split(order, bounds)]


def rows_of(batch: SignalBatch, rows: NDArray[np.int64]) -> SignalBatch:
    """Return these rows of a batch, in this order."""
    return replace(
        batch,
        keys=batch.keys.gather(rows),
        time_ms=batch.time_ms[rows],
        values=batch.values[rows],
        message=batch.message[rows],
        row=batch.row[rows],
        tags={name: column.gather(rows) for name, column in batch.tags.items()},
    )


def cut_windows(
    config: PipelineConfig, detector: ItemDetector[Any], batch: SignalBatch
) -> TrainingWindows:
    """Return every complete window of every key, cut as they are cut live.

    Where they would not fit in `MAX_WINDOW_BYTES` the stride grows, never beyond the size.
    """
    plan = DetectOperator(config, detector).plan
    per_window = plan.size * plan.n_variates * 4
    most = max(1, MAX_WINDOW_BYTES // per_window)
    stride = min(plan.size, max(plan.stride, -(-len(batch) // most)))
    found = {}
    for one in split(batch):
        cut = _windows_of(replace(plan, stride=stride), one)
        if len(cut):
            found[str(one.keys[0])] = cut
    parts = list(found.values()) or [np.empty((0, plan.size, plan.n_variates), np.float32)]
    counts = [len(part) for part in parts]
    return TrainingWindows(
        values=np.concatenate(parts),
        groups=np.repeat(np.arange(len(parts), dtype=np.int32), counts),
        names=tuple(found),
    )


def _windows_of(plan: WindowPlan, batch: SignalBatch) -> Floats:
    windows = SignalWindows(plan)
    windows.state.reserve(1)
    kinds, kind = kinds_of(batch) if plan.kind == "auto" else None, None
    if kinds is not None:
        # As live: a series is what its first row is, and others are left out.
        rows = np.maximum(kinds, GAUGE)
        batch, kind = rows_of(batch, np.flatnonzero(rows == rows[0])), rows[:1]
    codes = np.zeros(len(batch), np.int32)
    late = np.zeros(len(batch), np.bool_)
    parts = [np.empty((0, plan.size, plan.n_variates), np.float32)]
    # A block's arrays are used again for the next one; choosing windows by a mask copies them.
    parts += [
        block.values[~block.incomplete]
        for block in windows.ingest(codes, batch.time_ms, batch.values, late, kind)
    ]
    return np.concatenate(parts)


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """What scores do on training data the detector was not fitted on.

    tail : scores at the tail probabilities over all keys (None: too few windows); seeds : block
        maxima per key ``(n_keys, n_looks, N_SEEDS)``, newest first, -1 where there is none
    """

    tail: tuple[float, float, float, float] | None
    seeds: dict[str, Floats]
    n_windows: int


def measure_tail(make: Make, config: PipelineConfig, batch: SignalBatch, *, size: int) -> Measured:
    """Fit on the first two thirds of each key and score the last third as it would be live.

    Each block of a window's length gives one maximum. Training data is seldom free of anomalies;
    the law is fitted by quartiles, so that a few of them do not matter.
    """
    heads, rests = _cut_series(batch, size)
    detector = make(size)
    windows = cut_windows(config, detector, heads)
    if len(windows.values) == 0 or len(rests) == 0:
        return Measured(tail=None, seeds={}, n_windows=0)
    detector.fit(windows.values, groups=windows.groups)
    groups = {name: number for number, name in enumerate(windows.names)}
    operator = DetectOperator(config, detector, groups=groups)
    scored = operator.process(operator.new_state(), rests).scores
    n_looks = detector.info.n_looks
    frame = pl.concat(
        [
            pl.DataFrame({"key": one.keys, "a": one.score, "b": one.newest}).filter(
                pl.col("a").is_finite()
            )
            for one in scored
        ]
        or [pl.DataFrame(schema={"key": pl.String, "a": pl.Float32, "b": pl.Float32})]
    )
    seeds, pooled = {}, []
    for key, own in frame.partition_by("key", as_dict=True, maintain_order=True).items():
        looks = own.select("a", "b").to_numpy()[:, :n_looks].astype(np.float32)
        maxima = block_maxima(looks, max(size // config.windows.stride, 1))
        seeds[str(key[0])] = maxima
        pooled.append(maxima[0][maxima[0] >= 0])
    if len(frame) < TAIL_WINDOWS or not sum(map(len, pooled)):
        return Measured(tail=None, seeds=seeds, n_windows=len(frame))
    power = operator.modality.episodes.power
    usual = law_of_tail(tuple(box_cox(look, power) for look in detector.info.tail))
    law = fit_law(np.concatenate(pooled), *usual)
    a, b, c, d = (from_box_cox(score, power) for score in tail_of_law(*law))
    return Measured(tail=(a, b, c, d), seeds=seeds, n_windows=len(frame))


def block_maxima(looks: Floats, length: int) -> Floats:
    """Return the maxima of blocks of ``length`` windows ``(n_looks, N_SEEDS)``, newest first.

    Examples
    --------
    >>> block_maxima(np.array([[1], [5], [2], [3]], np.float32), 2)[:, :3].tolist()
    [[3.0, 5.0, -1.0]]
    """
    made = np.full((looks.shape[1], N_SEEDS), -1, np.float32)
    n = min(len(looks) // length, N_SEEDS)
    if n:
        blocks = looks[len(looks) - n * length :].reshape(n, length, -1).max(axis=1)
        made[:, :n] = np.maximum(blocks, 0)[::-1].T
    return made


def _cut_series(batch: SignalBatch, size: int) -> tuple[SignalBatch, SignalBatch]:
    """Cut each key's rows at two thirds; the rest begins early enough to fill its first window."""
    codes, _ = KeyTable(len(batch)).encode(batch.keys)
    place, length = _places(codes)
    cut = length - length // HELD_OUT
    head = np.flatnonzero(place < cut)
    rest = np.flatnonzero(place >= np.maximum(cut - (size - 1), 0))
    return rows_of(batch, head), rows_of(batch, rest)


def _places(codes: Ints) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return each row's place among its key's rows, and how many rows its key has."""
    frame = pl.DataFrame({"code": codes}).select(
        place=pl.int_range(pl.len()).over("code"), length=pl.len().over("code")
    )
    return frame["place"].to_numpy().astype(np.int64), frame["length"].to_numpy().astype(np.int64)
