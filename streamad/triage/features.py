"""An alert as numbers: what kind of trouble it is, not how it is scored or which host has it.

`N_FEATURES` columns, bounded, never NaN, the same in every process. Numbers first (`NUMBERS`); then
blocks of names, each a weighted sum of fixed random directions: a name is hashed to ``DIRECTIONS``
signs, so that two names are nearly at right angles and nothing has to be learned or kept. Digits in
names do not count: ``disk0`` and ``disk1`` are one name.

Of hosts and services nothing is kept: the next disk that fills will be another one.
"""

from __future__ import annotations

import hashlib
import math
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

import numpy as np
from numpy.typing import NDArray

from streamad.records import Alert, Part

VERSION: Final = 1
"""Raised with every change of what a column means: vectors of another version are of no use."""

DIRECTIONS: Final = 16
MAX_TOKENS: Final = 64
"""Names of a block that count: those with the largest weights."""
MAX_TOKEN_CHARS: Final = 128
GAP_MS: Final = 300_000
"""Alerts of a group that began no longer ago than this count as its breadth."""
MAX_BREADTH: Final = 256
DAY_MS: Final = 86_400_000
WEEK_MS: Final = 7 * DAY_MS
MONDAY_MS: Final = 4 * DAY_MS
"""The first Monday of Unix time: 1970-01-05."""
MAX_DECADES: Final = 300.0
MAX_RATIO: Final = 6.92
"""The log of the largest ratio: one side is 0."""
MAX_SPAN_S: Final = 10 * 366 * 86_400.0


@dataclass(frozen=True, slots=True)
class Number:
    """A column of numbers: the least spread it is scaled by, and its weight."""

    name: str
    least: float
    weight: float = 1.0


NUMBERS: Final = (
    Number("direction", 0.5),
    Number("ratio", 0.5),
    Number("concentration", 0.25, 0.5),
    Number("parts", 0.5, 0.5),
    Number("texts", 0.25),
    Number("strength", 0.5, 0.5),
    Number("breadth", 0.5),
    Number("day_sin", 0.5, 0.7),
    Number("day_cos", 0.5, 0.7),
    Number("week_sin", 0.7, 0.5),
    Number("week_cos", 0.7, 0.5),
    Number("duration", 0.7),
)
"""direction: share-weighted sign of observed - expected; ratio: share-weighted log of observed to
expected; concentration: largest share; parts: log1p of their number; texts: share of parts that are
no number; strength: log1p of decades; breadth: log1p of alerts of the group at the time; day, week:
the hour as an angle; duration: log1p of seconds."""
BLOCKS: Final = {"kind": 3.0, "detector": 1.5, "names": 3.0, "entity": 1.0, "words": 2.0}
"""Blocks of names with their weights; two alerts with nothing in common there are sqrt(2) times
that far apart."""

N_NUMBERS: Final = len(NUMBERS)
N_FEATURES: Final = N_NUMBERS + DIRECTIONS * len(BLOCKS)
LATE: Final = ("duration",)
"""Columns that are not known while an alert opens."""
LOOKS_LIKE: Final = "; looks like "
"""Begins what a recogniser adds to the line of an alert."""
CLIP: Final = 4.0
"""Scaled numbers are held within so many spreads."""

_WORD = re.compile(r"[a-z][a-z_]{2,}")
_DIGITS = re.compile(r"\d+")
_TEMPLATE_WORDS: Final = """
about above across after alert alerts all and are back been below between closed data detector
end ended event expected failing failed finding for from had has have known last more new
normal not now once over parts past peak resumed samples scoring seen sent series severity
share since still than that the then times until usually utc value was were windows with
without min sec hours hour days day for jan feb mar apr may jun jul aug sep oct nov dec
january february march april june july august september october november december
"""
"""Words that the lines of all alerts are made of: how far its life has come must not show."""
_TEMPLATE: Final = frozenset(_TEMPLATE_WORDS.split())

Vector = NDArray[np.float64]


