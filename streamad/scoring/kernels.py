"""The compiled pass over scored windows; see `streamad.scoring.episodes` for what it means."""

import numpy as np

from streamad.compiled import compiled
from streamad.scoring.tail import TOP, fit_tail, level_at, p_value

NOTHING, BEGAN, CONTINUES, ENDED, ADOPTED = range(5)
"""What a window means for its key's episode."""

REFIT_EVERY = 128
RAISED = np.float32(1.1)
"""An episode reports again when its peak has grown by this factor."""


# One function on purpose, as in windows/kernels.py.
@compiled
def judge_windows(
    codes, scores, end_ms, suppressed, settings, probabilities, floors,
    count, counts, tops, tail, levels, episode, times, peaks,
    event, p_out, level_out, candidate, inside, opened_ms, began_ms, sequence, n_windows, peak,
    peak_p,
):  # fmt: skip
    min_windows, min_duration, cool_down = settings[0], settings[1], settings[2]
    adopt_after, epoch, update_every = settings[3], settings[4], settings[5]
    notable = probabilities[2]
    merged = np.empty(2 * TOP, np.float32)
    for i in range(len(codes)):
        k = codes[i]
        s = scores[i]
        entry, leave = levels[k, 0], levels[k, 1]
        p = p_value(float(s), tail[k, 0], tail[k, 1], tail[k, 2], tail[k, 3])
        p_out[i] = p
        level_out[i] = entry
        above = s >= entry and not suppressed[i]
        candidate[i] = above
        was_open = episode[k, 0] == 1

        # The episode opens after min_duration above entry, ends after cool_down below exit.
        if not was_open:
            if above and count[k] >= min_windows:
                if episode[k, 1] == 0:
                    times[k, 1] = end_ms[i]
                    peaks[k, 0] = s
                    peaks[k, 1] = p
                episode[k, 1] += 1
                if s > peaks[k, 0]:
                    peaks[k, 0] = s
                    peaks[k, 1] = p
                if episode[k, 1] >= min_duration:
                    event[i] = BEGAN
                    times[k, 0] = end_ms[i]
                    episode[k, 0] = 1
                    episode[k, 2] = 0
                    episode[k, 3] = episode[k, 1]
                    episode[k, 4] = 0
                    episode[k, 5] = 0
                    peaks[k, 3] = peaks[k, 0]
                    peaks[k, 4] = peaks[k, 1]
                    counts[k, 2] = 0
                    counts[k, 5] = 0
            else:
                episode[k, 1] = 0
        else:
            episode[k, 3] += 1
            episode[k, 5] += 1
            if s > peaks[k, 0] and not suppressed[i]:
                peaks[k, 0] = s
                peaks[k, 1] = p
            if s < leave or suppressed[i]:
                episode[k, 2] += 1
            else:
                episode[k, 2] = 0
            if episode[k, 2] >= cool_down:
                event[i] = ENDED
            elif episode[k, 3] >= adopt_after:
                event[i] = ADOPTED
            elif (
                peaks[k, 0] > peaks[k, 3] * RAISED
                or peaks[k, 1] <= notable < peaks[k, 4]
                or episode[k, 5] >= update_every
            ):
                event[i] = CONTINUES
                episode[k, 5] = 0
                peaks[k, 3] = peaks[k, 0]
                peaks[k, 4] = peaks[k, 1]
            if event[i] != NOTHING:
                episode[k, 4] += 1
        inside[i] = episode[k, 0] == 1
        if event[i] != NOTHING:
            opened_ms[i] = times[k, 0]
            began_ms[i] = times[k, 1]
            sequence[i] = episode[k, 4]
            n_windows[i] = episode[k, 3]
            peak[i] = peaks[k, 0]
            peak_p[i] = peaks[k, 1]
        if event[i] >= ENDED:
            episode[k, 0] = 0
            episode[k, 1] = 0

        # The tail: the epoch takes the score censored inside an episode, the shadow as it is.
        count[k] += 1
        taken = s
        if inside[i]:
            taken = min(s, entry)
            for which in range(0, 3, 2):
                x = taken if which == 0 else s
                kept = counts[k, 3 + which]
                counts[k, which] += 1
                if kept < TOP:
                    tops[k, which, kept] = x
                    counts[k, 3 + which] = kept + 1
                else:
                    low = 0
                    for q in range(1, TOP):
                        if tops[k, which, q] < tops[k, which, low]:
                            low = q
                    tops[k, which, low] = max(tops[k, which, low], x)
            # Only the branch below keeps the least score current; one too low is merely slower.
            peaks[k, 2] = -3e38
        else:
            kept = counts[k, 3]
            counts[k, 0] += 1
            if kept < TOP:
                tops[k, 0, kept] = taken
                counts[k, 3] = kept + 1
                peaks[k, 2] = taken if kept == 0 else min(peaks[k, 2], taken)
            elif taken > peaks[k, 2]:
                low = 0
                for q in range(1, TOP):
                    if tops[k, 0, q] < tops[k, 0, low]:
                        low = q
                tops[k, 0, low] = taken
                least = taken
                for q in range(TOP):
                    least = min(least, tops[k, 0, q])
                peaks[k, 2] = least

        adopted = event[i] == ADOPTED
        if adopted:  # the lasting level is the new normal: the shadow becomes the history
            for q in range(counts[k, 5]):
                tops[k, 1, q] = tops[k, 2, q]
            counts[k, 1] = counts[k, 2]
            counts[k, 4] = counts[k, 5]
            counts[k, 0] = 0
            counts[k, 3] = 0
        elif counts[k, 0] >= epoch:
            for q in range(counts[k, 3]):
                tops[k, 1, q] = tops[k, 0, q]
            counts[k, 1] = counts[k, 0]
            counts[k, 4] = counts[k, 3]
            counts[k, 0] = 0
            counts[k, 3] = 0

        # Refits at fixed counts of the key's own windows, each key in its own turn; not inside an
        # episode, where each would censor at the level the one before had raised.
        due = (count[k] + counts[k, 6]) % REFIT_EVERY == 0 or count[k] == 32 or count[k] == 64
        if (due and not inside[i]) or adopted:
            n = 0
            for which in range(2):
                for q in range(counts[k, 3 + which]):
                    merged[n] = tops[k, which, q]
                    n += 1
            keep = min(n, TOP)
            # The largest TOP of both epochs, by selection: n is at most 64.
            for a in range(keep):
                best = a
                for b in range(a + 1, n):
                    if merged[b] > merged[best]:
                        best = b
                merged[a], merged[best] = merged[best], merged[a]
            fit_tail(
                merged[:keep], float(counts[k, 0] + counts[k, 1]), floors[0], floors[1], tail[k]
            )
            levels[k, 0] = level_at(
                probabilities[0], tail[k, 0], tail[k, 1], tail[k, 2], tail[k, 3]
            )
            levels[k, 1] = level_at(
                probabilities[1], tail[k, 0], tail[k, 1], tail[k, 2], tail[k, 3]
            )
