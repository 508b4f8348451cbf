"""Severities in words, as receivers of pages and silences name them."""

from __future__ import annotations

from typing import Final

LEVELS: Final = ((3.0, "critical"), (2.0, "error"), (1.0, "warning"))
"""The least severity of each word; anything below is ``info``."""


def level_of(severity: float) -> str:
    """Return a severity in a word.

    Examples
    --------
    >>> level_of(3.2), level_of(1.0), level_of(float("nan"))
    ('critical', 'warning', 'info')
    """
    return next((word for least, word in LEVELS if severity >= least), "info")