def vector_of(alert: Alert, *, breadth: int = 1) -> Vector:
    """Return the raw columns of an alert ``(N_FEATURES,)``; see `NUMBERS` and `BLOCKS`.

    breadth : alerts of its group that began at most `GAP_MS` before it, itself included
    """
    out = np.zeros(N_FEATURES)
    out[:N_NUMBERS] = _numbers(alert, breadth)
    blocks = _tokens(alert)
    for number, (name, weight) in enumerate(BLOCKS.items()):
        start = N_NUMBERS + number * DIRECTIONS
        out[start : start + DIRECTIONS] = weight * _sketch(blocks[name])
    return out


def vectors_of(alerts: Sequence[Alert], breadths: Sequence[int]) -> Vector:
    """Return the raw columns of alerts ``(n, N_FEATURES)``."""
    rows = [vector_of(one, breadth=n) for one, n in zip(alerts, breadths, strict=True)]
    return np.stack(rows) if rows else np.empty((0, N_FEATURES))


def breadths_of(alerts: Sequence[Alert]) -> list[int]:
    """Return how many alerts of the same tenant and group began at most `GAP_MS` before each."""
    groups: dict[tuple[str, str], list[int]] = {}
    for at, one in enumerate(alerts):
        groups.setdefault((one.tenant, one.group), []).append(at)
    out = [1] * len(alerts)
    for members in groups.values():
        began = np.array([alerts[at].began_ms for at in members], np.int64)
        ordered = np.sort(began)
        n = np.searchsorted(ordered, began, "right") - np.searchsorted(ordered, began - GAP_MS)
        for at, count in zip(members, n.tolist(), strict=True):
            out[at] = max(1, min(count, MAX_BREADTH))
    return out


# ---------------------------------------------------------------------- columns of numbers


def _numbers(alert: Alert, breadth: int) -> list[float]:
    shares = _shares(alert)
    signs, ratios, texts = 0.0, 0.0, 0.0
    for name, share in shares.items():
        observed, expected = alert.observed.get(name), alert.expected.get(name)
        texts += share * isinstance(observed, str)
        if _is_number(observed) and _is_number(expected):
            signs += share * float(np.sign(observed - expected))  # type: ignore[operator]
            ratios += share * _log_ratio(float(observed), float(expected))  # type: ignore[arg-type]
    decades = -math.log10(min(max(_finite(alert.threshold_p), 1e-300), 1.0))
    decades *= max(_finite(alert.peak_severity), 0.0)
    # Of the series alone: how widespread it is and how long it lasts have numbers of their own.
    decades = _finite(alert.evidence.get("rarity", decades))
    day = 2 * math.pi * (alert.began_ms % DAY_MS) / DAY_MS
    week = 2 * math.pi * ((alert.began_ms - MONDAY_MS) % WEEK_MS) / WEEK_MS
    lasted_s = min(max(alert.until_ms - alert.began_ms, 0) / 1_000, MAX_SPAN_S)
    return [
        signs,
        ratios,
        max(shares.values(), default=0.0),
        math.log1p(min(len(shares), 1_000)),
        texts,
        math.log1p(min(decades, MAX_DECADES)),
        math.log1p(min(max(breadth, 1), MAX_BREADTH)),
        math.sin(day),
        math.cos(day),
        math.sin(week),
        math.cos(week),
        math.log1p(lasted_s),
    ]


def _shares(alert: Alert) -> dict[str, float]:
    """Return the parts of the explanation with shares that sum to 1; equal ones where unknown."""
    shares = {name: max(_finite(share), 0.0) for name, share in alert.explanation.items()}
    shares = {name: min(share, 1e6) for name, share in shares.items() if share > 1e-9}
    if not shares:
        shares = dict.fromkeys(alert.observed, 1.0)
    largest = sorted(shares, key=lambda name: (-shares[name], name))[:MAX_TOKENS]
    total = sum(shares[name] for name in largest)
    return {name: shares[name] / total for name in largest}


def _log_ratio(observed: float, expected: float) -> float:
    """Return the log of the ratio of sizes; a thousandth of their sum keeps it finite.

    >>> round(_log_ratio(200.0, 100.0), 2), round(_log_ratio(5.0, 0.0), 2), _log_ratio(0.0, 0.0)
    (0.69, 6.91, 0.0)
    """
    largest = max(abs(observed), abs(expected))
    if largest == 0.0:
        return 0.0
    one, other = abs(observed) / largest, abs(expected) / largest
    ground = 1e-3 * (one + other)
    return math.log((one + ground) / (other + ground))


