"""The detector itself: what it learns of windows, and how it judges them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, ClassVar, Final, Self

import numpy as np
from numpy.typing import NDArray

from streamad.detectors.base import (
    Arrays,
    Detector,
    DetectorInfo,
    Floats,
    Ints,
    Memory,
    WindowExplanations,
    require_windows,
)
from streamad.detectors.embeddings import EMBEDDINGS, FEATURES, SHIPPED, load_encoder
from streamad.detectors.scales import from_scales, loc_and_scale
from streamad.detectors.similarity import ADAPTERS
from streamad.detectors.themis.against import AGAINST, unlike
from streamad.detectors.themis.features import Features, scaled
from streamad.detectors.themis.memory import COLD, WARM, Rhythm, ThemisMemory, own_memory, ranks
from streamad.detectors.themis.search import mean_of_nearest, nearest
from streamad.detectors.themis.within import compare_within, middle
from streamad.errors import ArtifactError, ConfigError, NotFittedError, WindowError

MEMORY: Final = "memory"
_Past = tuple[NDArray[np.int64], Floats, Floats, NDArray[np.bool_]]
"""Rows of a batch; what they are compared with, ``(n_features, capacity)`` and the samples judged
there; and which of it they may see."""


class Themis(Detector):
    """Judge a window by how far its embedding lies from those of the past.

    A pretrained Chronos-Bolt encoder turns every 16 samples into a vector. Three stretches around
    the judged sample (a quarter, a half, the whole window) are embedded; for each the ``k`` nearest
    in a reference of training windows and in the key's own memory are found, and
    ``score = sum over stretches of the mean distance to them``. Each variate is judged alone; the
    score is the largest.

    Windows are shown to the encoder in *training scale* (median and standard deviation of the key's
    group), not normalised one by one: what normalises each window is blind to level and amplitude,
    and that costs more than any encoder gains. The shipped encoder was trained for both. VUS-PR .56
    on the project's benchmark, where k-NN on raw windows of one length has .51 and of three .56.

    The paper's adapters stand in two forms. Named alone, the window is compared with itself, as in
    the paper: no memory, nothing to fit, and blind to what lasts longer than the window. Take
    windows of 256 or more. Named ``memory_...``, the judged window is compared with the reference
    and the key's memory in the same way. On every sixth of the benchmark's series, 250 windows
    each, the plain distance ranks best: .59, with ``memory_lof`` .47, ``memory_trimmed_top_k`` .39,
    ``memory_mean_similarity`` .33, ``memory_spectral_residual`` .22; abs(z) has .22, `knn_fused`
    .56 (``tests/bench/themis_quality.py --every 6 --max-windows 250``). Cosines forget how large a
    change is; take them where only its shape should count.

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
        history: int = 512,
        reference: int = 1024,
        lag: int | None = None,
    ) -> None:
        super().__init__(size=size)
        self._lag = self.size // 2 if lag is None else lag
        if not 0 <= self._lag < self.size:
            msg = f"lag must lie in 0 .. {self.size - 1} (inside the window), got {lag}"
            raise WindowError(msg)
        if min(k, history, reference) < 1:
            msg = f"k, history and reference must be 1 or more, got {k}, {history}, {reference}"
            raise WindowError(msg)
        if adapter not in {MEMORY, *AGAINST, *ADAPTERS}:
            known = [MEMORY, *sorted(AGAINST), *sorted(ADAPTERS)]
            msg = f"adapter must be one of {known}, got {adapter!r}"
            raise ConfigError(msg)
        self.model, self.adapter = model, adapter
        self.k, self.history, self.reference = k, history, reference
        self._features = self._new_features()
        self.n_features = self._features.n_features
        self._rhythm = Rhythm(self.size, history, self.info.learn_every)
        self._bank = np.zeros((0, self.n_features, 0), dtype=np.float32)
        self._judged = np.zeros((0, 0), dtype=np.float32)
        self._loc = np.zeros((0, 0), dtype=np.float32)
        self._scale = np.zeros((0, 0), dtype=np.float32)

    @property
    def lag(self) -> int:
        """Samples by which the judged sample trails the newest."""
        return self._lag

    @property
    def _at(self) -> int:
        """Where the judged sample stands in the window."""
        return self.size - 1 - self._lag

    @property
    def _within(self) -> bool:
        """Whether windows are compared with themselves alone."""
        return self.adapter in ADAPTERS

    def _new_features(self) -> Any:
        """Return what turns scaled windows into vectors."""
        wanted = EMBEDDINGS if self._within else FEATURES
        return Features(load_encoder(self.model, wanted), size=self.size, at=self._at)

    # learning --------------------------------------------------------------------------------

    def fit(self, windows: Floats, *, groups: Ints | None = None) -> Self:
        """Take scales, a group each, and the reference from training windows.

        Parameters
        ----------
        windows : float32 ``(n_windows, size, n_variates)``, in time order inside a group
        groups : int32 ``(n_windows,)``, numbered from 0 (None: all of one series)
        """
        require_windows(windows, size=self.size, nan_ok=self.info.nan_ok)
        if len(windows) == 0:
            msg = f"{self.info.name} learns from at least one window, got none"
            raise WindowError(msg)
        if self._within:
            return self
        of_group = np.zeros(len(windows), dtype=np.int32) if groups is None else groups
        n_groups, n_variates = int(of_group.max()) + 1, windows.shape[2]
        self._loc = np.full((n_groups, n_variates), np.nan, dtype=np.float32)
        self._scale = np.ones((n_groups, n_variates), dtype=np.float32)
        kept = []
        present = np.unique(of_group)
        room = max(self.reference // len(present), 1)
        for group in present:
            rows = np.flatnonzero(of_group == group)
            # The first window whole, then newest samples: close to each sample once.
            series = np.concatenate([windows[rows[0]], windows[rows[1:], -1]])
            self._loc[group], self._scale[group] = loc_and_scale(series)
            rows = _whole(windows, rows)
            kept.append(rows[_spread(len(rows), room)])
        chosen = np.concatenate(kept)[: self.reference]
        placed = scaled(windows[chosen], of_group[chosen], self._loc, self._scale)
        self._bank = np.ascontiguousarray(self._features.embed(placed).transpose(1, 2, 0))
        self._judged = np.ascontiguousarray(placed[:, self._at].T)
        return self

    def new_memory(self, n_variates: int) -> ThemisMemory | None:
        """Return an empty memory, or None for an adapter that compares a window with itself."""
        if self._within:
            return None
        return ThemisMemory(
            n_variates=n_variates,
            n_features=self.n_features,
            capacity=self._rhythm.capacity,
            n_early=self.info.warm_up + self.size,
        )

    def seed_memory(self, memory: Memory, *, slot: int, group: int) -> None:
        """Let a key start as one that ``fit`` knows as ``group``: with its scale, without warm-up.

        Called once, before the key's first window. A group without any training window leaves its
        key cold.
        """
        own = own_memory(memory)
        own.reserve(slot + 1)
        if group < len(self._loc) and np.isfinite(self._loc[group]).all():
            own.loc[slot], own.scale[slot] = self._loc[group], self._scale[group]
            own.phase[slot] = WARM

    def learn(
        self,
        memory: Memory,
        windows: Floats,
        *,
        slots: Ints,
        admit: NDArray[np.bool_],
        stride: int = 1,
    ) -> None:
        """Remember embeddings of windows that are admitted and miss nothing, some of them each."""
        require_windows(windows, size=self.size, nan_ok=1.0)  # incomplete ones pass by, unusable
        own = own_memory(memory)
        if len(slots) == 0:
            return
        own.reserve(int(slots.max()) + 1)
        own.stride[slots] = stride
        number = own.n_windows[slots] + ranks(slots) + 1
        cold = own.phase[slots] == COLD
        for i in np.flatnonzero(cold):
            if own.phase[slots[i]] == COLD:
                self._warm_up(own, windows[i], int(slots[i]), admit=bool(admit[i]), stride=stride)
                cold[i] = True
            else:
                cold[i] = False
        every = self._rhythm.every(stride)
        due = (number - 1) % every == 0
        keep = np.flatnonzero(~cold & due & admit & ~np.isnan(windows).any(axis=(1, 2)))
        placed = scaled(windows[keep], slots[keep], own.loc, own.scale)
        self._keep(own, placed, slots[keep], number[keep], every=every)
        np.maximum.at(own.n_windows, slots, number)

    def _warm_up(
        self, own: ThemisMemory, window: Floats, slot: int, *, admit: bool, stride: int
    ) -> None:
        """Collect a window's new samples; when there are enough windows, take scale and past."""
        begun = own.warm_number[slot] > 0
        new = window[-min(stride, self.size) :] if begun else window
        if not admit:
            new = np.full_like(new, np.nan)
        held = own.collect(slot, new)
        last = int(own.warm_number[slot])
        if last < self.info.warm_up:
            return
        own.loc[slot], own.scale[slot] = loc_and_scale(held)
        own.phase[slot] = WARM
        past, number = self._rhythm.past(held, last, stride)
        of_slot = np.full(len(past), slot, dtype=np.int32)
        placed = scaled(past, of_slot, own.loc, own.scale)
        self._keep(own, placed, of_slot, number, every=self._rhythm.every(stride))

    def _keep(
        self,
        own: ThemisMemory,
        placed: Floats,
        slots: Ints,
        number: NDArray[np.int64],
        *,
        every: int,
    ) -> None:
        if len(placed) == 0:
            return
        at = (number // every) % own.capacity
        own.features[slots, :, :, at] = self._features.embed(placed)
        own.judged[slots, :, at] = placed[:, self._at]
        own.number[slots, at] = number

    # judging ---------------------------------------------------------------------------------

    def score(
        self, windows: Floats, *, memory: Memory | None = None, slots: Ints | None = None
    ) -> Floats:
        """Return the distance to the nearest embeddings, float32 ``(n_windows,)``, 0 while cold."""
        scores: Floats = self._judge(windows, memory, slots)[0].max(axis=1, initial=0.0)
        return scores

    def explain(
        self, windows: Floats, *, memory: Memory | None = None, slots: Ints | None = None
    ) -> WindowExplanations:
        """Return the judged sample, that of the most similar past window, and shares of score.

        An adapter knows no past window: it expects the window's median.
        """
        scores, expected = self._judge(windows, memory, slots)
        total = scores.sum(axis=1, keepdims=True)
        even = np.float32(1 / windows.shape[2])
        share = np.where(total > 0, scores / np.where(total > 0, total, 1), even)
        return WindowExplanations(
            observed=windows[:, self._at].copy(),
            expected=expected,
            share=share.astype(np.float32),
            position=np.full(len(windows), self._at, dtype=np.int32),
        )

    def _judge(
        self, windows: Floats, memory: Memory | None, slots: Ints | None
    ) -> tuple[Floats, Floats]:
        """Return each variate's score and expected value, both ``(n_windows, n_variates)``."""
        require_windows(windows, size=self.size, nan_ok=self.info.nan_ok)
        if self._within:
            within = compare_within(
                windows, encoder=self._features.encoder, adapter=self.adapter, lag=self._lag
            )
            return within, middle(windows)
        fitted = len(self._loc) > 0
        if fitted and self._loc.shape[1] != windows.shape[2]:
            expected = self._loc.shape[1]
            msg = f"windows must have the {expected} variates of fit, got {windows.shape[2]}"
            raise WindowError(msg)
        if memory is None or slots is None:
            if not fitted:
                msg = f"{self.info.name} has no past to compare with; call fit, or give it a memory"
                raise NotFittedError(msg)
            loc, scale, of = self._stand_in(windows)
            own = None
        else:
            own, of = own_memory(memory), slots
            loc, scale = own.loc, own.scale
        return self._compare_with_past(windows, own, of, loc, scale)

    def _stand_in(self, windows: Floats) -> tuple[Floats, Floats, Ints]:
        """Return scales for windows of unknown keys: the only group's, else each window's own."""
        if len(self._loc) == 1:
            return self._loc, self._scale, np.zeros(len(windows), dtype=np.int32)
        loc, scale = np.empty_like(windows[:, 0]), np.empty_like(windows[:, 0])
        for i, window in enumerate(windows):
            loc[i], scale[i] = loc_and_scale(window)
        return loc, scale, np.arange(len(windows), dtype=np.int32)

    def _compare_with_past(
        self, windows: Floats, own: ThemisMemory | None, of: Ints, loc: Floats, scale: Floats
    ) -> tuple[Floats, Floats]:
        n, _, n_variates = windows.shape
        scores = np.zeros((n, n_variates), dtype=np.float32)
        expected = np.where(np.isnan(windows[:, self._at]), loc[of], windows[:, self._at])
        warm = np.flatnonzero(own.phase[of] == WARM) if own is not None else np.arange(n)
        if len(warm) == 0:
            return scores, expected
        queries = self._features.embed(scaled(windows[warm], of[warm], loc, scale))
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
            return mean_of_nearest(best), value
        return self._compare_by_paper(queries, own, of, variate), value

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
        if len(self._loc) == 0:
            return {}
        return {
            "bank": self._bank,
            "judged": self._judged,
            "loc": self._loc,
            "scale": self._scale,
            "size": np.array([self.size], dtype=np.int32),
        }

    def load(self, state: Arrays) -> Self:
        """Take back what ``state`` returned."""
        if not state:
            return self
        size = int(state["size"][0])
        if size != self.size:
            msg = f"the artifact was fitted with windows.size {size}, the pipeline has {self.size}"
            raise ArtifactError(msg)
        if state["bank"].shape[1] != self.n_features:
            msg = (
                f"the artifact holds {state['bank'].shape[1]} values per window, model "
                f"{self.model!r} makes {self.n_features}; name the model it was fitted with"
            )
            raise ArtifactError(msg)
        self._bank, self._judged = state["bank"].copy(), state["judged"].copy()
        self._loc, self._scale = state["loc"].copy(), state["scale"].copy()
        return self


def _spread(n: int, room: int) -> NDArray[np.int64]:
    """Return at most ``room`` indices below ``n``, evenly spread."""
    return np.unique(np.linspace(0, n - 1, min(n, room)).astype(np.int64))


def _whole(windows: Floats, rows: NDArray[np.int64]) -> NDArray[np.int64]:
    """Leave out windows with missing samples where whole ones are to be had."""
    whole = rows[~np.isnan(windows[rows]).any(axis=(1, 2))]
    return whole if len(whole) else rows
