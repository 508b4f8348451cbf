"""Does severity order what happened as people do? Harrell's concordance index.

The share of pairs of different severity that a score orders alike, ties counted half (Harrell et
al., JAMA 247, 1982; used for levels of anomaly by Cao et al., arXiv 2411.14515). .5 is chance, 1.0
the order itself; with two levels it is the AUROC.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike
from scipy.stats import rankdata


def concordance(score: ArrayLike, level: ArrayLike) -> float:
    """Return the C-index of scores against levels; NaN where no two levels differ.

    score : ``(n,)`` finite numbers; level : ``(n,)`` whole numbers, few different ones. Each pair
    of levels takes one sort: O(levels^2 n log n).

    Examples
    --------
    >>> concordance([1.0, 2.0, 3.0], [0, 1, 2]), concordance([1.0, 1.0], [0, 1])
    (1.0, 0.5)
    """
    given, of = np.asarray(score, np.float64), np.asarray(level)
    if given.shape != of.shape or given.ndim != 1:
        msg = f"expected scores and levels of one length, got {given.shape} and {of.shape}"
        raise ValueError(msg)
    parts = [given[of == one] for one in np.unique(of)]
    right = total = 0.0
    for at, low in enumerate(parts):
        for high in parts[at + 1 :]:
            # Mann & Whitney: the ranks of the higher level, less those it has among itself.
            ranks = rankdata(np.r_[low, high])[len(low) :]
            right += float(ranks.sum()) - len(high) * (len(high) + 1) / 2
            total += len(low) * len(high)
    return right / total if total else float("nan")
