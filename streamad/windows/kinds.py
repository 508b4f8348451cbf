"""Kinds of series: what their records declare, and which rows go with it.

Codecs of OTLP and Prometheus give each row a tag ``kind``, and so may records in JSON. A series is
judged as what its first row is; a row of another kind would mix readings with rates.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from streamad.records import SignalBatch

KINDS = ("gauge", "counter", "delta")
CODES: dict[str, int] = {kind: code for code, kind in enumerate(KINDS)}
GAUGE, COUNTER, DELTA = range(3)
UNKNOWN = -1
KIND_TAG = "kind"
KINDED = frozenset({"otlp_json", "otlp_proto", "prometheus"})
"""Formats whose rows all have a kind."""
DECLARED = frozenset({"otlp_json", "otlp_proto"})
"""Formats whose messages declare each series' kind. Elsewhere it is read off its name, and a
pipeline that sets ``series.kind`` knows better."""


def kinds_of(batch: SignalBatch) -> NDArray[np.int8] | None:
    """Return the kind of each row ``(n,)``, `UNKNOWN` where none is declared; None: of no row.

    Examples
    --------
    >>> from streamad.testing.batches import make_columns
    >>> kinds_of(make_columns(["a"], [0], [1.0])) is None
    True
    """
    tag = batch.tags.get(KIND_TAG)
    if tag is None:
        return None
    kinds = np.full(len(tag), UNKNOWN, np.int8)
    for kind, code in CODES.items():
        kinds[tag.eq(kind).fill_null(value=False).to_numpy()] = code
    return kinds
