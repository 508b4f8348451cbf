"""Links from templates, with what an alert is about filled in: dashboard, logs, runbook.

Templates are settings, written by whoever runs the pipeline. What is filled in came from producers,
so it is encoded for a URL, bounded, and never becomes part of the host.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Final
from urllib.parse import quote

from streamad.errors import nearest

MAX_LINKS: Final = 16
MAX_TEMPLATE_CHARS: Final = 2_000
MAX_VALUE_CHARS: Final = 512
MAX_LINK_CHARS: Final = 4_000
OWN: Final = ("key", "group", "pipeline", "from_ms", "to_ms", "from_iso", "to_iso")
"""What every alert has, beside the fields of its key and its tags."""
LEAST_MARGIN_MS: Final = 300_000
"""At least so much time before an event is shown with it."""

_TOKEN = re.compile(r"\{\{|\}\}|\{([^{}]*)\}|[{}]")
_BEGIN = re.compile(r"^https?://[^/?#{}\s]+([/?#]|$)")
_PLAIN = "!#$%&'()*+,/:;=?@[]~"
"""Characters of a template that stay as they are; what no URL may hold is encoded."""


def names_in(template: str) -> list[str]:
    """Return the names between braces; ``{{`` and ``}}`` stand for braces themselves.

    Raises ValueError where a brace has no partner, or nothing between.

    Examples
    --------
    >>> names_in("https://logs.example.org/?q={{host=%22{host}%22}}&from={from_ms}")
    ['host', 'from_ms']
    """
    found = []
    for match in _TOKEN.finditer(template):
        if match[0] in ("{", "}"):
            msg = (
                f"expected a name in braces such as {{key}}, got a lone {match[0]!r}; a brace of "
                "the link itself is written twice"
            )
            raise ValueError(msg)
        if match[1] is not None:
            if not match[1].strip():
                msg = "expected a name in braces such as {key}, got {}"
                raise ValueError(msg)
            found.append(match[1].strip())
    return found


def check_template(template: str) -> str:
    """Return a template that is one; raises ValueError with what is wrong.

    It begins with a scheme and a host that hold no placeholder: a key must not choose where a link
    leads.
    """
    if len(template) > MAX_TEMPLATE_CHARS:
        msg = f"expected a link of at most {MAX_TEMPLATE_CHARS:,} characters, got {len(template):,}"
        raise ValueError(msg)
    if not re.match(r"^https?://", template):
        msg = f"expected a link that begins with https:// or http://, got {template!r:.80}"
        raise ValueError(msg)
    if "@" in re.split(r"[/?#]", template.split("://", 1)[1], maxsplit=1)[0]:
        msg = "a link must not hold a user name or password; take it out"
        raise ValueError(msg)
    if not _BEGIN.match(template):
        msg = f"expected a host without placeholders after ://, got {template!r:.80}"
        raise ValueError(msg)
    names_in(template)
    return template


def check_templates(templates: Mapping[str, str]) -> None:
    """Raise ValueError where there are too many templates, or one is wrong."""
    if len(templates) > MAX_LINKS:
        msg = f"expected at most {MAX_LINKS} links, got {len(templates)}"
        raise ValueError(msg)
    for name, template in templates.items():
        try:
            check_template(template)
        except ValueError as error:
            msg = f"{name}: {error}"
            raise ValueError(msg) from None


def check_names(templates: Mapping[str, str], fields: Iterable[str]) -> None:
    """Raise ValueError where a template names what alerts do not have.

    fields : of the key, and tags
    """
    known = dict.fromkeys((*fields, *OWN))
    for link, template in templates.items():
        for name in names_in(template):
            if name not in known:
                near = nearest(name, list(known))
                hint = f"did you mean {{{near}}}?" if near else f"known here: {', '.join(known)}"
                msg = f"alerts.links.{link}: unknown placeholder {{{name}}}; {hint}"
                raise ValueError(msg)


def span_of(*, began_ms: int, until_ms: int, window_start_ms: int, window_end_ms: int) -> tuple[
    int, int
]:  # fmt: skip
    """Return the time that a link shows of an event: all of it, and a window's length before."""
    margin = max(window_end_ms - window_start_ms, LEAST_MARGIN_MS)
    return max(began_ms - margin, 0), max(until_ms, window_end_ms)


def fill(
    templates: Mapping[str, str],
    *,
    entity: Mapping[str, str],
    key: str,
    group: str,
    pipeline: str,
    span_ms: tuple[int, int],
) -> dict[str, str]:
    """Return the links of an alert; one that names what the alert lacks is left out.

    A field of the key or a tag comes before what every alert has (`OWN`).

    Examples
    --------
    >>> fill({"logs": "https://logs.example.org/{host}?from={from_iso}"}, entity={"host": "a/b"},
    ...      key="a/b", group="web", pipeline="hosts", span_ms=(0, 60_000))
    {'logs': 'https://logs.example.org/a%2Fb?from=1970-01-01T00%3A00%3A00Z'}
    """
    begin, end = span_ms
    values = {
        "key": key, "group": group, "pipeline": pipeline, "from_ms": str(begin),
        "to_ms": str(end), "from_iso": _iso(begin), "to_iso": _iso(end), **entity,
    }  # fmt: skip
    made = {name: _filled(template, values) for name, template in templates.items()}
    return {name: link for name, link in made.items() if link is not None}


def _filled(template: str, values: Mapping[str, str]) -> str | None:
    parts, at = [], 0
    for match in _TOKEN.finditer(template):
        parts.append(quote(template[at : match.start()], safe=_PLAIN))
        at = match.end()
        if match[1] is None:
            parts.append("%7B" if match[0][0] == "{" else "%7D")
            continue
        value = values.get(match[1].strip())
        # A value of dots alone would lead out of its folder; one that was cut, to something else.
        if not value or len(value) > MAX_VALUE_CHARS or not value.strip("."):
            return None
        parts.append(quote(value.encode("utf-8", "replace"), safe=""))
    link = "".join((*parts, quote(template[at:], safe=_PLAIN)))
    return link if len(link) <= MAX_LINK_CHARS else None


def _iso(time_ms: int) -> str:
    moment = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(milliseconds=max(time_ms, 0))
    return f"{moment:%Y-%m-%dT%H:%M:%S}Z"
