"""The compiled passes behind `streamad.scoring.sudden` and `streamad.scoring.evidence`."""

import numpy as np

from streamad.compiled import compiled


# One sample after the other: what a window yields must not depend on its neighbours, to the bit.
@compiled
def find_breaks(values, tails, most_before, limit, found):
    n, size, v = values.shape
    for i in range(n):
        told = False
        for j in range(v):
            for tail in tails:
                before = min(most_before, size - tail)
                if told or before < 2 * tail:
                    told = told or tail == tails[0]
                    continue
                start = size - tail - before
                middle, mean = (before - 1) / 2.0, 0.0
                for a in range(before):
                    mean += values[i, start + a, j]
                mean /= before
                slope, spread = 0.0, 0.0
                for a in range(before):
                    slope += (a - middle) * (values[i, start + a, j] - mean)
                    spread += (a - middle) ** 2
                slope /= spread
                rest = 0.0
                for a in range(before):
                    rest += (values[i, start + a, j] - mean - slope * (a - middle)) ** 2
                bound = limit * limit * rest / (before - 2)
                newest = 0.0
                for a in range(tail):
                    x = values[i, size - tail + a, j]
                    newest += x
                    ahead = before + a - middle
                    off = x - mean - slope * ahead
                    # Not at most: what is no number is no line either.
                    single = not off * off <= bound * (1.0 + 1.0 / before + ahead * ahead / spread)
                    told = told or (single and tail == tails[0])
                ahead = before + (tail - 1) / 2.0 - middle
                off = newest / tail - mean - slope * ahead
                share = 1.0 / tail + 1.0 / before + ahead * ahead / spread
                told = told or not off * off <= bound * share
        found[i] = told


@compiled
def sum_evidence(codes, score, end_ms, settings, total, total_ms, out):
    half_life, ordinary, most = settings
    for i in range(len(codes)):
        k = codes[i]
        if not np.isfinite(score[i]):
            out[i] = np.float32(np.nan)
            continue
        gap = max(end_ms[i] - total_ms[k], 0)
        # Not a power of two: how those are rounded differs between processors, and this is state.
        kept = total[k] / (1.0 + gap / half_life)
        total[k] = min(max(kept + score[i] - ordinary, 0.0), most)
        total_ms[k] = max(end_ms[i], total_ms[k])
        out[i] = np.float32(total[k])
