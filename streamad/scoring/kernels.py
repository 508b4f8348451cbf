"""The compiled pass over scored windows; see `streamad.scoring.episodes` for what it means."""

import numpy as np

from streamad.compiled import compiled
from streamad.scoring.block_kernels import (
    HELD,
    ITEM_MS,
    block_length,
    decode,
    encode,
    prior_of,
    rate_of,
    refit,
)
from streamad.scoring.law import box_cox, position, probability

NOTHING, BEGAN, CONTINUES, ENDED, ADOPTED = range(5)
"""What a window means for its key's episode."""

CENTRED, NEWEST, FROZEN = range(3)
"""Which look a window's smallest probability comes from."""

RAISED = np.float32(1.1)
"""An episode reports again when its peak, in entry levels, has grown by this factor."""
DOUBLED = np.float32(2.0)
"""The same of rows that are judged one by one, of which there may be thousands a second."""
MEASURE_AGAIN = 64
"""Windows after which the time between a key's samples is measured once more."""
MOST_OFTEN, MOST_OFTEN_EXIT = 0.4, 0.5
"""A level is reached by at most such a share of blocks, however common it is asked to be."""
YOUNG = 1.75
"""Times the alert level that the newest samples of a key must reach on its first day."""
FEWEST_BLOCKS = 6
"""Blocks that a key must have shown, too: with two of them its law is a guess."""
CARRIED = np.float32(8.0)
"""Alert levels of a smoothed score that the next one is smoothed with, at the most."""
FROZEN_TIMES, FROZEN_LEAST, FROZEN_CHANGES = 4, 32, 64
"""A series is frozen once it stands still for so many times its longest stand, at least so many
samples, if it changed at least so often before."""
ADOPT_MESSAGES = 4
"""A lasting level is adopted only once so many messages showed it: one message may hold the rows of
a whole day, and one producer would decide what is normal."""

# Places in `clocks` (int64), `tally` (int32), `held` (float32) of a key.
(
    BLOCK_MS, BLOCK, FIRST_BLOCK, OPENED_MS, BEGAN_MS, OPEN_BLOCK, BIRTH_MS, HUSHED_MS,
    LAST_MESSAGE, LOUD_MS, TOLD_MS,
) = range(11)  # fmt: skip
(
    OPEN, ABOVE, BELOW, WINDOWS, SEQUENCE, SINCE, BY_NEWEST, MUTE, GRACE, FLAPS, SINCE_END, FREE,
    LONGEST, CHANGES, LAST_RUN, LOOK, HUSHED, MESSAGES,
) = range(18)  # fmt: skip
SMOOTH, PEAK_P, REPORTED, PEAK_RATIO, REPORTED_RATIO, SHARE = range(6)


