"""What an asset weighs: how much sooner its alerts page than those of others."""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Sequence
from typing import Final, cast

from pydantic import Field

from streamad.config.section import Section
from streamad.incidents import Affected
from streamad.records import Finding

MAX_ASSETS: Final = 100
LEAST_WEIGHT, MOST_WEIGHT = 0.01, 100.0
OF_RECORD: Final = ("key", "group", "pipeline", "detector", "kind", "tenant")


class AssetConfig(Section):
    """What weighs more, or less, than the rest."""

    match: dict[str, str] = Field(min_length=1, max_length=16)
    """Entity fields, or ``key``, ``group``, ``pipeline``, ``detector``, ``kind`` and ``tenant``,
    with shell patterns; all must match: ``{service: checkout, host: "db-*"}``."""
    weight: float = Field(ge=LEAST_WEIGHT, le=MOST_WEIGHT)
    """2: an alert counts as twice as rare as it is; 0.5: half as rare."""


class Assets:
    """Weights by the first asset that matches.

    Examples
    --------
    >>> assets = Assets([AssetConfig(match={"service": "pay*"}, weight=4.0)])
    >>> assets.weight_of({"service": "payments"}), assets.weight_of({"host": "db-1"})
    (4.0, 1.0)
    """

    def __init__(self, configs: Sequence[AssetConfig]) -> None:
        # No backtracking that text from outside could draw out: a pattern of the shell has none
        # but ``*``, and Python makes those possessive.
        self._known = [
            ({n: re.compile(fnmatch.translate(p)) for n, p in one.match.items()}, one.weight)
            for one in configs
        ]

    def weight(self, of: Finding | Affected) -> float:
        """Return the weight of what a finding or an alert is about; 1.0 where nothing is said."""
        if not self._known:
            return 1.0
        own = {name: cast("str", getattr(of, name)) for name in OF_RECORD if hasattr(of, name)}
        return self.weight_of({**of.entity, **own})

    def weight_of(self, fields: dict[str, str]) -> float:
        """Return the weight by fields; what is missing is the empty text."""
        for patterns, weight in self._known:
            if all(p.match(fields.get(name, "")) for name, p in patterns.items()):
                return weight
        return 1.0
