"""Maxima of blocks of time, kept in 16 bits each, and the law that is fitted to them."""

import numpy as np

from streamad.compiled import compiled
from streamad.scoring.law import PRIOR_FLOOR, ROW_FLOOR, fit_law, probability

HOUR_MS = 3_600_000
NICE_HOURS = np.array([1, 2, 3, 4, 6, 8, 12, 24], np.int64)
"""Blocks divide the day, so that blocks of one hour of the day can be compared."""
HELD = np.uint16(0x8000)
"""Marks a block whose windows all lay inside an episode: kept, but not part of the law."""
FEWEST_REPEATS = 5
"""Excursions of one size before they count as recurring."""
ONE_SIZE = np.float32(0.7)
"""Least share of the largest of them for the others to be of one size with it."""
MOST_REPEATS = 32
MARGIN, MARGIN_AT_ITS_HOUR = 1.1, 1.3
"""What recurs may come this much larger next time."""
FEW_DAYS = 6
ITEM_MS = 60_000
"""Time between two rows of a key that is not known yet, where rows are judged one by one."""
TINIEST = np.float32(1e-30)


@compiled
def encode(value, scratch):
    """Return a value of at least 0 in 16 bits: the upper half of its float32, rounded."""
    scratch[0] = max(np.float32(value), TINIEST)
    bits = scratch.view(np.uint32)[0]
    return np.uint16((bits + np.uint32(0x8000)) >> np.uint32(16)) & np.uint16(0x7FFF)


@compiled
def decode(code, scratch):
    """Return the value behind a code, held or not."""
    scratch.view(np.uint32)[0] = np.uint32(code & np.uint16(0x7FFF)) << np.uint32(16)
    return scratch[0]


@compiled
def local_phase(block, block_ms, period, zone_from, zone_offset):
    """Return a block's place in the local day or week."""
    start = block * block_ms
    at = np.searchsorted(zone_from, start, side="right") - 1
    return ((start + zone_offset[max(at, 0)]) // block_ms) % period


@compiled
def expected_at_this_hour(ring, block, first, block_ms, zone_from, zone_offset, scratch):
    """Return the size of excursions this hour of the day, or of the week, has shown before.

    Of the days in memory (their hour, and the ones beside it) the second largest maximum, the third
    where many days are known; likewise of the weeks. 0 where fewer than two are known.
    """
    room = len(ring)
    found = np.float32(0.0)
    for days in (1, 7):
        period = days * 24 * HOUR_MS // block_ms
        if period < 1 or (days == 7 and period * 2 > room) or (days == 1 and period < 2):
            continue
        phase = local_phase(block, block_ms, period, zone_from, zone_offset)
        # Three largest of the periods' maxima.
        a = b = c = np.float32(-1.0)
        n = 0
        best = np.float32(-1.0)
        for back in range(max(period - 1, 1), room):
            at = block - back
            if at < first:
                if best >= 0.0:  # the oldest one, not seen whole
                    n += 1
                    if best > a:
                        a, b, c = best, a, b
                    elif best > b:
                        b, c = best, b
                    elif best > c:
                        c = best
                break
            apart = (phase - local_phase(at, block_ms, period, zone_from, zone_offset)) % period
            near = apart == 0 or (days == 1 and period > 4 and (apart == 1 or apart == period - 1))
            if near:
                code = ring[at % room]
                if code != 0 and code & HELD == 0:
                    best = max(best, decode(code, scratch))
            last = apart == 1 if days == 1 and period > 4 else apart == 0
            if last and best >= 0.0:
                n += 1
                if best > a:
                    a, b, c = best, a, b
                elif best > b:
                    b, c = best, b
                elif best > c:
                    c = best
                best = np.float32(-1.0)
        if n >= 2:
            found = max(found, c if n >= FEW_DAYS else b)
    return found


@compiled
def refit(ring, block, first, block_ms, prior, rate, alert_z, zone_from, zone_offset, scratch, law):
    """Fit one look's law to the blocks in memory, and measure by how much what recurs exceeds it.

    law : location, scale and lift are written; levels are lifted, the law of scores is not
    rate : how often a block may reach the alert level; alert_z : that level's standard position
    """
    room = len(ring)
    maxima = np.empty(room, np.float32)
    age = np.empty(room, np.int64)
    n = 0
    for back in range(1, room):
        code = ring[(block - back) % room]
        if code != 0 and code & HELD == 0:
            maxima[n] = decode(code, scratch)
            age[n] = back
            n += 1
    location, scale = fit_law(maxima[:n], prior[0], prior[1], prior[2])
    usual = location + scale * alert_z
    alert = location + scale * alert_z
    # What came back sooner than the alert level allows is no longer rare.
    # Of those at one hour of the day one counts: the others are that hour's.
    order = np.argsort(-maxima[:n])
    a_day = 24 * HOUR_MS // block_ms
    hours = np.empty(MOST_REPEATS, np.int64)
    sizes = np.empty(MOST_REPEATS, np.float32)
    n_seen = 0
    oldest = np.int64(0)
    for j in range(n):
        if maxima[order[j]] <= alert or n_seen == MOST_REPEATS:
            break
        if a_day > 4:
            at = block - age[order[j]]
            hour = local_phase(at, block_ms, a_day, zone_from, zone_offset)
            known = False
            for other in hours[:n_seen]:
                known = known or (hour - other) % a_day <= 1 or (other - hour) % a_day <= 1
            if known:
                continue
            hours[n_seen] = hour
        sizes[n_seen] = maxima[order[j]]
        n_seen += 1
        oldest = max(oldest, age[order[j]])
        if n_seen < FEWEST_REPEATS:
            continue
        largest = sizes[n_seen - FEWEST_REPEATS]
        if n_seen - 1 > rate * oldest and maxima[order[j]] >= ONE_SIZE * largest:
            alert = largest * MARGIN
            break
    seasonal = expected_at_this_hour(ring, block, first, block_ms, zone_from, zone_offset, scratch)
    alert = max(alert, seasonal * MARGIN_AT_ITS_HOUR)
    law[0] = location
    law[1] = scale
    law[2] = alert - usual


@compiled
def prior_of(prior, size, share):
    """Return the default law of a key; of rows, a block holds more the more often they come.

    The maximum of n times as many independent rows lies higher by log(n) scales (Gumbel 1958).
    """
    shift = np.log(float(ITEM_MS) / HOUR_MS / max(share, 1e-12)) if size == 1 else 0.0
    return prior[0] + prior[1] * shift, prior[1], ROW_FLOOR if size == 1 else PRIOR_FLOOR


@compiled
def block_length(span_ms, least_ms):
    """Return the shortest nice length of a block that holds a window: whole hours, then days."""
    least = max(span_ms, least_ms)
    for hours in NICE_HOURS:
        if hours * HOUR_MS >= least:
            return hours * HOUR_MS
    day = 24 * HOUR_MS
    return (least + day - 1) // day * day


@compiled
def rate_of(z):
    """Return how often a block's maximum reaches a position."""
    return probability(z, 1.0)
