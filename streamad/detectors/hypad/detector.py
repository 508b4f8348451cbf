"""HypAD: how badly a window is reconstructed, and how certain the model is of what it expected."""

from __future__ import annotations

from typing import ClassVar, Final, Literal, Self

import numpy as np

from streamad.detectors.base import Arrays, DetectorInfo, Floats, Ints, Memory, WindowExplanations
from streamad.detectors.hypad.network import NAMES, Network, Read
from streamad.detectors.pyod_models import Rows, WindowModel, scaled_rows
from streamad.errors import ArtifactError, ConfigError, NotFittedError
from streamad.registry import Registry

TRAINERS: Final = Registry(
    "trainer", "streamad.signal_trainers", {"hypad": "streamad.training.hypad:fit_arrays"}
)
"""Training needs torch; it is loaded when ``fit`` is called, and never to serve."""
Combination = Literal["certain", "plain", "paper"]
COMBINATIONS: Final = ("certain", "plain", "paper")
PARTS: Final = ("window", "judged", "peak", "critic")
REACH: Final = 4.0
"""The network sees scaled samples up to here, where ordinary ones lie within -1 and 1: what the
decoder cannot reach is an error all the same, and nothing overflows."""
CLIP: Final = 1e6
"""Scaled samples end here. The largest error is of these: beyond `REACH`, too, more is stranger."""
MOST: Final = 1e6
LEAST_SPREAD: Final = 1e-6
SURE: Final = 0.8
UNSURE: Final = 0.4


