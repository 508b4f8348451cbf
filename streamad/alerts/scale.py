"""Severity in a word: by the default steps, or by what people called the alerts they answered to.

A scale is a rising curve from evidence, in decades, to the rank of a word (isotonic regression,
Barlow et al. 1972), fitted by `streamad.evaluation.severities` and kept as JSON. It is of evidence
and not of severity, because the boundary under severity moves with the budget: what was 2.0 in a
calm week is 1.2 in another. Severity itself stays as it is: 1.0 is what the budget affords.
"""

from __future__ import annotations

import json
import math
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Final

from streamad.errors import ConfigError

WORDS: Final = ("info", "warning", "error", "critical")
"""From least to most severe; the rank of a word is its place."""
VERSION: Final = 1
MAX_KNOTS: Final = 1_000


def rank_of(word: str) -> int:
    """Return the rank of a word; raises ConfigError for another.

    >>> rank_of("error")
    2
    """
    try:
        return WORDS.index(word)
    except ValueError:
        msg = f"a severity is {word!r:.40}; it must be one of {', '.join(WORDS)}"
        raise ConfigError(msg) from None


@dataclass(frozen=True, slots=True, kw_only=True)
class Scale:
    """What people call an incident of some evidence.

    decades, rank : knots of the curve, both ascending; linear between them, level beyond them
    answers : how many answers it was fitted to
    """

    decades: tuple[float, ...]
    rank: tuple[float, ...]
    answers: int

    def word(self, decades: float) -> str:
        """Return what an incident is called by its evidence; ``info`` where that is not known."""
        return WORDS[math.floor(self.rank_at(decades) + 0.5)] if decades >= 0 else WORDS[0]

    def rank_at(self, decades: float) -> float:
        """Return the curve at an evidence, 0 .. 3."""
        at = bisect_right(self.decades, decades)
        if at == 0:
            return self.rank[0]
        if at == len(self.decades):
            return self.rank[-1]
        left, right = self.decades[at - 1], self.decades[at]
        share = (decades - left) / (right - left)
        return self.rank[at - 1] + share * (self.rank[at] - self.rank[at - 1])

    def steps(self) -> dict[str, float]:
        """Return from which evidence on each word holds, without those that never do."""
        found: dict[str, float] = {}
        for rank, word in enumerate(WORDS):
            wanted = rank - 0.5
            if self.rank[0] >= wanted:
                found[word] = 0.0
                continue
            for at in range(1, len(self.rank)):
                low, high = self.rank[at - 1], self.rank[at]
                if low < wanted <= high:
                    left, right = self.decades[at - 1], self.decades[at]
                    found[word] = left + (right - left) * (wanted - low) / (high - low)
                    break
        return found

    def dumps(self) -> str:
        """Return it as the text of its file."""
        made = {
            "version": VERSION,
            "answers": self.answers,
            "decades": list(self.decades),
            "rank": list(self.rank),
            "words": list(WORDS),
        }
        return json.dumps(made, indent=1) + "\n"

    @classmethod
    def loads(cls, text: str, *, name: str) -> Scale:
        """Read the text of a file; raises ConfigError, with what was expected.

        name : of the file, for errors
        """
        try:
            given = json.loads(text)
        except (ValueError, RecursionError) as error:
            msg = f"{name}: not JSON: {error}"
            raise ConfigError(msg) from None
        if not isinstance(given, Mapping) or given.get("version") != VERSION:
            msg = f"{name}: expected a file of 'streamad alerts severities', version {VERSION}"
            raise ConfigError(msg)
        decades, rank = _curve(given, "decades", name), _curve(given, "rank", name)
        steady = all(a < b for a, b in pairwise(decades))
        rising = all(a <= b for a, b in pairwise(rank))
        if len(decades) != len(rank) or not steady or not rising:
            msg = (
                f"{name}: expected 'decades' and 'rank' of equal length, both ascending, got "
                f"{len(decades)} and {len(rank)}; write the file again"
            )
            raise ConfigError(msg)
        if not 0 <= rank[0] <= rank[-1] <= len(WORDS) - 1:
            msg = f"{name}: ranks lie within 0 .. {len(WORDS) - 1}, got {rank[0]} .. {rank[-1]}"
            raise ConfigError(msg)
        answers = given.get("answers")
        return cls(decades=decades, rank=rank, answers=answers if isinstance(answers, int) else 0)


def _curve(given: Mapping[str, Any], field: str, name: str) -> tuple[float, ...]:
    values = given.get(field)
    if not isinstance(values, Sequence) or isinstance(values, str) or not values:
        msg = f"{name}: {field} is {values!r:.40}; expected a list of numbers"
        raise ConfigError(msg)
    if len(values) > MAX_KNOTS:
        msg = f"{name}: {field} has {len(values)} values; at most {MAX_KNOTS} are read"
        raise ConfigError(msg)
    if not all(type(v) in (int, float) and math.isfinite(v) for v in values):
        msg = f"{name}: {field} holds something else than finite numbers"
        raise ConfigError(msg)
    return tuple(map(float, values))
