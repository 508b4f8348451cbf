"""Keys that fall silent, come back, or are forgotten: the one thing partition time decides.

It is evaluated at fixed event times (ticks), between the same two rows however batches are cut.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from streamad.config import SeriesConfig
from streamad.operators.call import Call
from streamad.operators.findings import FindingMaker
from streamad.operators.shard import waiting_code
from streamad.windows.arrays import NEVER, KeyedArrays

FORGOTTEN = "forgotten after series.ttl"
LATER = 2**62
"""After all ticks."""


def tick_length(series: SeriesConfig) -> int:
    """Return the milliseconds between ticks, so that silence and TTL hold to a quarter."""
    shortest = series.ttl if series.silence is None else min(series.silence, series.ttl)
    return max(1_000, shortest // 4)


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


def pass_tick(call: Call, tick_ms: int, *, series: SeriesConfig, make: FindingMaker) -> None:
    """Report keys that fell silent or came back as of ``tick_ms``, and forget old ones."""
    state = call.state
    state.last_tick = tick_ms
    # Most ticks decide nothing: clocks only rise, so nothing is due before what was due first.
    if tick_ms < state.due_ms:
        return
    due = [_pass_live(call, tick_ms, series, make), _pass_waiting(call, tick_ms, series, make)]
    state.due_ms = min(due)


def _pass_live(call: Call, tick_ms: int, series: SeriesConfig, make: FindingMaker) -> int:
    """Pass a tick for keys with windows; return what `_pass` does."""
    state = call.state
    due_ms, gone = _pass(
        call, state.keys.live(), state.windows.state["clock"], state.flags, tick_ms, series, make
    )
    if len(gone):
        for code in gone[state.episodes.is_open(gone)].tolist():
            last_ms = int(state.windows.state["clock"][code])
            make.end(call, code, at_ms=last_ms, until_ms=last_ms, reason=FORGOTTEN)
        state.drop(gone)
    return due_ms


def _pass_waiting(call: Call, tick_ms: int, series: SeriesConfig, make: FindingMaker) -> int:
    """Pass a tick for keys without a window; return what `_pass` does."""
    room = call.state.waiting
    due_ms, gone = _pass(
        call, room.keys.live(), room.state["clock"], room.state, tick_ms, series, make, waiting=True
    )
    if len(gone):
        room.drop(gone)
    return due_ms


def _pass(  # noqa: PLR0913, PLR0917 - one tick over the columns of one table
    call: Call,
    live: NDArray[np.int32],
    clocks: NDArray[np.int64],
    flags: KeyedArrays,
    tick_ms: int,
    series: SeriesConfig,
    make: FindingMaker,
    *,
    waiting: bool = False,
) -> tuple[int, NDArray[np.int32]]:
    """Report who is silent or back; return before when no tick decides anything, and who is gone.

    A key that is silent may come back at any tick; of one that was never seen nothing is known.
    Whoever adds a key resets the time.
    """
    if not len(live):
        return LATER, live
    clock, silent = clocks[live], flags["silent"][live]
    seen = clock > NEVER
    if series.silence is not None:
        quiet = seen & flags["selected"][live] & (clock + series.silence <= tick_ms)
        for code in live[quiet & ~silent].tolist():
            _fell_silent(call, code, tick_ms, series.silence, make, waiting=waiting)
        for code in live[~quiet & silent].tolist():
            _ended(call, code, tick_ms, "data again", make, waiting=waiting)
        silent = flags["silent"][live]
    gone = seen & (clock + series.ttl <= tick_ms)
    for code in live[gone & silent].tolist():
        _ended(call, code, tick_ms, FORGOTTEN, make, waiting=waiting)
    call.out.counts["forgotten"] += int(gone.sum())
    left = clock[~gone]
    if not len(left):
        return LATER, live[gone]
    first = int(left.min())
    if first == int(NEVER) or silent[~gone].any():
        return int(NEVER), live[gone]
    return first + min(series.ttl, series.silence or series.ttl), live[gone]


def _table(call: Call, *, waiting: bool) -> tuple[KeyedArrays, NDArray[np.int64]]:
    """Return flags and clocks of the keys that wait, or of the others."""
    if waiting:
        return call.state.waiting.state, call.state.waiting.state["clock"]
    return call.state.flags, call.state.windows.state["clock"]


def _fell_silent(
    call: Call, code: int, tick_ms: int, silence: int, make: FindingMaker, *, waiting: bool
) -> None:
    flags, clocks = _table(call, waiting=waiting)
    since = int(clocks[code])
    flags["silent"][code] = True
    flags["silent_ms"][code] = since
    ordinal = 0 if waiting else int(flags["ordinal"][code])
    if not waiting:
        flags["silent_ordinal"][code] = ordinal
    said = f"no data for {(tick_ms - since) / 1000:g} s; series.silence is {silence / 1000:g} s"
    call.out.findings.append(
        make.plain(
            call,
            waiting_code(code) if waiting else code,
            kind="no_data",
            state="began",
            since_ms=since,
            since_ordinal=ordinal,
            now_ms=tick_ms,
            reason=said,
        )
    )
    call.out.counts["silent"] += 1


def _ended(
    call: Call, code: int, tick_ms: int, reason: str, make: FindingMaker, *, waiting: bool
) -> None:
    flags, _ = _table(call, waiting=waiting)
    flags["silent"][code] = False
    call.out.findings.append(
        make.plain(
            call,
            waiting_code(code) if waiting else code,
            kind="no_data",
            state="ended",
            since_ms=int(flags["silent_ms"][code]),
            since_ordinal=0 if waiting else int(flags["silent_ordinal"][code]),
            now_ms=tick_ms,
            reason=reason,
        )
    )
