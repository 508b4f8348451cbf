"""What a number of a graph's vector means, in plain words."""

from __future__ import annotations

import math
from typing import Final

from streamad.detectors.graphs.explaining import number
from streamad.graphs.vector import SHAPE

COUNTED: Final = {
    "nodes": "{} nodes where about {} are usual",
    "edges": "{} edges where about {} are usual",
    "mean degree": "{} neighbours per node where about {} are usual",
    "largest degree": "a node with {} neighbours where about {} are usual",
    "parts": "{} separate parts where about {} are usual",
    "count": "a sum of counts of {} where about {} is usual",
}
"""Numbers that stand in the vector as ``log(1 + x)``."""


def plain(name: str, value: float) -> float:
    """Return a number of the vector in its own unit: counts stand there as logarithms.

    >>> round(plain("edges", math.log(13)), 6), plain("share of db", 0.5)
    (12.0, 0.25)
    """
    if name in COUNTED:
        return math.expm1(value)
    return value * value if name.startswith("share of ") else value


def sentence(name: str, observed: float, usual: float) -> str:
    """Return what is unusual about one number of the vector; both values in its own unit.

    Examples
    --------
    >>> sentence("edges", 12.0, 3.0)
    '12 edges where about 3 are usual'
    >>> sentence("share of db", 0.4, 0.05)
    '40 % of nodes are of type db where about 5 % are usual'
    >>> sentence("mixing of db", 0.9, 0.2)
    'nodes of type db are linked among themselves less than usual'
    """
    if name in COUNTED:
        return COUNTED[name].format(_near(observed), _near(usual))
    if name == "density":
        return f"{_percent(observed)} of possible edges where about {_percent(usual)} are usual"
    if name in SHAPE:
        return "its links form an unusual pattern"
    what, _, of = name.partition(" of ")
    whose = of if of.endswith("neighbours") else f"of {of}"
    verb = "have" if of.endswith("neighbours") else "are"
    if of not in {"unknown type", "no type"} and verb == "are":
        whose = f"of type {of}"
    if what == "share":
        there, before = _percent(observed), _percent(usual)
        return f"{there} of nodes {verb} {whose} where about {before} are usual"
    more = "less" if observed > usual else "more"
    with_them = f"with {of}" if verb == "have" else whose
    return f"nodes {with_them} are linked among themselves {more} than usual"


def _near(value: float) -> str:
    return number(round(value) if abs(value - round(value)) < 1e-6 else round(value, 3))


def _percent(value: float) -> str:
    share = 100 * value
    return f"{share:.0f} %" if share >= 1 or share == 0 else f"{share:.1g} %"