class HypAD(WindowModel):
    """Judge a window by its reconstruction, measured in hyperbolic space.

    A recurrent auto-encoder, trained against two critics on ordinary windows, reconstructs each
    window; both become points of the Poincaré ball, where near the centre is what the model does
    not commit itself to. The score is ``certainty * (log(1 + w) + log(1 + j) + log(1 + p) +
    log(1 + c) / 2)``, of how far beyond training windows (in spans from median to 95 % quantile)

    - w : the hyperbolic distance of window and reconstruction is;
    - j : the same where only the samples around the judged one differ;
    - p : the largest error of a sample of the window is, however far beyond training it lies;
    - c : the critic's value is from its median, to either side;

    and of certainty, the norm of the reconstruction's point, 0 to 1, as a share of what it is on
    training windows (at most 1): a large error of a model that knows less than usual what to expect
    counts less.

    It is fitted for the series it judges, or a group of alike ones, each in its own scale, on
    `max_windows` windows however long they are: about half a minute of one core, and twice in
    ``streamad fit``, which also measures the tail. A score costs about a millisecond.

    Differences from the paper: each window is a sequence by itself (`streamad.networks.hypad`);
    statistics of training windows replace those of the series judged, and no kernel density is
    estimated. The paper's score, ``critic * distance * certainty``, is there as ``combination:
    paper``; it ranked worse on the series this was chosen by, for it misses errors of few samples.

    Parameters
    ----------
    size : samples a window
    max_windows : training windows kept, evenly chosen
    combination : ``certain``; ``plain``, without certainty; ``paper``, the paper's product
    steps, critic_passes, seed : of the training

    Source: Flaborea et al., Are we certain it's anomalous?, CVPR-W VAND 2023 (arXiv 2211.09224).
    """

    finite: ClassVar[tuple[str, ...]] = (*NAMES, "bounds", "usual", "certain")
    info: ClassVar[DetectorInfo] = DetectorInfo(
        name="hypad",
        summary="reconstruction by a recurrent network that knows how certain it is",
        min_size=16,
        needs_training=True,
        learns=True,
        learn_every=16,
        cost="heavy",
        certain=True,
        tail=(0.3, 0.6, 1.2, 2.4),
        paper="Flaborea et al., Are we certain it's anomalous?, CVPR-W VAND 2023",
    )

    def __init__(
        self,
        *,
        size: int | None = None,
        max_windows: int = 800,
        combination: Combination = "certain",
        steps: int = 200,
        critic_passes: int = 5,
        seed: int = 0,
    ) -> None:
        super().__init__(size=size, max_windows=max_windows)
        if combination not in COMBINATIONS:
            msg = f"combination must be one of {', '.join(COMBINATIONS)}, got {combination!r}"
            raise ConfigError(msg)
        if min(max_windows, steps, critic_passes) < 1:
            msg = (
                "max_windows, steps and critic_passes must be 1 or more, got "
                f"{max_windows}, {steps}, {critic_passes}"
            )
            raise ConfigError(msg)
        self.combination = combination
        self.steps, self.critic_passes, self.seed = steps, critic_passes, seed
        self._arrays: Arrays = {}
        self._network: Network | None = None
        self._bounds = np.zeros((2, 0), np.float32)
        self._spans = np.zeros((len(PARTS), 2))
        self._certain = np.ones(1)

    def looks(
        self, windows: Floats, *, memory: Memory | None = None, slots: Ints | None = None
    ) -> Floats:
        """Return score and certainty of each window, ``(n_windows, 2)``."""
        bounded = self._in_bounds(windows, memory, slots)
        read = self._read(bounded)
        certainty = read.certainty.mean(axis=1).astype(np.float32)
        return np.stack([self._combined(read, bounded), certainty], axis=1)

    def explain(
        self, windows: Floats, *, memory: Memory | None = None, slots: Ints | None = None
    ) -> WindowExplanations:
        """Return the judged sample, its reconstruction, shares of the distance, and certainty."""
        loc, scale = self._scales(windows, memory, slots)
        bounded = self._in_bounds(windows, memory, slots)
        read = self._read(bounded)
        judged = self.size - 1 - self.lag
        low, high = self._bounds
        usual = (read.usual[:, judged] + 1) / 2 * (high - low) + low
        # Not of the distances: the layer into the ball sees some directions better than others.
        gap = read.usual - bounded
        error = (gap.astype(np.float64) ** 2).sum(axis=1) + 1e-12
        share = error / error.sum(axis=1, keepdims=True)
        rows = np.arange(len(windows))
        return WindowExplanations(
            observed=windows[:, judged].copy(),
            expected=(usual * scale + loc).astype(np.float32),
            share=share.astype(np.float32),
            position=np.full(len(windows), judged, dtype=np.int32),
            note=[sureness(float(one)) for one in read.certainty[rows, share.argmax(axis=1)]],
        )

    def state(self) -> Arrays:
        """Return the network, the bounds it was scaled by, and statistics of training windows."""
        if self._network is None:
            return {}
        made: Arrays = {
            **self._arrays,
            "bounds": self._bounds,
            "usual": self._spans,
            "certain": self._certain,
        }
        return {**made, "loc": self._loc, "scale": self._scale}

    def load(self, state: Arrays) -> Self:
        """Take back what ``state`` returned."""
        if not state:
            return self
        self._loc, self._scale = state["loc"].copy(), state["scale"].copy()
        n_variates = self._loc.shape[1]
        if state["bounds"].shape != (2, n_variates) or state["usual"].shape != (len(PARTS), 2):
            msg = f"the artifact's bounds are not those of {n_variates} variates; fit it again"
            raise ArtifactError(msg)
        self._bounds = state["bounds"].astype(np.float32)
        self._spans = state["usual"].astype(np.float64)
        self._certain = state["certain"].astype(np.float64)[:1]
        self._arrays = {name: state[name].copy() for name in NAMES}
        self._network = Network(self._arrays, size=self.size, n_variates=n_variates)
        self._bank = np.zeros((1, self.size * n_variates), np.float32)
        return self

    # ------------------------------------------------------------------ the model of rows

    def _train(self, rows: Rows) -> None:
        try:
            train = TRAINERS.load("hypad")
        except ModuleNotFoundError as error:
            msg = f"hypad trains with torch ({error}); pip install 'streamad-pipeline[train]'"
            raise ConfigError(msg) from error
        n_variates = self._loc.shape[1]
        samples = rows.reshape(-1, n_variates)
        low, high = samples.min(axis=0), samples.max(axis=0)
        still = high - low < LEAST_SPREAD
        low, high = np.where(still, low - 0.5, low), np.where(still, high + 0.5, high)
        self._bounds = np.stack([low, high]).astype(np.float32)
        windows = self._bounded(rows.astype(np.float32))
        arrays: Arrays = train(
            windows, seed=self.seed, steps=self.steps, critic_passes=self.critic_passes
        )
        self._arrays = arrays
        self._network = Network(arrays, size=self.size, n_variates=n_variates)
        read = self._read(windows)
        parts = _parts(read, windows)
        middle = np.median(parts, axis=1)
        parts[-1] = np.abs(parts[-1] - middle[-1])
        far = np.quantile(parts, 0.95, axis=1)
        far[:-1] -= middle[:-1]
        # Of windows that are all alike, a thousandth of the median is a span.
        self._spans = np.stack(
            [middle, np.maximum(far, 1e-3 * np.abs(middle) + LEAST_SPREAD)], axis=1
        )
        self._certain = np.median(read.certainty.mean(axis=1))[None]

    def _scores(self, rows: Floats) -> Floats:
        """Return a score a row; each is run alone, so that none is filled up."""
        windows = self._bounded(rows)
        return self._combined(self._read(windows), windows)

    def _combined(self, read: Read, windows: Floats) -> Floats:
        middle, span = self._spans.T[:, :, None]
        parts = _parts(read, windows)
        beyond = (parts - middle) / span
        beyond[-1] = np.abs(beyond[-1])
        certainty = read.certainty.mean(axis=1)
        if self.combination == "paper":
            found = (1 + beyond[-1]) * parts[0] * certainty
        else:
            logs = np.log1p(np.maximum(beyond, 0))
            found = logs[0] + logs[1] + logs[2] + logs[3] / 2
            if self.combination == "certain":
                found *= np.minimum(certainty / max(self._certain[0], LEAST_SPREAD), 1)
        made: Floats = np.clip(np.nan_to_num(found, nan=MOST), 0, MOST).astype(np.float32)
        return made

    def _judge(self, rows: Rows) -> Rows:
        return self._scores(rows.astype(np.float32)).astype(np.float64)

    def _usual(self, rows: Rows) -> Rows:
        """Return the reconstruction of each row, in training scales."""
        low, high = self._bounds
        usual = (self._read(self._bounded(rows.astype(np.float32))).usual + 1) / 2
        made: Rows = (usual * (high - low) + low).reshape(rows.shape).astype(np.float64)
        return made

    def _in_bounds(self, windows: Floats, memory: Memory | None, slots: Ints | None) -> Floats:
        return self._bounded(scaled_rows(windows, *self._scales(windows, memory, slots)))

    def _bounded(self, rows: Floats) -> Floats:
        """Return rows as windows, -1 to 1 where they are as in training."""
        low, high = self._bounds
        windows = rows.reshape(len(rows), self.size, self._loc.shape[1])
        scaled = (windows - low) / (high - low) * np.float32(2) - np.float32(1)
        made: Floats = np.ascontiguousarray(np.clip(scaled, -CLIP, CLIP), np.float32)
        return made

    def _read(self, windows: Floats) -> Read:
        if self._network is None:
            msg = "hypad was not fitted; run `streamad fit`, or name an artifact"
            raise NotFittedError(msg)
        return self._network.read(np.clip(windows, -REACH, REACH), judged=self.size - 1 - self.lag)


def _parts(read: Read, windows: Floats) -> Rows:
    """Return what a score is made of, in the order of `PARTS`; float64 ``(4, n)``."""
    worst = np.abs(read.usual - windows).max(axis=(1, 2))
    return np.stack([read.apart.mean(axis=1), read.local.mean(axis=1), worst, read.critic])


def sureness(certainty: float) -> str:
    """Return a model's certainty in words.

    Examples
    --------
    >>> sureness(0.95)
    'the model was sure of what it expected'
    >>> sureness(0.2)
    'the model did not know what to expect here'
    """
    if certainty >= SURE:
        return "the model was sure of what it expected"
    if certainty >= UNSURE:
        return "the model was fairly sure of what it expected"
    return "the model did not know what to expect here"
