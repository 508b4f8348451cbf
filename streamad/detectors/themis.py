"""THEMIS: windows judged in the embedding space of a pretrained forecaster's encoder."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Final, Self

import numpy as np
from numpy.typing import NDArray

from streamad.compiled import compiled
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
from streamad.detectors.embeddings import (
    EMBEDDINGS,
    FEATURES,
    SHIPPED,
    Encoder,
    load_encoder,
    own_scale,
)
from streamad.detectors.scales import in_scales, measure
from streamad.detectors.similarity import ADAPTERS
from streamad.errors import ArtifactError, ConfigError, NotFittedError, WindowError

MEMORY: Final = "memory"
CONTEXT: Final = 256
"""Longest stretch the shipped encoder was trained on; longer ones are averaged down to it."""
SPACING: Final = 16
"""A past window is kept every sixteenth of its length: nearer ones say the same."""
DELAY_SIZES: Final = 4
"""Windows' lengths after which a judged window counts as past."""
BLOCK: Final = 256
CLIP: Final = 1e3
COLD, WARM = 0, 1


@dataclass(frozen=True, slots=True)
class _Stretch:
    """A part of the window that is embedded on its own, and where its embedding stands."""

    start: int
    length: int
    factor: int
    n_patches: int
    column: int


class ThemisMemory(Memory):
    """Embeddings of a key's past windows, and before them the samples its scale is taken from.

    Attributes
    ----------
    features : float16 ``(n_slots, n_variates, n_features, capacity)``
    judged : float32 ``(n_slots, n_variates, capacity)``, each kept window's judged sample, scaled
    number : int64 ``(n_slots, capacity)``, which of the key's windows is kept, from 1 (0: empty)
    n_windows, warm_number : int64 ``(n_slots,)``, learned so far, and when the warm-up ended
    phase : uint8 ``(n_slots,)``, 0 cold, 1 scale known
    loc, scale : float32 ``(n_slots, n_variates)``
    stride : int64 ``(n_slots,)``, samples between a key's windows
    early, n_early : float32 ``(n_slots, n_early_max, n_variates)``, samples of the warm-up
    """

    names = (
        "features", "judged", "number", "n_windows", "warm_number", "phase", "loc", "scale",
        "stride", "early", "n_early",
    )  # fmt: skip

    def __init__(self, *, n_variates: int, n_features: int, capacity: int, n_early: int) -> None:
        self.n_variates, self.capacity = n_variates, capacity
        self.features = np.zeros((0, n_variates, n_features, capacity), dtype=np.float16)
        self.judged = np.zeros((0, n_variates, capacity), dtype=np.float32)
        self.number = np.zeros((0, capacity), dtype=np.int64)
        self.n_windows = np.zeros(0, dtype=np.int64)
        self.warm_number = np.zeros(0, dtype=np.int64)
        self.phase = np.zeros(0, dtype=np.uint8)
        self.loc = np.zeros((0, n_variates), dtype=np.float32)
        self.scale = np.zeros((0, n_variates), dtype=np.float32)
        self.stride = np.zeros(0, dtype=np.int64)
        self.early = np.zeros((0, n_early, n_variates), dtype=np.float32)
        self.n_early = np.zeros(0, dtype=np.int64)

    def __len__(self) -> int:
        return len(self.phase)

    @property
    def ranges(self) -> dict[str, tuple[int, int]]:
        """Return the least and the greatest value of arrays that are indexed with."""
        counts = ("number", "n_windows", "warm_number", "stride")
        early = {"n_early": (0, self.early.shape[1]), "phase": (0, 1)}
        return {**early, **dict.fromkeys(counts, (0, 2**53))}

    @property
    def bytes_per_slot(self) -> int:
        """Return what one key costs."""
        return sum(array.itemsize * int(np.prod(array.shape[1:])) for array in self._arrays())

    def reserve(self, n_slots: int) -> None:
        """Make room for slots ``0 .. n_slots-1``, growing by half so that growth stays cheap."""
        if n_slots <= len(self):
            return
        room = max(n_slots, len(self) * 3 // 2)
        for name, array in zip(self.names, self._arrays(), strict=True):
            grown = np.zeros((room, *array.shape[1:]), dtype=array.dtype)
            grown[: len(array)] = array
            setattr(self, name, grown)

    def forget(self, slots: Ints) -> None:
        """Empty these slots."""
        for array in self._arrays():
            array[slots] = 0

    def state(self, slots: Ints) -> Arrays:
        """Return what these slots hold."""
        return {name: getattr(self, name)[slots] for name in self.names}

    def load(self, slots: Ints, state: Arrays) -> None:
        """Take back what ``state`` returned."""
        for name, array in zip(self.names, self._arrays(), strict=True):
            if state[name].shape[1:] != array.shape[1:]:
                msg = (
                    f"a memory whose {name} has the shape {state[name].shape[1:]} a key does not "
                    f"fit this detector's {array.shape[1:]}; size, history, model or the variates "
                    "have changed, so begin afresh"
                )
                raise ArtifactError(msg)
        if len(slots) == 0:
            return
        self.reserve(int(np.max(slots)) + 1)
        for name in self.names:
            getattr(self, name)[slots] = state[name]

    def _arrays(self) -> list[NDArray[Any]]:
        return [getattr(self, name) for name in self.names]


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

    With another ``adapter`` the window is compared with itself alone, as in the paper: no memory,
    nothing to fit, and blind to what lasts longer than the window. Take windows of 256 or more.

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
    adapter : ``"memory"``, or one of ``"mean_similarity"``, ``"trimmed_top_k"``, ``"lof"``,
        ``"spectral_residual"``
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
        if adapter != MEMORY and adapter not in ADAPTERS:
            msg = f"adapter must be {MEMORY!r} or one of {sorted(ADAPTERS)}, got {adapter!r}"
            raise ConfigError(msg)
        self.model, self.adapter = model, adapter
        self.k, self.history, self.reference = k, history, reference
        wanted = FEATURES if adapter == MEMORY else EMBEDDINGS
        self._encoder: Encoder = load_encoder(model, wanted)
        self._stretches = self._plan()
        last = self._stretches[-1]
        self.n_features = last.column + last.n_patches * self._encoder.width
        self._bank = np.zeros((0, self.n_features, 0), dtype=np.float32)
        self._judged = np.zeros((0, 0), dtype=np.float32)
        self._loc = np.zeros((0, 0), dtype=np.float32)
        self._scale = np.zeros((0, 0), dtype=np.float32)

    @property
    def lag(self) -> int:
        """Samples by which the judged sample trails the newest."""
        return self._lag

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
        if self.adapter != MEMORY:
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
            self._loc[group], self._scale[group] = _loc_and_scale(series)
            rows = _whole(windows, rows)
            kept.append(rows[_spread(len(rows), room)])
        chosen = np.concatenate(kept)[: self.reference]
        scaled = self._scaled(windows[chosen], of_group[chosen], self._loc, self._scale)
        self._bank = np.ascontiguousarray(self._embed(scaled).transpose(1, 2, 0))
        self._judged = np.ascontiguousarray(scaled[:, self._at].T)
        return self

    def new_memory(self, n_variates: int) -> ThemisMemory | None:
        """Return an empty memory, or None for an adapter that compares a window with itself."""
        if self.adapter != MEMORY:
            return None
        # What waits out its delay is held beside the history.
        waiting = 2 * DELAY_SIZES * SPACING + self.info.learn_every
        return ThemisMemory(
            n_variates=n_variates,
            n_features=self.n_features,
            capacity=self.history + waiting,
            n_early=self.info.warm_up + self.size,
        )

    def seed_memory(self, memory: Memory, *, slot: int, group: int) -> None:
        """Let a key start as one that ``fit`` knows as ``group``: with its scale, without warm-up.

        Called once, before the key's first window. A group without any training window leaves its
        key cold.
        """
        own = _own(memory)
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
        own = _own(memory)
        if len(slots) == 0:
            return
        own.reserve(int(slots.max()) + 1)
        own.stride[slots] = stride
        number = own.n_windows[slots] + _ranks(slots) + 1
        cold = own.phase[slots] == COLD
        for i in np.flatnonzero(cold):
            if own.phase[slots[i]] == COLD:
                self._warm_up(own, windows[i], int(slots[i]), admit=bool(admit[i]), stride=stride)
                cold[i] = True
            else:
                cold[i] = False
        due = (number - 1) % self._every(stride) == 0
        keep = np.flatnonzero(~cold & due & admit & ~np.isnan(windows).any(axis=(1, 2)))
        scaled = self._scaled(windows[keep], slots[keep], own.loc, own.scale)
        self._keep(own, scaled, slots[keep], number[keep], every=self._every(stride))
        np.maximum.at(own.n_windows, slots, number)

    def _warm_up(
        self, own: ThemisMemory, window: Floats, slot: int, *, admit: bool, stride: int
    ) -> None:
        """Collect a window's new samples; when there are enough windows, take scale and past."""
        n_held = int(own.n_early[slot])
        begun = own.warm_number[slot] > 0
        new = window[-min(stride, self.size) :] if begun else window
        if not admit:
            new = np.full_like(new, np.nan)
        joined = np.concatenate([own.early[slot, :n_held], new])[-own.early.shape[1] :]
        own.early[slot, : len(joined)] = joined
        own.n_early[slot] = len(joined)
        own.warm_number[slot] += 1
        if own.warm_number[slot] < self.info.warm_up:
            return
        own.loc[slot], own.scale[slot] = _loc_and_scale(joined)
        own.phase[slot] = WARM
        # In the usual rhythm: what takes a place in the ring must never depend on how it came in.
        every, last = self._every(stride), int(own.warm_number[slot])
        newest = last - (last - 1) % every
        number = np.arange(newest, 0, -every, dtype=np.int64)
        starts = len(joined) - self.size - (last - number) * stride
        number, starts = number[starts >= 0][::-1], starts[starts >= 0][::-1]
        past = joined[starts[:, None] + np.arange(self.size)]
        whole = ~np.isnan(past).any(axis=(1, 2))
        of_slot = np.full(int(whole.sum()), slot, dtype=np.int32)
        scaled = self._scaled(past[whole], of_slot, own.loc, own.scale)
        self._keep(own, scaled, of_slot, number[whole], every=every)

    def _keep(
        self,
        own: ThemisMemory,
        scaled: Floats,
        slots: Ints,
        number: NDArray[np.int64],
        *,
        every: int,
    ) -> None:
        if len(scaled) == 0:
            return
        at = (number // every) % own.capacity
        own.features[slots, :, :, at] = self._embed(scaled)
        own.judged[slots, :, at] = scaled[:, self._at]
        own.number[slots, at] = number

    def _every(self, stride: int) -> int:
        """Return of how many of a key's windows one is remembered."""
        return max(1, self.size // (SPACING * stride))

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
        if self.adapter != MEMORY:
            return self._compare_within(windows), _middle(windows)
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
            own, of = _own(memory), slots
            loc, scale = own.loc, own.scale
        return self._compare_with_past(windows, own, of, loc, scale)

    def _stand_in(self, windows: Floats) -> tuple[Floats, Floats, Ints]:
        """Return scales for windows of unknown keys: the only group's, else each window's own."""
        if len(self._loc) == 1:
            return self._loc, self._scale, np.zeros(len(windows), dtype=np.int32)
        loc, scale = np.empty_like(windows[:, 0]), np.empty_like(windows[:, 0])
        for i, window in enumerate(windows):
            loc[i], scale[i] = _loc_and_scale(window)
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
        queries = self._embed(self._scaled(windows[warm], of[warm], loc, scale))
        for v in range(n_variates):
            nearest, value = self._search(np.ascontiguousarray(queries[:, v]), own, of[warm], v)
            scores[warm, v] = nearest
            found = ~np.isnan(value)
            at = of[warm[found]]
            expected[warm[found], v] = value[found] * scale[at, v] + loc[at, v]
        return scores, expected.astype(np.float32)

    def _search(
        self, queries: Floats, own: ThemisMemory | None, of: Ints, variate: int
    ) -> tuple[Floats, Floats]:
        """Return score and nearest judged sample (scaled, NaN: none) of ``(n, n_features)``."""
        n, columns = len(queries), self._columns()
        shape = (n, len(self._stretches), self.k)
        best = np.full(shape, np.inf, dtype=np.float32)
        which = np.full(n, -1, dtype=np.int64)
        value = np.full(n, np.nan, dtype=np.float32)
        if len(self._bank):
            everything = np.ones(self._bank.shape[2], dtype=np.bool_)
            _nearest(queries, self._bank[variate], everything, columns, best, which)
            value[which >= 0] = self._judged[variate][which[which >= 0]]
        if own is not None:
            limit = self._limits(own, of)
            # Windows of one key that may see the same are compared with it at once.
            pairs, group = np.unique(np.stack([of, limit]), axis=1, return_inverse=True)
            for g, (slot, last) in enumerate(pairs.T):
                rows = np.flatnonzero(group.ravel() == g)
                seen = self._seen(own, int(slot), int(last))
                if not seen.any():
                    continue
                past = own.features[slot, variate].astype(np.float32)
                part, which = best[rows], np.full(len(rows), -1, dtype=np.int64)
                _nearest(np.ascontiguousarray(queries[rows]), past, seen, columns, part, which)
                best[rows] = part
                nearer = which >= 0
                value[rows[nearer]] = own.judged[slot, variate][which[nearer]]
        return _mean_of_nearest(best), value

    def _limits(self, own: ThemisMemory, of: Ints) -> NDArray[np.int64]:
        """Return the number of the newest window each of these may see, by counts alone."""
        begun = own.n_windows[of] + _ranks(of)
        stride = np.maximum(own.stride[of], 1)
        delay = -(-DELAY_SIZES * self.size // stride)
        past = begun // self.info.learn_every * self.info.learn_every - delay
        return np.asarray(np.maximum(past, own.warm_number[of]))

    def _seen(self, own: ThemisMemory, slot: int, last: int) -> NDArray[np.bool_]:
        """Mark the remembered windows up to number ``last``, as many as the history holds."""
        number = own.number[slot]
        span = self.history * self._every(max(int(own.stride[slot]), 1))
        return np.asarray((number > max(last - span, 0)) & (number <= last))

    def _compare_within(self, windows: Floats) -> Floats:
        """Return each variate's score of the judged patch against its own window's patches."""
        n, size, n_variates = windows.shape
        series = np.ascontiguousarray(windows.transpose(0, 2, 1)).reshape(n * n_variates, size)
        factor = -(-size // CONTEXT)
        tokens = self._encoder.embed(own_scale(_averaged(series, factor)))
        patch = tokens.shape[1] - 1 - self._lag // (factor * self._encoder.patch_size)
        scores = ADAPTERS[self.adapter](tokens)[:, max(patch, 0)]
        return np.nan_to_num(scores.reshape(n, n_variates), posinf=CLIP)

    # embedding -------------------------------------------------------------------------------

    @property
    def _at(self) -> int:
        """Where the judged sample stands in the window."""
        return self.size - 1 - self._lag

    def _plan(self) -> list[_Stretch]:
        """Lay out the stretches around the judged sample: whole, half, quarter."""
        stretches, column = [], 0
        for length in (self.size, self.size // 2, self.size // 4):
            start = min(max(self._at - length // 2, 0), self.size - length)
            factor = -(-length // CONTEXT)
            n_patches = -(-(length // factor) // self._encoder.patch_size)
            stretches.append(_Stretch(start, length, factor, n_patches, column))
            column += n_patches * self._encoder.width
        return stretches

    def _columns(self) -> NDArray[np.int64]:
        starts = [stretch.column for stretch in self._stretches]
        return np.array([*starts, self.n_features], dtype=np.int64)

    def _scaled(self, windows: Floats, of: Ints, loc: Floats, scale: Floats) -> Floats:
        """Return windows in scales from the median, missing samples drawn in."""
        scaled = in_scales(windows, loc[of][:, None], scale[of][:, None])
        filled = np.ascontiguousarray(np.clip(scaled, -CLIP, CLIP))
        _draw_in(filled)
        return filled

    def _embed(self, scaled: Floats) -> Floats:
        """Embed scaled windows; float32 ``(n_windows, n_variates, n_features)``.

        Patches are weighted so that stretches of any number of patches count alike.
        """
        n, size, n_variates = scaled.shape
        features = np.empty((n, n_variates, self.n_features), dtype=np.float32)
        series = np.ascontiguousarray(scaled.transpose(0, 2, 1)).reshape(n * n_variates, size)
        for part in self._stretches:
            stretch = _averaged(series[:, part.start : part.start + part.length], part.factor)
            tokens = self._encoder.embed(stretch)
            if not self._encoder.keeps_scale:
                tokens = _with_amplitude(tokens, stretch)
            weight = np.float32(1.0 / np.sqrt(part.n_patches))
            end = part.column + part.n_patches * self._encoder.width
            flat = (tokens * weight).reshape(n, n_variates, -1)
            features[:, :, part.column : end] = flat
        return features

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


def _own(memory: Memory) -> ThemisMemory:
    if not isinstance(memory, ThemisMemory):
        msg = f"expected a memory of this detector's new_memory(), got {type(memory).__name__}"
        raise TypeError(msg)
    return memory


def _ranks(slots: Ints) -> NDArray[np.int64]:
    """Return for each window how many of its slot stand before it in the batch."""
    order = np.argsort(slots, kind="stable")
    sorted_slots = slots[order]
    first = np.searchsorted(sorted_slots, sorted_slots, side="left")
    ranks = np.empty(len(slots), dtype=np.int64)
    ranks[order] = np.arange(len(slots)) - first
    return ranks


def _spread(n: int, room: int) -> NDArray[np.int64]:
    """Return at most ``room`` indices below ``n``, evenly spread."""
    return np.unique(np.linspace(0, n - 1, min(n, room)).astype(np.int64))


def _whole(windows: Floats, rows: NDArray[np.int64]) -> NDArray[np.int64]:
    """Leave out windows with missing samples where whole ones are to be had."""
    whole = rows[~np.isnan(windows[rows]).any(axis=(1, 2))]
    return whole if len(whole) else rows


def _loc_and_scale(series: Floats) -> tuple[Floats, Floats]:
    """Return median and deviation of each variate of ``(n, n_variates)``; 0 where constant."""
    n_variates = series.shape[1]
    loc, scale = np.zeros(n_variates, np.float32), np.ones(n_variates, np.float32)
    measure(np.ascontiguousarray(series.T), loc, scale)
    return loc, scale


def _averaged(series: Floats, factor: int) -> Floats:
    """Average ``(n, length)`` by ``factor`` samples, the newest whole, the oldest rest dropped."""
    if factor == 1:
        return np.ascontiguousarray(series)
    length = series.shape[1] // factor
    blocks = series[:, series.shape[1] - length * factor :].reshape(len(series), length, factor)
    seen = ~np.isnan(blocks)
    n_seen = seen.sum(axis=2)
    total = np.where(seen, blocks, 0.0).sum(axis=2)
    return np.where(n_seen > 0, total / np.maximum(n_seen, 1), np.nan).astype(np.float32)


def _with_amplitude(tokens: Floats, stretch: Floats) -> Floats:
    """Give level and log-size of each stretch back to embeddings that lost them.

    They take the place of the last two values of every patch, so that the width stays.
    """
    level = stretch.mean(axis=1)
    size = np.log(np.sqrt(((stretch - level[:, None]) ** 2).mean(axis=1)) + 1e-2)
    out = tokens.copy()
    out[:, :, -2] = level[:, None]
    out[:, :, -1] = size[:, None]
    return out


def _middle(windows: Floats) -> Floats:
    """Return each window's median a variate, 0 where it has no sample."""
    ordered = np.sort(windows, axis=1)  # NaN last
    n_seen = (~np.isnan(windows)).sum(axis=1, keepdims=True)
    median = np.take_along_axis(ordered, np.maximum(n_seen - 1, 0) // 2, axis=1)[:, 0]
    return np.nan_to_num(median).astype(np.float32)


def _mean_of_nearest(best: Floats) -> Floats:
    """Sum over stretches the mean distance to those found; squared distances come in."""
    found = np.isfinite(best)
    n_found = np.maximum(found.sum(axis=2), 1).astype(np.float32)
    distances = np.sqrt(np.where(found, best, np.float32(0)))
    total = np.zeros(len(best), dtype=np.float32)
    for stretch in range(best.shape[1]):
        part = np.zeros(len(best), dtype=np.float32)
        for i in range(best.shape[2]):
            part += distances[:, stretch, i]
        total += part / n_found[:, stretch]
    return total


@compiled
def _draw_in(windows: Floats) -> None:
    """Put in each missing sample from its neighbours, in place, by a line; 0 where none is."""
    n, size, n_variates = windows.shape
    for w in range(n):
        for v in range(n_variates):
            last = -1
            for i in range(size + 1):
                if i < size and np.isnan(windows[w, i, v]):
                    continue
                if i - last > 1:
                    before = windows[w, last, v] if last >= 0 else np.float32(np.nan)
                    after = windows[w, i, v] if i < size else before
                    before = after if np.isnan(before) else before
                    before = np.float32(0) if np.isnan(before) else before
                    after = before if np.isnan(after) else after
                    for j in range(last + 1, i):
                        share = np.float32(j - last) / np.float32(i - last)
                        windows[w, j, v] = before + share * (after - before)
                last = i


@compiled
def _insert(distances: Floats, seen: NDArray[np.bool_], best: Floats) -> int:
    """Sort distances into ``best``, ascending; return which became the smallest (else -1)."""
    k = len(best)
    first = -1
    for j in range(len(distances)):
        if not seen[j] or distances[j] >= best[k - 1]:
            continue
        place = k - 1
        while place > 0 and best[place - 1] > distances[j]:
            best[place] = best[place - 1]
            place -= 1
        best[place] = distances[j]
        if place == 0:
            first = j
    return first


@compiled
def _nearest(
    queries: Floats,
    bank: Floats,
    seen: NDArray[np.bool_],
    columns: NDArray[np.int64],
    best: Floats,
    which: NDArray[np.int64],
) -> None:
    """Bring the smallest squared distances of each stretch into ``best``, ascending.

    ``which`` becomes the place of the nearest by the first stretch, where this bank has it. Sums
    run over features in one order, whatever the batch; the inner loop runs over places.
    """
    n_places = bank.shape[1]
    distance = np.zeros(BLOCK, dtype=np.float32)
    for begin in range(0, n_places, BLOCK):
        n_here = min(BLOCK, n_places - begin)
        for w in range(len(queries)):
            for c in range(len(columns) - 1):
                distance[:] = 0
                for d in range(columns[c], columns[c + 1]):
                    value = queries[w, d]
                    row = bank[d, begin : begin + n_here]
                    for j in range(n_here):
                        gap = value - row[j]
                        distance[j] += gap * gap
                first = _insert(distance[:n_here], seen[begin : begin + n_here], best[w, c])
                if c == 0 and first >= 0:
                    which[w] = begin + first
