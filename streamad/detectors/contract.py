"""What every detector is, whatever it judges: windows of signals, events, edges or graphs.

Items come by the batch; their type is the modality's: float32 windows, `EventRows`, `EdgeRows`,
`Graphs`. All of them have a length, and are sliced by a slice, an index or a mask.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar, Generic, Literal, Protocol, Self, TypeVar

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]
Ints = NDArray[np.int32]
Arrays = dict[str, NDArray[Any]]
Modality = Literal["signals", "events", "edges", "graphs", "frames"]
Scope = Literal["key", "partition"]
Cost = Literal["cheap", "moderate", "heavy"]
Items = TypeVar("Items")


@dataclass(frozen=True, slots=True, kw_only=True)
class DetectorInfo:
    """What a detector declares about itself; ``streamad detectors`` and the docs print it.

    tail : raw scores at the tail probabilities 1e-1, 1e-2, 1e-3, 1e-4 on ordinary data; a key
        without history is judged by these until it has its own.
    nan_ok : share of NaN samples a window may hold and still be scored.
    learns : the detector keeps a memory a key; see `Detector.learn`.
    warm_up : windows of a key that are only learned, never judged, where no artifact covers it.
    n_looks : 2 where the detector also looks at the newest samples; see `Detector.looks`.
    scope : ``key``: what a key yields depends on that key alone; ``partition``: on all records of
        its input partition, in offset order, as a memory of a population does.
    numeric : it judges the numbers of events and no categories: in a file, whole numbers of few
        kinds are numbers too, not codes of something.
    dull : scores below never matter, whatever a key's history; windows that score less are not
        asked for their explanation where ``direction`` or ``min_effect`` need one.
    power : exponent of the Box-Cox transform by which the centred look is judged: 1 where the
        largest ordinary scores lie about as far apart as a Gumbel law has it, less where they are
        heavier (`streamad.scoring.law`); the order of scores is the same
    certain : its looks have one more column: how certain it is of what it expected, 0 to 1, which
        is kept beside the score and decides nothing by itself.
    learn_every, delay : `learn` takes effect at multiples of ``learn_every`` windows of the key,
        and only for windows older than ``delay`` windows.
    """

    name: str
    summary: str
    modality: Modality = "signals"
    scope: Scope = "key"
    min_size: int = 2
    default_size: int = 64
    needs_training: bool = False
    learns: bool = False
    warm_up: int = 0
    learn_every: int = 0
    delay: int = 0
    multivariate: bool = True
    numeric: bool = False
    nan_ok: float = 0.0
    cost: Cost = "cheap"
    n_looks: int = 1
    certain: bool = False
    dull: float = 0.0
    power: float = 1.0
    tail: tuple[float, float, float, float] = (1.0, 2.0, 3.0, 4.0)
    paper: str = ""


class Memory(ABC):
    """What a detector takes in as it goes, one slot a key; owned by the shard, not the detector.

    Slots are dense integers given by the operator. All of it can leave as named arrays whose first
    axis is the slot, and come back.
    """

    @abstractmethod
    def reserve(self, n_slots: int) -> None:
        """Make room for slots ``0 .. n_slots-1``; new slots are empty."""

    @abstractmethod
    def forget(self, slots: Ints) -> None:
        """Empty these slots, so that other keys may have them."""

    @abstractmethod
    def state(self, slots: Ints) -> Arrays:
        """Return what these slots hold, arrays of shape ``(len(slots), ...)``."""

    @abstractmethod
    def load(self, slots: Ints, state: Arrays) -> None:
        """Take back what ``state`` returned, into these slots."""

    @property
    def ranges(self) -> dict[str, tuple[int, int]]:
        """Return the least and the greatest value of arrays that kernels index with, by name."""
        return {}

    @property
    @abstractmethod
    def bytes_per_slot(self) -> int:
        """Return what one key costs."""


class SharedMemory(ABC):
    """What a detector of ``scope = "partition"`` takes in: one for all keys of an input partition.

    Its arrays have shapes of their own; all of it can leave and come back.
    """

    @abstractmethod
    def state(self) -> Arrays:
        """Return copies of all that was taken in."""

    @abstractmethod
    def load(self, state: Arrays) -> None:
        """Take back what `state` returned; raises StateError where it does not fit."""

    @property
    @abstractmethod
    def n_bytes(self) -> int:
        """Return what it costs, which does not grow."""


class Observed(Protocol):
    """Items as they were judged, each before it was taken in."""

    @property
    def looks(self) -> Floats:
        """Return all looks at each item ``(n, n_looks)``."""
        ...

    def explain(self, places: NDArray[np.int64]) -> Any:
        """Return why these items are strange, as `ItemDetector.explain` does."""
        ...


class ItemDetector(ABC, Generic[Items]):
    """One way of saying how strange an item is.

    Scores are float32, finite, higher is stranger; those of events are decades, ``-log10`` of how
    often an ordinary event scores as much: a key's are added up (`streamad.scoring.evidence`).
    ``score`` and ``explain`` never learn, leave their input untouched, and give the same bits for
    an item alone and in a batch. Equal seeds give equal fits.
    """

    info: ClassVar[DetectorInfo]
    finite: ClassVar[tuple[str, ...]] = ()
    """Arrays of ``state`` that hold no NaN and no infinity; other artifacts are refused."""
    from_elsewhere: ClassVar[tuple[str, ...]] = ()
    """Parameters that name what is loaded from elsewhere: an artifact alone may not choose it."""
    keeps_memory: bool = False
    """What keys learned beside one artifact means the same beside another of the same size, once
    `retrained` has seen it: a running job may take over a new artifact."""
    calibrated: ClassVar[bool] = False
    """``fit`` sees to it that ``info.tail`` holds for the scores: no tail is measured."""
    in_spreads: ClassVar[bool] = False
    """Scores are in spreads from what is usual for the key, 0 for what is usual: `Auto` can fuse
    them."""
    size: int = 1
    """Samples per item; 1 for all but windows."""

    @property
    def warm_up(self) -> int:
        """Items of a key that are only learned, where no artifact covers the key."""
        return self.info.warm_up

    @property
    def min_periods(self) -> int:
        """Samples from which a key is judged; fewer than ``size`` for some detectors of windows."""
        return self.size

    @property
    def reach(self) -> int:
        """Samples for which an event moves scores: those of windows so far apart are of their own.

        Of most detectors all of a window decides its score; how often ordinary scores reach a level
        depends on it (`streamad.scoring.episodes.EpisodePlan.size`).
        """
        return self.size

    @property
    def lag(self) -> int:
        """Samples by which a score trails its window's last sample: it judges that earlier one."""
        return 0

    @abstractmethod
    def fit(self, items: Items, /, *, groups: Ints | None = None) -> Self:
        """Learn what is usual; ``groups`` ``(n,)``: which key each item is of (None: all one)."""

    def prepared(self, items: Items, /) -> Items:
        """Return items with what is made of them once, however often they are looked at.

        Called with the items of a batch before they are parted into rounds; they mean the same.
        """
        return items

    @abstractmethod
    def score(
        self, items: Items, /, *, memory: Memory | None = None, slots: Ints | None = None
    ) -> Floats:
        """Return one score per item, ``(n,)``.

        With ``memory``, item i is judged against slot ``slots[i]``; the items of one slot stand
        in time order and directly follow those `learn` has seen.
        """

    def looks(
        self, items: Items, /, *, memory: Memory | None = None, slots: Ints | None = None
    ) -> Floats:
        """Return all looks at an item, ``(n, n_looks)``: the score, then the newest.

        One column more where ``info.certain``.
        """
        return self.score(items, memory=memory, slots=slots)[:, None]

    @abstractmethod
    def explain(
        self, items: Items, /, *, memory: Memory | None = None, slots: Ints | None = None
    ) -> Any:
        """Return why items are strange: as the modality has it, see `streamad.modalities`."""

    def new_memory(self, n_variates: int) -> Memory | None:
        """Return an empty memory where the detector learns as it goes."""
        return None

    def new_shared(self) -> SharedMemory | None:
        """Return an empty memory of a population, where ``scope`` is ``partition``."""
        return None

    def watch(self, shared: SharedMemory, items: Items, /) -> Observed:
        """Judge each item and then take it in, in order; the same however batches are cut."""
        msg = f"{self.info.name} has no memory of a population"
        raise NotImplementedError(msg)

    def seed_memory(self, memory: Memory, *, slot: int, group: int) -> None:
        """Start a key the artifact was fitted on from what its training group taught."""

    def seed_memories(self, memory: Memory, *, slots: Ints, groups: Ints) -> None:
        """Do what `seed_memory` does for several keys, each of another slot."""
        for slot, group in zip(slots.tolist(), groups.tolist(), strict=True):
            self.seed_memory(memory, slot=slot, group=group)

    def retrained(self, memory: Memory, *, slots: Ints, groups: Ints) -> Callable[[], None]:
        """Bring keys that learned beside another artifact up to ours; return what undoes it.

        Only of a detector that declares ``keeps_memory``. In place, and by the slot alone, so that
        a recovery that repeats it gives the same.

        slots, groups : ``(n,)``, keys and their numbers in our training (-1: not in it)
        """
        del memory, slots, groups
        return lambda: None

    def learn(
        self,
        memory: Memory,
        items: Items,
        /,
        *,
        slots: Ints,
        admit: NDArray[np.bool_],
        stride: int = 1,
    ) -> None:
        """Take in items just judged; where ``admit`` is false they are not to be learned from.

        Called with each item of a key exactly once, in order. Each window shares all but its last
        ``stride`` samples with the key's window before.
        """

    def adopt(self, memory: Memory, slots: Ints) -> None:
        """Learn what was held back in an episode of these keys: it is the new normal.

        Called before `learn` is called with the item that ended the episode.
        """

    def state(self) -> Arrays:
        """Return all that ``fit`` learned, as named arrays (empty: nothing to learn)."""
        return {}

    def load(self, state: Arrays) -> Self:
        """Take back what ``state`` returned."""
        return self
