r"""Names of series made of several fields: joined with ``/``, and taken apart again.

A slash inside a field is written ``\/``, so that ``shop/eu`` and ``cart`` name another series than
``shop`` and ``eu/cart``.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

SEPARATOR = "/"
_TOKEN = re.compile(r"\\(.)|/|[^\\/]+", re.DOTALL)


def join_key(parts: Iterable[str]) -> str:
    r"""Return the key that several fields make.

    Examples
    --------
    >>> print(join_key(["payments/checkout", "latency"]))
    payments\/checkout/latency
    """
    return SEPARATOR.join(
        part.replace("\\", "\\\\").replace(SEPARATOR, "\\/")
        if "\\" in part or SEPARATOR in part
        else part
        for part in parts
    )


def split_key(key: str, number: int) -> list[str] | None:
    r"""Return the ``number`` fields that a key was made of, None where it was made otherwise.

    Examples
    --------
    >>> split_key(r"payments\/checkout/latency", 2)
    ['payments/checkout', 'latency']
    >>> split_key("a/b/c", 2)
    """
    if number == 1:
        return [key]
    parts = [""]
    for token in _TOKEN.finditer(key):
        if token[0] == SEPARATOR:
            parts.append("")
        else:
            parts[-1] += token[1] or token[0]
    return parts if len(parts) == number else None
