"""Keys that fall silent, come back or are forgotten: what partition time decides.

It is evaluated at fixed event times (ticks), between the same two rows however batches are cut.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import chain

import numpy as np
from numpy.typing import NDArray

from streamad.config import PipelineConfig
from streamad.config.series import SeriesConfig
from streamad.operators.call import Call
from streamad.operators.findings import FindingMaker
from streamad.operators.replaced import (
    Family,
    Member,
    Table,
    family_of,
    members,
    replaced,
    tables_of,
)
from streamad.records import Finding, FindingState, stable_id
from streamad.windows.arrays import NEVER
from streamad.wording import DATA_AGAIN, duration

FORGOTTEN = "forgotten after series.ttl"
LATER = 2**62
"""After all ticks."""

HEARD, REPORTED, UNSAID = range(3)
"""Of a key: it sends data; its silence is a finding; it is silent, and that is nobody's concern."""

Masks = list[NDArray[np.bool_]]


def tick_length(series: SeriesConfig) -> int:
    """Return the milliseconds between ticks, so that what they decide holds to a quarter."""
    silence = series.ttl if series.silence is None else series.silence
    return max(1_000, min(silence, series.ttl, series.gone_after) // 4)


def cut_at_ticks(
    time_ms: NDArray[np.int64], *, partition_ms: int, last_tick: int, tick_ms: int
) -> tuple[list[tuple[int, int, int | None]], int]:
    """Return ``(start, stop, tick due before start)`` for the parts of a batch, and the last tick.

    time_ms : event times in offset order, `NEVER` for rows that do not move partition time
    """
    if not len(time_ms):
        return [], last_tick
    running = np.maximum(np.maximum.accumulate(time_ms), partition_ms)
    ticks = running // tick_ms
    moved = np.flatnonzero(running > NEVER)
    if last_tick == int(NEVER) and len(moved):
        last_tick = int(ticks[moved[0]]) * tick_ms
    before = np.concatenate([[last_tick // tick_ms], ticks[:-1]])
    cuts = np.flatnonzero((ticks > before) & (ticks > last_tick // tick_ms)).tolist()
    bounds = [0, *cuts, len(time_ms)]
    parts: list[tuple[int, int, int | None]] = [(0, bounds[1], None)]
    for cut, stop in zip(cuts, bounds[2:], strict=True):
        parts.append((cut, stop, int(ticks[cut]) * tick_ms))
    return parts, last_tick


@dataclass(frozen=True, slots=True)
class Silence:
    """Watch over the keys of shards: a bag of settings, as the operator is.

    A key that another has replaced is no concern; nor is, by group, one whose group still sends.
    """

    config: PipelineConfig
    make: FindingMaker

    def pass_tick(self, call: Call, tick_ms: int) -> None:
        """Report keys that fell silent or came back as of ``tick_ms``, and forget old ones."""
        state, series = call.state, self.config.series
        state.last_tick = tick_ms
        # Most ticks decide nothing: clocks only rise, so nothing is due before what was due first.
        if tick_ms < state.due_ms:
            return
        tables = tables_of(state)
        if series.silence is not None:
            self._come_and_go(call, tables, tick_ms, series.silence)
        due = [self._due(table, tick_ms) for table in tables]
        due.append(self._end_episodes(call, tables[0], tick_ms))
        state.due_ms = min(due)
        for table in tables:
            self._forget(call, table, tick_ms)

    def _due(self, table: Table, tick_ms: int) -> int:
        """Return before when no tick decides anything about these keys.

        A key that is silent may come back at any tick; of one that was never seen nothing is known.
        Whoever adds a key resets the time.
        """
        series = self.config.series
        stays = ~((table.clock > NEVER) & (table.clock + series.ttl <= tick_ms))
        left = table.clock[stays]
        if not len(left):
            return LATER
        first = int(left.min())
        if first == int(NEVER) or (table.column("silent")[stays] != HEARD).any():
            return int(NEVER)
        return first + min(series.ttl, series.silence or series.ttl)

    def _end_episodes(self, call: Call, live: Table, tick_ms: int) -> int:
        """End open episodes of keys that are gone; return before when no other one is.

        No window of theirs will, and forgetting them takes a day.
        """
        ends_ms = live.clock + self.config.series.gone_after
        is_open = call.state.episodes.is_open(live.codes)
        for one in members(live, is_open & (ends_ms <= tick_ms)):
            self.make.end(call, one.code, at_ms=tick_ms, until_ms=one.clock_ms, reason=self._gone())
        call.state.episodes.abandon(live.codes[is_open & (ends_ms <= tick_ms)])
        return int(ends_ms[is_open & (ends_ms > tick_ms)].min(initial=LATER))

    def _gone(self) -> str:
        return f"taken for gone after {duration(self.config.series.gone_after)} (series.gone_after)"

    def _forget(self, call: Call, table: Table, tick_ms: int) -> None:
        state = call.state
        gone = (table.clock > NEVER) & (table.clock + self.config.series.ttl <= tick_ms)
        if not gone.any():
            return
        for one in members(table, gone & (table.column("silent") == REPORTED)):
            self._ended(call, one, tick_ms, FORGOTTEN)
        codes = table.codes[gone]
        call.out.counts["forgotten"] += len(codes)
        if table.waiting:
            state.waiting.drop(codes)
            return
        for code in codes[state.episodes.is_open(codes)].tolist():
            last_ms = int(state.windows.state["clock"][code])
            self.make.end(call, code, at_ms=last_ms, until_ms=last_ms, reason=FORGOTTEN)
        state.drop(codes)

    # ------------------------------------------------------------------ who is silent

    def _come_and_go(
        self, call: Call, tables: Sequence[Table], tick_ms: int, silence_ms: int
    ) -> None:
        quiet = [one.watched() & (one.clock + silence_ms <= tick_ms) for one in tables]
        for table, still in zip(tables, quiet, strict=True):
            back = ~still & (table.column("silent") != HEARD)
            for one in members(table, back & (table.column("silent") == REPORTED)):
                self._ended(call, one, tick_ms, DATA_AGAIN)
            table.flags["silent"][table.codes[back]] = HEARD
        if any(
            (one.column("silent")[q] != UNSAID).any() for one, q in zip(tables, quiet, strict=True)
        ):
            if self.config.series.silence_by == "group":
                self._report_groups(call, tables, quiet, tick_ms)
            else:
                self._report_keys(call, tables, quiet, tick_ms, silence_ms)
        open_ms = silence_ms + self.config.series.gone_after
        for table in tables:
            told = table.column("silent") == REPORTED
            for one in members(table, told & (table.clock + open_ms <= tick_ms)):
                self._ended(call, one, tick_ms, self._gone())

    def _report_keys(
        self, call: Call, tables: Sequence[Table], quiet: Masks, tick_ms: int, silence_ms: int
    ) -> None:
        """Report each key that fell silent, but for those that others have replaced."""
        lost = list(
            chain.from_iterable(
                members(one, still & (one.column("silent") != UNSAID))
                for one, still in zip(tables, quiet, strict=True)
            )
        )
        heard = [(one, one.watched() & ~still) for one, still in zip(tables, quiet, strict=True)]
        by_whom = replaced(
            lost,
            heard,
            silence_ms=silence_ms,
            name=lambda one: call.key(one.code),
            family=self._kind(call),
        )
        for one in lost:
            by = by_whom.get(one.code)
            if by is None:
                if one.get("silent") == HEARD:
                    self._fell_silent(call, one, tick_ms)
                continue
            if one.get("silent") == REPORTED:
                self._ended(call, one, tick_ms, f"replaced by {by}")
            one.set("silent", UNSAID)
            call.out.counts["replaced"] += 1

    def _report_groups(
        self, call: Call, tables: Sequence[Table], quiet: Masks, tick_ms: int
    ) -> None:
        """Report groups of which no key sends any more, by the key that sent last."""
        family, silent = self._group(call), defaultdict[str, list[Member]](list)
        sends = set[str]()
        for table, still in zip(tables, quiet, strict=True):
            for one in members(table, still):
                silent[family(call.key(one.code), one.code)].append(one)
            # Only where somebody is silent does it matter who is not.
            for one in members(table, table.watched() & ~still):
                sends.add(family(call.key(one.code), one.code))
        for group, those in sorted(silent.items()):
            self._report_group(call, those, tick_ms, sends=group in sends)

    def _report_group(
        self, call: Call, silent: Sequence[Member], tick_ms: int, *, sends: bool
    ) -> None:
        """Report a group by its silent keys; sends : others of it do send."""
        told = [one for one in silent if one.get("silent") == REPORTED]
        fell = [one for one in silent if one.get("silent") == HEARD]
        for one in fell:
            one.set("silent", UNSAID)
        if sends:
            for one in told:
                self._ended(call, one, tick_ms, DATA_AGAIN)
        elif fell and not told:
            last = max(silent, key=lambda one: (one.clock_ms, call.key(one.code)))
            self._fell_silent(call, last, tick_ms, n_series=len(silent))

    def _group(self, call: Call) -> Family:
        """Return a function from a key to its group; without ``alerts.group`` all are of one."""
        group = self.config.alerts.group or ""

        def of(key: str, code: int) -> str:
            return self.make.entity(key, call.state.tags_of(code)).get(group, group)

        return of

    def _kind(self, call: Call) -> Family:
        """Return a function from a key to what it has in common with those that may replace it.

        Not the group alone: a new web server must not hide that a database of its team is gone.
        """
        group, n_fields = self._group(call), len(self.config.input.fields.key)
        return lambda key, code: f"{group(key, code)}\0{family_of(key, n_fields)}"

    # ------------------------------------------------------------------ findings

    def _fell_silent(self, call: Call, one: Member, tick_ms: int, *, n_series: int = 0) -> None:
        silence_ms, since_ms = self.config.series.silence or 0, one.clock_ms
        one.set("silent", REPORTED)
        one.set("silent_ms", since_ms)
        if not one.table.waiting:
            one.set("silent_ordinal", one.get("ordinal"))
        said = f"no data for {(tick_ms - since_ms) / 1000:g} s"
        if n_series:
            said = f"{said} from any of {n_series:,} series"
        self._tell(
            call, one, "began", tick_ms, f"{said}; series.silence is {silence_ms / 1000:g} s"
        )
        call.out.counts["silent"] += 1

    def _ended(self, call: Call, one: Member, tick_ms: int, reason: str) -> None:
        one.set("silent", UNSAID)
        self._tell(call, one, "ended", tick_ms, reason)

    def _tell(
        self, call: Call, one: Member, state: FindingState, tick_ms: int, reason: str
    ) -> None:
        found = self.make.plain(
            call,
            one.code,
            kind="no_data",
            state=state,
            since_ms=one.get("silent_ms"),
            since_ordinal=0 if one.table.waiting else one.get("silent_ordinal"),
            now_ms=tick_ms,
            reason=reason,
        )
        if self.config.series.silence_by == "group":
            found = _of_group(found, self.config.alerts.group or "")
        call.out.findings.append(found)


def _of_group(finding: Finding, label: str) -> Finding:
    """Return a finding on a key as one on its group."""
    return replace(
        finding,
        id=stable_id(finding.id, finding.group),
        key=finding.group,
        entity={label: finding.group},
    )
