"""The detector itself: what it learns of windows, and how it judges them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, ClassVar, Final, Self

import numpy as np
from numpy.typing import NDArray

from streamad.detectors.base import (
    Arrays,
    DetectorInfo,
    Floats,
    Ints,
    Memory,
    WindowExplanations,
    require_windows,
)
from streamad.detectors.embeddings import EMBEDDINGS, FEATURES, SHIPPED, load_encoder
from streamad.detectors.scales import from_scales
from streamad.detectors.similarity import ADAPTERS
from streamad.detectors.themis.against import AGAINST, unlike
from streamad.detectors.themis.features import Features, in_steps, scaled, steps
from streamad.detectors.themis.memory import WARM, EmbeddingMemory, ThemisMemory
from streamad.detectors.themis.remembering import Remembering, Scales
from streamad.detectors.themis.search import fused, mean_of_nearest, nearest
from streamad.detectors.themis.within import compare_within, middle
from streamad.errors import ArtifactError, ConfigError

MEMORY: Final = "memory"
_Past = tuple[NDArray[np.int64], Floats, Floats, NDArray[np.bool_]]
"""Rows of a batch; what they are compared with, ``(n_features, capacity)`` and the samples judged
there; and which of it they may see."""


class Themis(Remembering):
    """Judge a window by how far its embedding lies from those of the past.

    A pretrained Chronos-Bolt encoder turns every 16 samples into a vector. Two stretches around the
    judged sample (a quarter of the window, all of it) are embedded, once as they are, with their
    samples beside the embedding, and once as changes from sample to sample. For each the ``k``
    nearest in a reference of training windows and in the key's own memory are found, and ``score =
    (v^2 c)^(1/3)``, of the mean distances to them, summed over stretches: v of values, c of
    changes. Where a series drifts, or has moved for good, values are all far from the past, and
    changes show what happens on top of it (docs/adr/0035). Each variate is judged alone; the score
    is the largest.

    Windows are shown to the encoder in *training scale* (median and standard deviation of the key's
    group), not normalised one by one: what normalises each window is blind to level and amplitude,
    and that costs more than any encoder gains. The shipped encoder was trained for both. VUS-PR
    .596 on the project's benchmark, where raw windows in its place, of the same lengths and with
    the same past, have .562, and with changes, too, .592: most of the gain is not the encoder's.

    The paper's adapters stand in two forms. Named alone, the window is compared with itself, as in
    the paper: no memory, nothing to fit, and blind to what lasts longer than the window. Take
    windows of 256 or more. Named ``memory_...``, the judged window is compared with the reference
    and the key's memory in the same way. On every sixth of the benchmark's series, 250 windows
    each, the plain distance ranks best: .63, with ``memory_lof`` .49, ``memory_trimmed_top_k`` .36,
    ``memory_mean_similarity`` .28, ``memory_spectral_residual`` .20; abs(z) has .22, `knn_fused`
    .56 (``tests/bench/themis_quality.py``, ``--every 6 --max-windows 250``). Cosines forget how
    large a change is; take them where only its shape should count.

    A key known to the artifact starts with its group's scale (`seed_memory`). An unknown one takes
    its scale from its warm-up; while cold it scores 0. What a key's window number ``i`` may see is
    bounded by counts alone: windows learned up to the last multiple of ``learn_every``, and older
    than four windows' length. The warm-up is seen without that delay.

    Missing samples are drawn in from their neighbours before embedding; the adapters mask them.

    Parameters
    ----------
    size : samples a window, best the period of the series
    model : ``"shipped"``, a directory of the training script, or a Chronos hub id or directory
        (extra ``train``)
    adapter : ``"memory"``; or one of ``"mean_similarity"``, ``"trimmed_top_k"``, ``"lof"``,
        ``"spectral_residual"``, within the window; or one of these after ``"memory_"``
    k : neighbours averaged
    history : past windows a key remembers, one every sixteenth of a window's length
    reference : training windows kept over all groups, shared by all keys
    lag : samples by which the judged one trails the newest (None: half a window)

    Examples
    --------
    >>> import numpy as np
    >>> t = np.arange(600, dtype=np.float32)
    >>> series = np.sin(2 * np.pi * t / 32) + 0.05 * np.cos(t * t)
    >>> windows = np.lib.stride_tricks.sliding_window_view(series, 64)[:, :, None].copy()
    >>> themis = Themis(size=64).fit(windows[:400])
    >>> strange = windows[450:451].copy()
    >>> strange[0, 24:36] = 0.0
    >>> bool(themis.score(strange)[0] > 3 * themis.score(windows[450:500]).max())
    True
    """

    finite: ClassVar[tuple[str, ...]] = ("bank", "judged")
    from_elsewhere: ClassVar[tuple[str, ...]] = ("model",)
    # Embeddings of a key's past in its own scale, which it keeps: the encoder is the pipeline's.
    keeps_memory = True
    info: ClassVar[DetectorInfo] = DetectorInfo(
        name="themis",
        summary="nearest neighbours among embeddings of a pretrained forecaster (Chronos-Bolt)",
        min_size=16,
        learns=True,
        warm_up=256,
        learn_every=16,
        delay=256,
        nan_ok=0.2,
        cost="heavy",
        tail=(1.5, 4.0, 10.0, 25.0),
        paper="Lorik et al., THEMIS, arXiv 2510.03911, 2025; Ansari et al., Chronos, TMLR 2024",
    )

    def __init__(  # noqa: PLR0913 each is a setting of the pipeline file, all with a default
        self,
        *,
        size: int | None = None,
        model: str = SHIPPED,
        adapter: str = MEMORY,
        k: int = 3,
        history: int = 256,
        reference: int = 2048,
        lag: int | None = None,
    ) -> None:
        if adapter not in {MEMORY, *AGAINST, *ADAPTERS}:
            known = [MEMORY, *sorted(AGAINST), *sorted(ADAPTERS)]
            msg = f"adapter must be one of {known}, got {adapter!r}"
            raise ConfigError(msg)
        self.model, self.adapter = model, adapter
        super().__init__(size=size, k=k, history=history, reference=reference, lag=lag)
        self._step = np.zeros((0, 0), dtype=np.float32)

    @property
    def _within(self) -> bool:
        """Whether windows are compared with themselves alone."""
        return self.adapter in ADAPTERS

    def _new_features(self) -> Any:
        """Return what turns scaled windows into vectors."""
        wanted = EMBEDDINGS if self._within else FEATURES
        return Features(load_encoder(self.model, wanted), size=self.size, at=self._at)

    def _vectors(self, placed: Floats, of: Ints, scales: Scales) -> Floats:
        _, scale, step = scales
        vectors: Floats = self._features.embed(placed, in_steps(scale[of], step[of]))
        return vectors

    # learning --------------------------------------------------------------------------------

    def fit(self, windows: Floats, *, groups: Ints | None = None) -> Self:
        """Take scales, a group each, and the reference from training windows.

        Parameters
        ----------
        windows : float32 ``(n_windows, size, n_variates)``, in time order inside a group
        groups : int32 ``(n_windows,)``, numbered from 0 (None: all of one series)
        """
        if not self._within:
            return super().fit(windows, groups=groups)
        self._require_some(windows)
        return self

    def _forget_scales(self, n_groups: int, n_variates: int) -> None:
        super()._forget_scales(n_groups, n_variates)
        self._step = np.ones((n_groups, n_variates), dtype=np.float32)

    def _fitted(self) -> Scales:
        return self._loc, self._scale, self._step

    def _held(self, own: ThemisMemory) -> Scales:
        return own.loc, own.scale, _of_embeddings(own).step

    def _measure(self, samples: Floats, runs: Floats) -> Scales:
        return (*super()._measure(samples, runs), steps(runs))

    def new_memory(self, n_variates: int) -> ThemisMemory | None:
        """Return an empty memory, or None for an adapter that compares a window with itself."""
        return None if self._within else super().new_memory(n_variates)

    def _new_own(self, n_variates: int, *, capacity: int, n_early: int) -> EmbeddingMemory:
        return EmbeddingMemory(
            n_variates=n_variates, n_features=self.n_features, capacity=capacity, n_early=n_early
        )

    # judging ---------------------------------------------------------------------------------

    def explain(
        self, windows: Floats, *, memory: Memory | None = None, slots: Ints | None = None
    ) -> WindowExplanations:
        """Return the judged sample, that of the most similar past window, and shares of score.

        An adapter without a memory knows no past window: it expects the window's median.
        """
        return super().explain(windows, memory=memory, slots=slots)

    def _judge(
        self, windows: Floats, memory: Memory | None, slots: Ints | None
    ) -> tuple[Floats, Floats]:
        if not self._within:
            return super()._judge(windows, memory, slots)
        require_windows(windows, size=self.size, nan_ok=self.info.nan_ok)
        within = compare_within(
            windows, encoder=self._features.encoder, adapter=self.adapter, lag=self._lag
        )
        return within, middle(windows)

    def _compare_with_past(
        self, windows: Floats, own: ThemisMemory | None, of: Ints, scales: Scales
    ) -> tuple[Floats, Floats]:
        loc, scale, _ = scales
        n, _, n_variates = windows.shape
        scores = np.zeros((n, n_variates), dtype=np.float32)
        expected = np.where(np.isnan(windows[:, self._at]), loc[of], windows[:, self._at])
        warm = np.flatnonzero(own.phase[of] == WARM) if own is not None else np.arange(n)
        if len(warm) == 0:
            return scores, expected
        queries = self._vectors(scaled(windows[warm], of[warm], loc, scale), of[warm], scales)
        for v in range(n_variates):
            distance, value = self._search(np.ascontiguousarray(queries[:, v]), own, of[warm], v)
            scores[warm, v] = distance
            found = ~np.isnan(value)
            seen, at = warm[found], of[warm[found]]
            observed = windows[seen, self._at, v]
            expected[seen, v] = from_scales(value[found], loc[at, v], scale[at, v], observed)
        return scores, expected.astype(np.float32)

    def _search(
        self, queries: Floats, own: ThemisMemory | None, of: Ints, variate: int
    ) -> tuple[Floats, Floats]:
        """Return score and nearest judged sample (scaled, NaN: none) of ``(n, n_features)``."""
        n, columns = len(queries), self._features.columns()
        best = np.full((n, len(columns) - 1, self.k), np.inf, dtype=np.float32)
        which = np.full(n, -1, dtype=np.int64)
        value = np.full(n, np.nan, dtype=np.float32)
        if len(self._bank):
            everything = np.ones(self._bank.shape[2], dtype=np.bool_)
            nearest(queries, self._bank[variate], everything, columns, best, which)
            value[which >= 0] = self._judged[variate][which[which >= 0]]
        for rows, past, judged, seen in self._pasts(own, of, variate):
            part, which = best[rows], np.full(len(rows), -1, dtype=np.int64)
            nearest(np.ascontiguousarray(queries[rows]), past, seen, columns, part, which)
            best[rows] = part
            nearer = which >= 0
            value[rows[nearer]] = judged[which[nearer]]
        if self.adapter == MEMORY:
            return self._fused(mean_of_nearest(best)), value
        return self._compare_by_paper(queries, own, of, variate), value

    def _fused(self, apart: Floats) -> Floats:
        return fused(apart)

    def _compare_by_paper(
        self, queries: Floats, own: ThemisMemory | None, of: Ints, variate: int
    ) -> Floats:
        """Return how unlike the reference and the key's past each of ``(n, n_features)`` is."""
        columns = self._features.columns()
        bank = self._bank[variate] if len(self._bank) else self._bank.reshape(self.n_features, 0)
        scores = np.zeros(len(queries), dtype=np.float32)
        left = np.ones(len(queries), dtype=np.bool_)
        for rows, past, _, seen in self._pasts(own, of, variate):
            everything = np.concatenate([bank, past[:, seen]], axis=1)
            scores[rows] = unlike(queries[rows], everything, columns, self.adapter)
            left[rows] = False
        scores[left] = unlike(queries[left], bank, columns, self.adapter)
        return scores

    def _pasts(self, own: ThemisMemory | None, of: Ints, variate: int) -> Iterator[_Past]:
        """Give windows of one key that may see the same past, with what they see, all at once."""
        if own is None:
            return
        pairs, group = np.unique(
            np.stack([of, self._rhythm.limits(own, of)]), axis=1, return_inverse=True
        )
        for g, (slot, last) in enumerate(pairs.T):
            seen = self._rhythm.seen(own, int(slot), int(last))
            if seen.any():
                past = own.features[slot, variate].astype(np.float32)
                rows = np.flatnonzero(group.ravel() == g)
                yield rows, past, own.judged[slot, variate], seen

    # what was learned ------------------------------------------------------------------------

    def state(self) -> Arrays:
        """Return reference and scales; empty before ``fit``."""
        state = super().state()
        return {**state, "step": self._step} if state else state

    def load(self, state: Arrays) -> Self:
        """Take back what ``state`` returned."""
        if state and "step" not in state:
            msg = (
                "the artifact was fitted by a version that compared no changes from sample to "
                "sample; fit it again"
            )
            raise ArtifactError(msg)
        super().load(state)
        if state:
            self._step = state["step"].copy()
        return self


def _of_embeddings(own: ThemisMemory) -> EmbeddingMemory:
    if not isinstance(own, EmbeddingMemory):
        msg = f"expected a memory of this detector's new_memory(), got {type(own).__name__}"
        raise TypeError(msg)
    return own
