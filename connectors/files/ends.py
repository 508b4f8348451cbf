"""Which columns of a table hold the two ends of an edge, by the names that tools give them.

Netflow exporters, nfdump, Argus, Zeek, ECS, Istio, Tempo, Jaeger and plain CSV name the ends as
pairs that differ in one word: ``src_ip`` and ``dst_ip``, ``id.orig_h`` and ``id.resp_h``,
``IPV4_SRC_ADDR`` and ``IPV4_DST_ADDR``, ``caller`` and ``callee``.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

PAIRS: Sequence[tuple[str, str]] = (
    ("source", "target"), ("source", "destination"), ("src", "dst"), ("src", "dest"),
    ("from", "to"), ("caller", "callee"), ("client", "server"), ("orig", "resp"),
    ("parent", "child"), ("local", "remote"), ("s", "d"),
)  # fmt: skip
"""Words for where an edge starts and where it leads."""

ALONE = frozenset({"local", "orig", "s"})
"""Words that are too common to name an end without one of `NAMING` beside them."""

NAMING: Sequence[str] = (
    "", "ip", "ipv4", "ipv6", "addr", "address", "a", "host", "hostname", "h", "name", "node",
    "workload", "service", "app", "id", "computer", "device", "user", "account", "domain", "mac",
)  # fmt: skip
"""What else a name of an end may say, the likeliest first; a port or a count names no node."""

KINDS = ("type", "kind")
"""What the name of an end's type says."""

_WORD = re.compile(r"[A-Z]+(?![a-z])[0-9]*|[A-Z]?[a-z]+[0-9]*|[0-9]+")


def ends_of(columns: Sequence[str]) -> tuple[str, str] | None:
    """Return the columns of the source and the target of an edge, None where no pair is found.

    Examples
    --------
    >>> ends_of(["ts", "srcPort", "srcIp", "dstPort", "dstIp"])
    ('srcIp', 'dstIp')
    >>> ends_of(["ts", "id.orig_h", "id.orig_p", "id.resp_h"]), ends_of(["ts", "source", "value"])
    (('id.orig_h', 'id.resp_h'), None)
    """
    found = sorted(
        (NAMING.index(rest[0]), len(rest), place, source, target)
        for place, (source, target, rest) in enumerate(_paired(columns))
        if all(word in NAMING for word in rest)
    )
    return found[0][3:] if found else None


def kinds_of(columns: Sequence[str]) -> tuple[str, str] | None:
    """Return the columns of the types of the two ends, None where no pair is found.

    Examples
    --------
    >>> kinds_of(["src", "dst", "src_type", "dst_type"])
    ('src_type', 'dst_type')
    """
    return next((pair[:2] for pair in _paired(columns) if pair[2][0] in KINDS), None)


def _paired(columns: Sequence[str]) -> Iterator[tuple[str, str, tuple[str, ...]]]:
    """Yield pairs of columns whose names differ in the words for the two ends, and the rest."""
    words = {name: _words(name) for name in columns}
    places = {words[name]: name for name in reversed(columns)}
    for start, end in PAIRS:
        for name in columns:
            for at, word in enumerate(words[name]):
                rest = _rest(words[name], at, word, start)
                if rest is None:
                    continue
                # `srcaddr` is one word; its partner ends with the same letters.
                partner = (*words[name][:at], end + word[len(start) :], *words[name][at + 1 :])
                other = places.get(partner)
                if other is not None and other != name:
                    yield name, other, rest


def _rest(words: tuple[str, ...], at: int, word: str, start: str) -> tuple[str, ...] | None:
    """Return what a name says beside the word of its end, None where it is none."""
    glued = word[len(start) :] if word.startswith(start) else None
    if glued is None or (glued and glued not in (*NAMING, *KINDS)):
        return None
    kept = [*words[:at], *([glued] if glued else []), *words[at + 1 :]]
    # What stands before an end in a path (`id.orig_h`, `flow.src`) is no part of its name.
    if len(kept) > 1 and at and kept[0] not in (*NAMING, *KINDS):
        kept = kept[1:]
    if not kept and start in ALONE:
        return None
    return tuple(kept) or ("",)


def _words(name: str) -> tuple[str, ...]:
    return tuple(word.lower() for word in _WORD.findall(name))
