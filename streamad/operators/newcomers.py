"""Keys without a window: which of them are known, wait, or get arrays of their own."""

from __future__ import annotations

from collections.abc import Mapping
from fnmatch import fnmatchcase
from typing import Any

import numpy as np
from numpy.typing import NDArray

from streamad.config import PipelineConfig
from streamad.config.values import format_size
from streamad.detectors.contract import ItemDetector
from streamad.modalities import Modality
from streamad.operators.call import Call
from streamad.operators.shard import ShardState
from streamad.records import RecordBatch, Rejected
from streamad.windows.arrays import NEVER
from streamad.windows.keys import NO_KEY, Hashes
from streamad.windows.kinds import CODES, GAUGE
from streamad.windows.waiting_kernels import GOES, LATE, REFUSED

_MOVED = ("silent", "silent_ms", "born_ms", "stands_in", "kind")
"""What a key that gets arrays of its own takes with it."""


_NO_GROUP = -1
_SHARE = 8
_FEW_KEYS = 1_024
"""However little memory there is, so many keys may wait: half a megabyte."""


class Newcomers:
    """Take rows of keys that have no arrays yet; give arrays to those that earned them."""

    def __init__(
        self,
        config: PipelineConfig,
        detector: ItemDetector[Any],
        groups: Mapping[str, int],
        modality: Modality,
    ) -> None:
        self._modality = modality
        self._series, self._detector, self._groups = config.series, detector, groups
        self._kind = CODES.get(config.series.kind, GAUGE)
        select = config.series.select
        self._selects_all = "*" in select.include and not select.exclude and not select.tags

    def take(
        self,
        call: Call,
        batch: RecordBatch[Any],
        rows: NDArray[np.int64],
        hashes: Hashes,
        kinds: NDArray[np.int8] | None,
        late: NDArray[np.bool_],
    ) -> NDArray[np.int32]:
        """Return the codes of rows, `NO_KEY` for those that need nothing more.

        rows : of the batch, in order; hashes : of their keys; kinds, late : of the whole batch;
        late is written
        """
        state, room = call.state, call.state.waiting
        most = min(self._series.max_keys, all_keys(self._series.max_memory, state))
        room.keys.max_keys = most - len(state.keys)
        waiting, created = room.keys.encode(batch.keys.gather(rows), hashes)
        if created:
            self._meet(call, batch, rows, waiting, created, kinds)
        known = waiting != NO_KEY
        for row in rows[~known].tolist():
            detail = f"the shard holds {most} keys already; {self._why(most)}"
            call.out.rejected.append(reject(batch, row, "key_limit", detail))
        if kinds is not None:
            others = known & (room.state["kind"][np.maximum(waiting, 0)] != kinds[rows])
            left_out(call, batch, rows[others])
            known &= ~others
        rows, waiting = rows[known], waiting[known]
        call.out.counts["deselected"] += int((~room.state["selected"][waiting]).sum())
        limit = full_keys(self._series.max_memory, state)
        became, goers = room.take(
            waiting,
            batch.time_ms[rows],
            self._modality.waiting(batch.values[rows]),
            limit - len(state.keys),
        )
        late[rows[became == LATE]] = True
        for row in rows[became == REFUSED].tolist():
            detail = (
                f"the shard holds {limit} keys with windows already, {state.bytes_per_key} bytes "
                f"each; series.max_memory is {format_size(self._series.max_memory)}"
            )
            call.out.rejected.append(reject(batch, row, "key_limit", detail))
        codes = np.full(len(known), NO_KEY, np.int32)
        if len(goers):
            place = np.full(room.keys.capacity, NO_KEY, np.int32)
            place[goers] = self._settle(call, goers)
            goes = became == GOES
            codes[np.flatnonzero(known)[goes]] = place[waiting[goes]]
        return codes

    def _why(self, most: int) -> str:
        if most == self._series.max_keys:
            return f"series.max_keys is {most}"
        return f"series.max_memory is {format_size(self._series.max_memory)}"

    def _meet(
        self,
        call: Call,
        batch: RecordBatch[Any],
        rows: NDArray[np.int64],
        waiting: NDArray[np.int32],
        created: list[int],
        kinds: NDArray[np.int8] | None,
    ) -> None:
        call.state.due_ms = int(NEVER)
        order = np.argsort(waiting, kind="stable")
        firsts = rows[order[np.searchsorted(waiting[order], np.array(created, np.int32))]]
        columns = {name: column.gather(firsts).to_list() for name, column in batch.tags.items()}
        tags: list[dict[str, str]] = [{} for _ in created]
        for name, column in columns.items():
            for tag, value in zip(tags, column, strict=True):
                if value is not None:
                    tag[name] = str(value)
        room = call.state.waiting
        names = [str(room.keys.names[code]) for code in created]
        chosen = [True] * len(created)
        if not self._selects_all:
            chosen = [self._is_selected(name, tag) for name, tag in zip(names, tags, strict=True)]
        room.add(created, chosen, tags)
        room.state["born_ms"][created] = batch.time_ms[firsts]
        room.state["kind"][created] = self._kind if kinds is None else kinds[firsts]
        call.out.met += names

    def _settle(self, call: Call, goers: NDArray[np.int32]) -> NDArray[np.int32]:
        """Give keys arrays of their own, and feed these the rows that waited."""
        state, room = call.state, call.state.waiting
        owner, time_ms, values = room.leave(goers)
        names = [str(room.keys.names[code]) for code in goers.tolist()]
        tags = [room.tags.get(code, {}) for code in goers.tolist()]
        kept = {name: room.state[name][goers] for name in _MOVED}
        room.drop(goers)
        codes = state.keys.add(names)
        state.add(codes.tolist(), [True] * len(names), tags)
        for name, values_of_it in kept.items():
            state.flags[name][codes] = values_of_it
        self._seed(state, codes, names)
        if not len(owner):
            return codes
        late = np.zeros(len(owner), np.bool_)
        blocks = state.windows.ingest(codes[owner], time_ms, values, late, state.flags["kind"])
        n_windows = sum(map(len, blocks))
        if n_windows or late.any():
            msg = f"{n_windows} windows and {late.sum()} late rows among rows that waited"
            raise AssertionError(msg)
        return codes

    def _seed(self, state: ShardState, codes: NDArray[np.int32], names: list[str]) -> None:
        """Start keys that the artifact was fitted on from what it knows of them."""
        groups = np.array([self._groups.get(name, _NO_GROUP) for name in names], np.int32)
        known = groups != _NO_GROUP
        if not known.any():
            return
        slots, groups = codes[known], groups[known]
        state.episodes.seed_all(slots, groups)
        if state.memory is not None:
            self._detector.seed_memories(state.memory, slots=slots, groups=groups)
            state.flags["seeded"][slots] = True

    def _is_selected(self, key: str, tags: Mapping[str, str]) -> bool:
        select = self._series.select
        return (
            any(fnmatchcase(key, pattern) for pattern in select.include)
            and not any(fnmatchcase(key, pattern) for pattern in select.exclude)
            and all(fnmatchcase(tags.get(name, ""), want) for name, want in select.tags.items())
        )


def full_keys(max_memory: int, state: ShardState) -> int:
    """Return how many keys of a shard may have windows: what takes seven eighths of its memory."""
    return max(1, (max_memory - max_memory // _SHARE) // state.bytes_per_key)


def all_keys(max_memory: int, state: ShardState) -> int:
    """Return how many keys a shard may know, most of them waiting: what takes the last eighth."""
    return max(_FEW_KEYS, max_memory // _SHARE // state.bytes_per_waiting_key)


def left_out(call: Call, batch: RecordBatch[Any], rows: NDArray[np.int64]) -> None:
    """Count rows of another kind than their series, or than ``series.kind``: no fault of theirs."""
    messages, numbers = np.unique(batch.message[rows], return_counts=True)
    for message, number in zip(messages.tolist(), numbers.tolist(), strict=True):
        call.out.rejected.append(
            Rejected(
                message=message,
                reason="other_kind",
                detail=f"rows of another kind than their series: {number}",
                counts={"other_kind": number},
            )
        )


def reject(batch: RecordBatch[Any], row: int, reason: str, detail: str) -> Rejected:
    """Return the rejection of a row of a batch."""
    return Rejected(
        message=int(batch.message[row]), row=int(batch.row[row]), reason=reason, detail=detail
    )
