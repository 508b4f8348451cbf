"""Pieces of the page. Whatever came from outside is escaped here, and nowhere else."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape

from streamad.shown import safe_text
from streamad.wording import clock, duration

MAX_CHARS = 400


def text(value: object, limit: int = MAX_CHARS) -> str:
    r"""Return a text for a page: one line, bounded, without what markup or a terminal would obey.

    >>> text('<b>"web"</b>\x1b[2J')
    '&lt;b&gt;&quot;web&quot;&lt;/b&gt;\\x1b[2J'
    """
    return escape(safe_text(str(value), limit))


def table(
    heads: Sequence[str], rows: Iterable[Sequence[str]], *, chosen: int | None = None,
    texts: Sequence[int] = (), kinds: Sequence[str] = (),
) -> str:  # fmt: skip
    """Return a table that scrolls by itself where it is wide; cells are markup already.

    chosen : the row that stands out; texts : columns of running text; kinds : a class per column
    """
    looks = ["text" if i in texts else (kinds[i] if i < len(kinds) else "")
             for i in range(len(heads))]  # fmt: skip
    head = "".join(_cell("th", h, look) for h, look in zip(heads, looks, strict=True))
    body = []
    for at, row in enumerate(rows):
        cells = "".join(_cell("td", cell, look) for cell, look in zip(row, looks, strict=True))
        body.append(f"<tr{_class('chosen' if at == chosen else '')}>{cells}</tr>")
    return f'<div class="wide"><table><tr>{head}</tr>{"".join(body)}</table></div>'


def _cell(tag: str, content: str, look: str) -> str:
    return f"<{tag}{_class(look)}>{content}</{tag}>"


def _class(look: str) -> str:
    return f' class="{look}"' if look else ""


def section(title: str, about: str, body: str) -> str:
    """Return a section; title and about are plain texts of ours."""
    return f'<section><h2>{escape(title)}</h2><p class="dim small">{about}</p>{body}</section>'


def link(name: str, url: str) -> str:
    """Return a link, where the address is one of the web; else the name alone."""
    if not url.startswith(("https://", "http://")):
        return text(name, 60)
    return f'<a rel="noreferrer noopener" href="{escape(url)}">{text(name, 60)}</a>'


def bar(parts: Sequence[tuple[float, str]], *, whole: float, mark: float | None = None) -> str:
    """Return a bar of parts one after another; mark : a line at this value.

    parts : values, each with the name of its colour
    """
    at, made = 0.0, []
    for value, colour in parts:
        wide = 100 * min(max(value / whole, 0.0), 1.0 - at / 100) if whole else 0.0
        made.append(f'<rect class="f-{colour}" x="{at:.2f}" y="3" width="{wide:.2f}" height="10"/>')
        at += wide
    if mark is not None and whole:
        x = min(100 * mark / whole, 99.2)
        made.append(f'<rect class="f-mark" x="{x:.2f}" y="0" width=".8" height="16"/>')
    return f'<svg viewBox="0 0 100 16" preserveAspectRatio="none">{"".join(made)}</svg>'


def strip(counts: Sequence[int], names: Sequence[str]) -> str:
    """Return a strip of days, the darker the more happened; names : what each day is called."""
    made = []
    for at, (n, name) in enumerate(zip(counts, names, strict=True)):
        if n:
            shade = (0.35, 0.55, 0.75, 0.9, 1.0)[min(n, 5) - 1]
            noun = "page" if n == 1 else "pages"
            made.append(
                f'<rect class="f-page" fill-opacity="{shade}" x="{at + 0.04:.2f}" y="1" '
                f'width=".92" height="16"><title>{escape(name)}: {n} {noun}</title></rect>'
            )
    size = max(len(counts), 1)
    return f'<svg viewBox="0 0 {size} 18" preserveAspectRatio="none">{"".join(made)}</svg>'


def span(begin_ms: int, end_ms: int) -> str:
    """Return a time and how long it lasted."""
    if end_ms <= begin_ms:
        return f"{clock(begin_ms, dated=True)} UTC"
    return f"{clock(begin_ms, dated=True)} UTC, for {duration(end_ms - begin_ms)}"