# One function on purpose, as in windows/kernels.py.
@compiled
def judge_windows(
    codes, start_ms, end_ms, looks, final, suppressed, still, sudden, message, settings, levels,
    prior, power,
    zone_from, zone_offset, seeds, seed_of,
    count, clocks, tally, held, recent, rings, maxima, laws, marks, peaks,
    event, score, p_value, level, newest_p, newest_level, severity, candidate, inside, withheld,
    adopted, opened_ms, began_ms, sequence, n_windows, peak, peak_p, alert_p, look_out,
    loud_ms,
):  # fmt: skip
    min_windows, min_duration, cool_down = settings[0], settings[1], settings[2]
    update_every, adopt_ms, adopt_windows = settings[3], settings[4], settings[5]
    least_ms, size, stride, learns = settings[6], settings[7], settings[8], settings[9] == 1
    delay, step_ms, quiet_after = settings[10], settings[11], settings[12]
    first_ms, quiet_ms, update_ms = settings[13], settings[14], settings[15]
    n_looks = looks.shape[1]
    two = n_looks == 2
    weight = np.float32(1.0) / np.float32(max(size // stride // 10, 0) + 1)
    room = rings.shape[2]
    scratch = np.empty(1, np.float32)
    s = np.empty(2, np.float32)
    for i in range(len(codes)):
        k = codes[i]
        clock, note, hold = clocks[k], tally[k], held[k]

        # The smoothed centred look; what was logged is smoothed already.
        s[0] = looks[i, 0]
        s[1] = looks[i, 1] if two else np.float32(0.0)
        if not final[i]:
            if two and delay > 0 and count[k] >= delay:
                s[0] = max(s[0], recent[k, count[k] % delay])
            s[0] = np.float32(box_cox(s[0], power))
            if two and count[k] > 0 and size > 1:
                # Of what lies far beyond the alert level no more is carried on, or it would trail.
                top = laws[k, 0, 0] + laws[k, 0, 2] + laws[k, 0, 1] * marks[k, 2]
                before = min(hold[SMOOTH], np.float32(CARRIED * top))
                s[0] = before + weight * (s[0] - before)
        hold[SMOOTH] = s[0]
        if two and delay > 0:
            recent[k, count[k] % delay] = s[1]
        score[i] = s[0]

        # A new block: keep the maxima of the one before, and fit again.
        if count[k] == 0 or (count[k] == MEASURE_AGAIN and step_ms == 0):
            span = max(end_ms[i] - start_ms[i], (size - 1) * step_ms)
            if size == 1:  # rows judged one by one: the time between them
                span = (end_ms[i] - clock[BIRTH_MS]) // count[k] if count[k] > 0 else ITEM_MS
            length = block_length(span, least_ms)
            if count[k] == 0:
                clock[BIRTH_MS] = end_ms[i]
            if size == 1 and length == clock[BLOCK_MS]:
                hold[SHARE] = np.float32(min(0.25, max(span, 1) / length))
                for which in range(n_looks):
                    refit(
                        rings[k, which], clock[BLOCK], clock[FIRST_BLOCK], length,
                        prior_of(prior[which], size, hold[SHARE]), rate_of(marks[k, 2]),
                        marks[k, 2], zone_from, zone_offset, scratch, laws[k, which],
                    )  # fmt: skip
            if length != clock[BLOCK_MS]:
                clock[BLOCK_MS] = length
                clock[BLOCK] = clock[FIRST_BLOCK] = end_ms[i] // length
                cluster = 1.0 if size == 1 else 0.25
                hold[SHARE] = np.float32(min(0.25, cluster * max(span, 1) / length))
                for q in range(3):
                    block_rate = -1.0
                    if levels[q, 0] > 0:  # a probability of a window
                        block_rate = -np.expm1(np.log1p(-levels[q, 0]) / hold[SHARE])
                    else:  # a return period
                        block_rate = length / levels[q, 1]
                        block_rate = min(max(block_rate, levels[q, 2]), levels[q, 3])
                    # Block maxima know nothing of what happens in every block.
                    most = MOST_OFTEN_EXIT if q == 1 else MOST_OFTEN
                    marks[k, q] = position(min(block_rate ** levels[q, 4], most))
                for which in range(n_looks):
                    rings[k, which, :] = 0
                    maxima[k, which, :] = 0.0
                    if seed_of[k] >= 0:
                        for j in range(min(seeds.shape[2], room - 1)):
                            value = seeds[seed_of[k], which, j]
                            if value >= 0.0:
                                at = (clock[BLOCK] - 1 - j) % room
                                rings[k, which, at] = encode(value, scratch)
                note[FREE] = 0
                for which in range(n_looks):
                    refit(
                        rings[k, which], clock[BLOCK], clock[FIRST_BLOCK], length,
                        prior_of(prior[which], size, hold[SHARE]), rate_of(marks[k, 2]),
                        marks[k, 2], zone_from, zone_offset, scratch, laws[k, which],
                    )  # fmt: skip
        block = end_ms[i] // clock[BLOCK_MS]
        if block > clock[BLOCK]:
            for which in range(n_looks):
                if note[FREE] > 0:
                    code = encode(maxima[k, which, 0], scratch)
                else:
                    code = encode(maxima[k, which, 1], scratch) | HELD
                rings[k, which, clock[BLOCK] % room] = code
                for gone in range(max(clock[BLOCK] + 1, block - room), block):
                    rings[k, which, gone % room] = 0
                rings[k, which, block % room] = 0
                maxima[k, which, 0] = 0.0
                maxima[k, which, 1] = 0.0
                refit(
                    rings[k, which], block, clock[FIRST_BLOCK], clock[BLOCK_MS],
                    prior_of(prior[which], size, hold[SHARE]),
                    rate_of(marks[k, 2]), marks[k, 2], zone_from, zone_offset, scratch,
                    laws[k, which],
                )  # fmt: skip
            clock[BLOCK] = block
            note[FREE] = 0
            if note[FLAPS] > 0:
                note[FLAPS] -= 1

        # Levels are linear in the law, so that no decision hangs on a logarithm's last bit.
        base = laws[k, 0, 0] + laws[k, 0, 2]
        entry = base + laws[k, 0, 1] * marks[k, 0]
        leave = base + laws[k, 0, 1] * marks[k, 1]
        alert = base + laws[k, 0, 1] * marks[k, 2]
        share = float(hold[SHARE])
        p_value[i] = probability((s[0] - laws[k, 0, 0]) / laws[k, 0, 1], share)
        level[i] = entry
        alert_p[i] = probability(marks[k, 2], share)
        p = probability((s[0] - base) / laws[k, 0, 1], share)
        ratio = s[0] / alert
        # An excursion that lasts is itself a part of what happens.
        long = note[WINDOWS] - quiet_after
        if note[OPEN] == 1 and long > 0 and size > 1:
            p_value[i] = max(p_value[i], long * share / (room * quiet_after * 0.25))
        which_look = CENTRED
        # A key without training is not known well enough before a whole day was seen; and after an
        # event that the newest samples told of, the centred look only trails behind it.
        lived = end_ms[i] - clock[BIRTH_MS]
        known_for = max(first_ms, FEWEST_BLOCKS * clock[BLOCK_MS]) if first_ms > 0 else first_ms
        young = two and seed_of[k] < 0 and lived < known_for
        deaf = young or (note[MUTE] > 0 and note[OPEN] == 0)
        above = s[0] >= entry and not deaf
        strong = s[0] >= alert and not deaf
        calm = s[0] < leave or young
        if deaf:
            p = 1.0
            ratio = np.float32(0.0)
        if two:
            base = laws[k, 1, 0] + laws[k, 1, 2]
            if young:
                base += (YOUNG - 1.0) * (base + laws[k, 1, 1] * marks[k, 2])
            new_entry = base + laws[k, 1, 1] * marks[k, 0]
            new_leave = base + laws[k, 1, 1] * marks[k, 1]
            new_alert = base + laws[k, 1, 1] * marks[k, 2]
            newest_p[i] = probability((s[1] - laws[k, 1, 0]) / laws[k, 1, 1], share)
            rare = probability((s[1] - base) / laws[k, 1, 1], share)
            newest_level[i] = new_entry
            # Of a new key only a break can be told from a load that rises for the first time.
            known = sudden[i] or not young or note[OPEN] == 1
            if s[1] >= new_entry and known:
                above = True
                note[BY_NEWEST] = 1
            strong = strong or (s[1] >= new_alert and known)
            calm = (calm or note[BY_NEWEST] == 1) and s[1] < new_leave
            if s[1] / new_alert > ratio and known:
                p, ratio, which_look = rare, s[1] / new_alert, NEWEST
        # Standing still where it never did.
        run = still[i]
        if run < note[LAST_RUN]:
            limit = max(FROZEN_LEAST, FROZEN_TIMES * note[LONGEST])
            note[LONGEST] = max(note[LONGEST], min(note[LAST_RUN], limit))
        if run == 0:
            note[CHANGES] += 1
        note[LAST_RUN] = run
        if note[CHANGES] >= FROZEN_CHANGES:
            limit = max(FROZEN_LEAST, FROZEN_TIMES * note[LONGEST])
            if run >= limit:
                above = strong = True
                calm = False
                which_look = FROZEN
                ratio = max(ratio, np.float32(run) / np.float32(limit))
                p = min(p, probability(marks[k, 2] * run / limit, share))

        # The sum makes 0 of -0, which log(1) over a negative number is.
        told = min(np.log(p) / np.log(alert_p[i]), 10.0) + 0.0
        severity[i] = 0.0 if suppressed[i] else told
        withheld[i] = above and suppressed[i]
        above = above and not suppressed[i]
        candidate[i] = above
        was_open = note[OPEN] == 1
        if (was_open or note[HUSHED] > 0) and message[i] != clock[LAST_MESSAGE]:
            note[MESSAGES] += 1
        clock[LAST_MESSAGE] = message[i]
        # The episode opens after min_duration above entry, ends after cool_down below exit.
        if not was_open:
            if note[SINCE_END] > 0:
                note[SINCE_END] += 1
            if above and count[k] >= min_windows and note[GRACE] == 0:
                if note[ABOVE] == 0:
                    clock[BEGAN_MS] = end_ms[i]
                    hold[PEAK_RATIO] = np.float32(-1.0)
                note[ABOVE] += 1
                if ratio > hold[PEAK_RATIO]:
                    hold[PEAK_RATIO] = ratio
                    hold[PEAK_P] = p
                    note[LOOK] = which_look
                    peaks[k, 0] = s[0]
                    peaks[k, 1] = s[1]
                if note[ABOVE] >= min_duration:
                    event[i] = BEGAN
                    clock[OPENED_MS] = clock[LOUD_MS] = clock[TOLD_MS] = end_ms[i]
                    clock[OPEN_BLOCK] = clock[BLOCK]
                    note[OPEN] = 1
                    note[BELOW] = 0
                    note[WINDOWS] = note[ABOVE]
                    note[MESSAGES] = 1
                    note[SEQUENCE] = 0
                    note[SINCE] = 0
                    hold[REPORTED] = 1.0 if strong else 0.0
                    hold[REPORTED_RATIO] = hold[PEAK_RATIO]
                    if 0 < note[SINCE_END] <= 2 * quiet_after:
                        note[FLAPS] = min(note[FLAPS] + 1, 6)
                    for which in range(n_looks):
                        peaks[k, which] = s[which]
            else:
                note[ABOVE] = 0
                note[BY_NEWEST] = 0
        else:
            note[WINDOWS] += 1
            note[SINCE] += 1
            if not suppressed[i]:
                if ratio > hold[PEAK_RATIO]:
                    hold[PEAK_RATIO] = ratio
                    hold[PEAK_P] = p
                    note[LOOK] = which_look
                for which in range(n_looks):
                    peaks[k, which] = max(peaks[k, which], s[which])
            if calm or suppressed[i]:
                note[BELOW] += 1
            else:
                note[BELOW] = 0
                clock[LOUD_MS] = end_ms[i]
            # Each time it flaps it has to be calm for twice as long.
            patience = min(cool_down << note[FLAPS], max(quiet_after, cool_down))
            quiet_for = end_ms[i] - clock[LOUD_MS]
            if note[BELOW] >= patience and quiet_for >= quiet_ms << min(note[FLAPS], 2):
                event[i] = ENDED
            elif (
                note[WINDOWS] >= adopt_windows
                and end_ms[i] - clock[OPENED_MS] >= adopt_ms
                and note[MESSAGES] >= ADOPT_MESSAGES
            ):
                event[i] = ADOPTED
            elif (
                hold[PEAK_RATIO] > hold[REPORTED_RATIO] * (RAISED if update_ms == 0 else DOUBLED)
                or (
                    hold[PEAK_RATIO] > hold[REPORTED_RATIO] * RAISED
                    and end_ms[i] - clock[TOLD_MS] >= update_ms // 10
                )
                or (strong and hold[REPORTED] == 0.0)
                or (
                    note[SINCE] >= update_every
                    and (
                        update_ms == 0
                        or (note[BELOW] == 0 and end_ms[i] - clock[TOLD_MS] >= update_ms)
                    )
                )
            ):
                event[i] = CONTINUES
                clock[TOLD_MS] = end_ms[i]
                note[SINCE] = 0
                hold[REPORTED_RATIO] = hold[PEAK_RATIO]
                if strong:
                    hold[REPORTED] = 1.0
            if event[i] != NOTHING:
                note[SEQUENCE] += 1
        inside[i] = note[OPEN] == 1
        if event[i] != NOTHING:
            opened_ms[i] = clock[OPENED_MS]
            began_ms[i] = clock[BEGAN_MS]
            sequence[i] = note[SEQUENCE]
            n_windows[i] = note[WINDOWS]
            peak[i] = peaks[k, 1] if note[LOOK] == NEWEST else peaks[k, 0]
            peak_p[i] = hold[PEAK_P]
            look_out[i] = note[LOOK]
            loud_ms[i] = clock[LOUD_MS]

        # What lasts is adopted where it is suppressed, too; nobody is told.
        if note[OPEN] == 0:
            if withheld[i] and note[HUSHED] == 0:
                note[HUSHED] = 1
                note[MESSAGES] = 1
                clock[HUSHED_MS] = end_ms[i]
                clock[OPEN_BLOCK] = clock[BLOCK]
            elif note[HUSHED] > 0:
                note[HUSHED] = 0 if calm else note[HUSHED] + 1
                lasted = end_ms[i] - clock[HUSHED_MS]
                enough = note[HUSHED] >= adopt_windows and note[MESSAGES] >= ADOPT_MESSAGES
                if enough and lasted >= adopt_ms:
                    adopted[i] = True
                    note[HUSHED] = 0
        else:
            note[HUSHED] = 0
        adopted[i] = adopted[i] or event[i] == ADOPTED

        # What the law learns: free windows as they are, an episode as its one peak.
        if note[MUTE] > 0:
            note[MUTE] -= 1
        if note[GRACE] > 0:
            note[GRACE] -= 1
        quiet = suppressed[i] and not calm
        if event[i] == BEGAN or (note[OPEN] == 0 and not quiet):
            note[FREE] += 1
            for which in range(n_looks):
                value = s[which]
                if event[i] != BEGAN and count[k] < min_windows:
                    top = laws[k, which, 0] + laws[k, which, 2] + laws[k, which, 1] * marks[k, 0]
                    value = min(value, np.float32(top))
                maxima[k, which, 0] = max(maxima[k, which, 0], value)
        else:
            for which in range(n_looks):
                maxima[k, which, 1] = max(maxima[k, which, 1], s[which])
        count[k] += 1
        if event[i] >= ENDED or adopted[i]:
            for which in range(n_looks):
                at = clock[OPEN_BLOCK] % room
                if not adopted[i]:
                    if clock[OPEN_BLOCK] == clock[BLOCK]:
                        maxima[k, which, 0] = max(maxima[k, which, 0], peaks[k, which])
                    elif clock[BLOCK] - clock[OPEN_BLOCK] < room:
                        before = decode(rings[k, which, at], scratch)
                        rings[k, which, at] = encode(max(before, peaks[k, which]), scratch)
                elif not learns:  # the lasting level becomes the history
                    for back in range(1, room):
                        old = (clock[BLOCK] - back) % room
                        in_it = back < clock[BLOCK] - clock[OPEN_BLOCK]
                        code = rings[k, which, old]
                        rings[k, which, old] = code & ~HELD if in_it else np.uint16(0)
                    refit(
                        rings[k, which], clock[BLOCK], clock[FIRST_BLOCK], clock[BLOCK_MS],
                        prior_of(prior[which], size, hold[SHARE]), rate_of(marks[k, 2]),
                        marks[k, 2], zone_from, zone_offset, scratch, laws[k, which],
                    )  # fmt: skip
            if adopted[i]:
                # Of the new level as little is known as of a new key, and training knew another.
                clock[BIRTH_MS] = end_ms[i]
                seed_of[k] = -1
                note[GRACE] = max(min_windows, 1)
                note[MUTE] = 2 * quiet_after
                note[LONGEST] = max(note[LONGEST], run)
            elif note[BY_NEWEST] == 1:
                note[MUTE] = quiet_after + quiet_after // 2
            note[OPEN] = 0
            note[ABOVE] = 0
            note[SINCE_END] = 1
            note[BY_NEWEST] = 0
