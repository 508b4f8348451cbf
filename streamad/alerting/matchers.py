"""Matchers as in Alertmanager: which alerts a silence is about.

``service="pay"``, ``host!=web-1``, ``host=~"web-.*"``, ``kind!~"error|flood"``: all must match. A
name is a field of the entity, or ``key``, ``group``, ``pipeline``, ``detector``, ``kind`` or
``severity`` (a word: ``warning``); what an alert does not have is the empty text. Expressions are
anchored. They are those of RE2 (by pyarrow), which takes time in proportion to the text, so
none can take long.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Final, Literal, cast

import pyarrow as pa
import pyarrow.compute as pc

from streamad.alerting.levels import level_of
from streamad.incidents import Affected
from streamad.shown import safe_text

MAX_MATCHERS: Final = 16
MAX_CHARS: Final = 512
SEVERITY: Final = "severity"
"""The one field that changes while an alert is open."""
ENTITY_PREFIX: Final = "entity_"
_NO_LABEL = re.compile(r"[^a-zA-Z0-9_]")

Sign = Literal["=", "!=", "=~", "!~"]
_SHAPE = re.compile(
    r"""\s*([A-Za-z_][\w.-]{0,127})\s*(=~|!~|!=|=)\s*(?:"((?:[^"\\]|\\.)*)"|([^"\s](?:.*\S)?)?)\s*""",
    re.DOTALL,
)
_ESCAPES = {"n": "\n", "\\": "\\", '"': '"'}


@dataclass(frozen=True, slots=True)
class Matcher:
    """One condition on a field."""

    name: str
    sign: Sign
    value: str

    def matches(self, value: str) -> bool:
        """Say whether a field with this value matches."""
        if self.sign in ("=", "!="):
            return (value == self.value) is (self.sign == "=")
        return _fits(self.value, value) is (self.sign == "=~")


def parse_matcher(text: str) -> Matcher:
    """Read a matcher; raises ValueError, with what was expected.

    Examples
    --------
    >>> parse_matcher('service=~"pay.*"')
    Matcher(name='service', sign='=~', value='pay.*')
    """
    shape = _SHAPE.fullmatch(text) if len(text) <= MAX_CHARS else None
    if shape is None:
        msg = (
            'expected a matcher such as service="pay", host!=web-1 or host=~"web-.*", of at most '
            f"{MAX_CHARS} characters, got {safe_text(text, 100)!r}"
        )
        raise ValueError(msg)
    name, sign, quoted, bare = shape.groups()
    value = bare or "" if quoted is None else re.sub(r"\\(.)", _unescaped, quoted, flags=re.DOTALL)
    matcher = Matcher(name, cast("Sign", sign), value)
    if sign in ("=~", "!~"):
        try:
            # Alone first: what closes our group and opens another is no expression by itself.
            _holds(value, "")
            matcher.matches("")
        except pa.ArrowInvalid as error:
            why = str(error).strip().splitlines()[-1]
            msg = (
                f"{safe_text(text, 100)!r} holds no regular expression of RE2 "
                f"({safe_text(why, 200)}); look-around and back-references are not known"
            )
            raise ValueError(msg) from error
    return matcher


@lru_cache(maxsize=4_096)
def parse_matchers(texts: tuple[str, ...]) -> tuple[Matcher, ...]:
    """Read matchers; raises ValueError."""
    if len(texts) > MAX_MATCHERS:
        msg = f"expected at most {MAX_MATCHERS} matchers, got {len(texts)}"
        raise ValueError(msg)
    return tuple(map(parse_matcher, texts))


def fits(matchers: Sequence[Matcher], member: Affected) -> bool:
    """Say whether an alert matches all of them."""
    return all(one.matches(field_of(member, one.name)) for one in matchers)


def field_of(member: Affected, name: str) -> str:
    """Return the value of a field of an alert; empty where there is none.

    A part of the entity also goes by the name of its label in Alertmanager, ``entity_<part>``.
    """
    if name in ("key", "group", "pipeline", "detector", "kind"):
        return cast("str", getattr(member, name))
    if name == SEVERITY:
        return level_of(member.peak_severity)
    if name not in member.entity and name.startswith(ENTITY_PREFIX):
        return next((v for part, v in member.entity.items() if entity_label(part) == name), "")
    return member.entity.get(name, "")


def entity_label(part: str) -> str:
    """Return the name of the label that a part of the entity has in Alertmanager.

    Examples
    --------
    >>> entity_label("k8s.node.name")
    'entity_k8s_node_name'
    """
    return f"{ENTITY_PREFIX}{_NO_LABEL.sub('_', part)[:60]}"


@lru_cache(maxsize=65_536)
def _fits(pattern: str, value: str) -> bool:
    return _holds(f"^(?:{pattern})$", value)


def _holds(pattern: str, value: str) -> bool:
    # A half character, as JSON can have it, is no text to RE2.
    text = value.encode("utf-8", "replace").decode()
    return bool(pc.match_substring_regex(pa.array([text]), pattern)[0].as_py())


def _unescaped(match: re.Match[str]) -> str:
    return _ESCAPES.get(match[1], match[0])