def _is_number(part: Part | None) -> bool:
    return isinstance(part, int | float) and not isinstance(part, bool) and math.isfinite(part)


def _finite(value: float) -> float:
    return value if math.isfinite(value) else 0.0


# ---------------------------------------------------------------------- blocks of names


def _tokens(alert: Alert) -> dict[str, dict[str, float]]:
    """Return the names of each block with their weights."""
    names: dict[str, float] = {}
    for name, share in _shares(alert).items():
        token = f"part {_plain(name)}"
        names[token] = names.get(token, 0.0) + share
    # The last part of a key names what was measured; the others name who has it.
    *who, what = alert.entity or {"": ""}
    if who:
        names[f"of {_plain(what)}={_plain(alert.entity[what])}"] = 1.0
    words = Counter(_words(alert))
    return {
        "kind": {alert.kind: 1.0},
        "detector": {alert.detector: 1.0},
        "names": names,
        "entity": {_plain(name): 1.0 for name in alert.entity},
        "words": {word: math.sqrt(n) for word, n in words.items()},
    }


def _words(alert: Alert) -> list[str]:
    """Return the words of its line that give a reason: no names of series, values or times."""
    own = {word for text in (alert.key, alert.group, *alert.entity.values(), *alert.observed)
           for word in _WORD.findall(text.lower())}  # fmt: skip
    own |= {alert.detector, *_WORD.findall(alert.detector)}
    # What an alert was recognised as is no evidence of what it is.
    text = alert.summary[:2_000].partition(LOOKS_LIKE)[0].lower().replace(alert.key.lower(), " ")
    return [word for word in _WORD.findall(text) if word not in _TEMPLATE and word not in own]


def _plain(text: str) -> str:
    return _DIGITS.sub("#", text.lower())[:MAX_TOKEN_CHARS]


def _sketch(tokens: Mapping[str, float]) -> Vector:
    """Return the weighted sum of the directions of names, of length 1 at most."""
    largest = sorted(tokens, key=lambda name: (-tokens[name], name))[:MAX_TOKENS]
    if not largest:
        return np.zeros(DIRECTIONS)
    weights = np.array([tokens[name] for name in largest])
    # By the length that orthogonal directions would give: a long list is no longer than one name.
    made = weights @ np.stack([direction_of(name) for name in largest]) / np.linalg.norm(weights)
    return np.asarray(made / max(1.0, float(np.linalg.norm(made))), np.float64)


@lru_cache(maxsize=8_192)
def direction_of(name: str) -> Vector:
    """Return the direction of a name: `DIRECTIONS` signs of a hash, of length 1."""
    digest = hashlib.blake2b(name.encode("utf-8", "replace"), digest_size=DIRECTIONS // 8).digest()
    signs = np.unpackbits(np.frombuffer(digest, np.uint8)).astype(np.float64) * 2 - 1
    made: Vector = signs / math.sqrt(DIRECTIONS)
    made.flags.writeable = False
    return made


# ---------------------------------------------------------------------- scaling


@dataclass(frozen=True, slots=True, kw_only=True)
class Scaling:
    """How columns of numbers are made comparable: center and spread ``(N_NUMBERS,)``."""

    center: Vector
    spread: Vector

    @classmethod
    def of(cls, rows: Vector) -> Scaling:
        """Measure medians and median deviations of raw rows ``(n, N_FEATURES)``."""
        least = np.array([one.least for one in NUMBERS])
        if not len(rows):
            return cls(center=np.zeros(N_NUMBERS), spread=least)
        numbers = rows[:, :N_NUMBERS]
        center = np.median(numbers, axis=0)
        spread = 1.4826 * np.median(np.abs(numbers - center), axis=0)
        return cls(center=center, spread=np.maximum(spread, least))

    def apply(self, rows: Vector) -> Vector:
        """Return raw rows ``(n, N_FEATURES)`` scaled, within `CLIP` spreads."""
        out = np.array(rows, np.float64, copy=True)
        weights = np.array([one.weight for one in NUMBERS])
        numbers = (out[:, :N_NUMBERS] - self.center) / self.spread
        out[:, :N_NUMBERS] = np.clip(numbers, -CLIP, CLIP) * weights
        return out
