"""What one kind of judged item needs that no other has; all else of detect is one for all kinds.

Two things differ: what records *hold* (signals, events, edges: `streamad.modalities.held`), and
what is *judged* (windows of signals, events, edges, graphs: a `Modality`).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import Any, ClassVar, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from streamad.config import PipelineConfig
from streamad.detectors.contract import ItemDetector
from streamad.records import Explanation, RecordBatch
from streamad.scoring.episodes import EpisodePlan
from streamad.windows.arrays import KeyedArrays
from streamad.windows.signals import WindowBlock, WindowPlan


class Windows(Protocol):
    """What turns rows of many keys into items to judge."""

    state: KeyedArrays
    """Of each key; ``clock`` is its greatest event time."""

    @property
    def ranges(self) -> dict[str, tuple[int, int]]:
        """Return the least and the greatest value of arrays that kernels index with, by name."""
        ...

    def reset(self, codes: NDArray[np.int32]) -> None:
        """Empty these keys."""
        ...

    def apart(self, codes: NDArray[np.int32]) -> dict[str, NDArray[Any]]:
        """Return what these keys hold that is no array with a row per key."""
        ...

    def load_apart(self, codes: NDArray[np.int32], arrays: dict[str, NDArray[Any]]) -> None:
        """Take back what `apart` returned; raises StateError where it does not fit."""
        ...

    def ingest(
        self,
        codes: NDArray[np.int32],
        time_ms: NDArray[np.int64],
        values: Any,
        late: NDArray[np.bool_],
        kinds: NDArray[np.int8] | None = None,
    ) -> Iterator[WindowBlock]:
        """Take rows in offset order; yield the items they close, and mark late rows in ``late``."""
        ...


class Item(NamedTuple):
    """A judged item by its times; loud_ms : of its key's last item that was not calm."""

    start_ms: int
    end_ms: int
    size: int
    loud_ms: int


class Span(NamedTuple):
    """Times of an event as one item shows them.

    stands_out : the item holds a part of the event; both_sides : it may show that the event began
    earlier than was known; closes : the last time holds where the episode ends, too
    """

    began_ms: int
    until_ms: int
    stands_out: bool
    both_sides: bool
    closes: bool = False


class Modality(ABC):
    """One kind of judged item, for one pipeline and its detector."""

    name: ClassVar[str]
    records: ClassVar[str]
    """What the records of its topics hold."""
    unit: ClassVar[str]
    """What is counted where settings and reports count: samples, events, edges, graphs."""

    def __init__(self, config: PipelineConfig, detector: ItemDetector[Any]) -> None:
        self.config, self.detector = config, detector

    @abstractmethod
    def describe(self) -> str:
        """Return in a few words what is judged."""

    @property
    @abstractmethod
    def plan(self) -> WindowPlan:
        """Return what a key needs before it has a first item."""

    @property
    @abstractmethod
    def episodes(self) -> EpisodePlan:
        """Return when episodes of a key begin and end."""

    @abstractmethod
    def windows(self) -> Windows:
        """Return what turns rows into items, empty."""

    def waiting(self, values: Any) -> NDArray[np.float64]:
        """Return what rows of a key without arrays leave in the waiting room ``(n, v)``."""
        return np.empty((len(values), 0), np.float64)

    def kinds(
        self, batch: RecordBatch[Any], usable: NDArray[np.bool_]
    ) -> tuple[NDArray[np.int8] | None, NDArray[np.int64]]:
        """Return the kind of each row (None: all of one), and rows that are of none of ours."""
        del batch, usable
        return None, np.empty(0, np.int64)

    def merged(self, batch: RecordBatch[Any], hashes: NDArray[np.uint64]) -> NDArray[np.int64]:
        """Return the rows that the chosen key throws together with others; see `merged_rows`."""
        del batch, hashes
        return np.empty(0, np.int64)

    @property
    def n_looks(self) -> int:
        """Return how many looks at an item decide: the detector's, and those added here."""
        return self.detector.info.n_looks

    def add_up(
        self,
        windows: Windows,
        codes: NDArray[np.int32],
        end_ms: NDArray[np.int64],
        looks: NDArray[np.float32],
    ) -> NDArray[np.float32]:
        """Return the detector's looks ``(n, m)`` and those of our own ``(n, n_looks)``."""
        del windows, codes, end_ms
        return looks

    def reason(self, look: int) -> str:
        """Return what a finding adds for the look that its peak was seen by."""
        del look
        return ""

    def left_out(self, values: Any) -> NDArray[np.int64] | None:
        """Return how many rows each item lacks because it was at its bounds; None: none ever."""
        del values
        return None

    def sudden(self, values: Any) -> NDArray[np.bool_] | None:
        """Return which items end with a break; None: all that score high do."""
        del values
        return None

    def effect(self, why: Any) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Return observed and expected of each item's most telling part, for ``min_effect``."""
        msg = f"{self.name} have no direction"
        raise NotImplementedError(msg)

    @abstractmethod
    def explanation(self, why: Any, i: int, item: Item) -> Explanation:
        """Return explanation ``i`` of what the detector's ``explain`` gave."""

    @abstractmethod
    def span(self, why: Any, i: int, item: Item) -> Span:
        """Return the times of the event that item ``i`` shows; ``why`` may be None."""
