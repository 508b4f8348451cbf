"""A graph as SVG with some edges marked: no script, no dependency, dark on a dark screen."""

from __future__ import annotations

import textwrap
from collections.abc import Collection
from html import escape
from typing import Final

import networkx as nx
import numpy as np
import polars as pl
from numpy.typing import NDArray

from streamad.graphs.rows import Graphs
from streamad.shown import safe_text

WIDTH, HEIGHT, TOP, BOTTOM, MARGIN = 760, 520, 66, 36, 46
MOST_NOTE, LINE = 240, 112
MOST_NODES: Final = 150
"""More are not drawn: marked ones come first, then those with most neighbours."""
MOST_NAMED: Final = 40
MOST_TYPES: Final = 8
COLOURS: Final = (
    "#2f7fd0", "#3a9f6c", "#9a73c8", "#c08b2f", "#4daab8", "#b05f8d", "#7a8b2f", "#8a6d5a",
)  # fmt: skip
OTHER: Final = "#98a2b3"
STYLE: Final = """
text{font:12px system-ui,sans-serif;fill:#1c2330} .dim{fill:#697386}
.title{font-size:16px;font-weight:600} .page{fill:#fff} .edge{stroke:#a9b3c1}
.marked{stroke:#d64545} .tip{fill:#d64545} .grey{fill:#a9b3c1} circle{stroke:#fff;stroke-width:1.5}
circle.guilty{stroke:#d64545;stroke-width:3} .name{paint-order:stroke;stroke:#fff;stroke-width:3px}
@media (prefers-color-scheme:dark){text{fill:#e6e9ef} .dim{fill:#98a2b3} .page{fill:#161b24}
.edge{stroke:#475063} .grey{fill:#475063} circle{stroke:#161b24} .name{stroke:#161b24}}
"""

Places = NDArray[np.float64]


def draw_graph(
    graphs: Graphs,
    i: int,
    *,
    title: str,
    edges: Collection[tuple[str, str]] = (),
    nodes: Collection[str] = (),
    note: str = "",
) -> str:
    """Return graph ``i`` as SVG; the same graph gives the same picture.

    edges, nodes : to be marked, by names of nodes; a pair is marked whichever way its edge points
    note : a line below the picture, such as the reason
    """
    first = int(graphs.node_from[i])
    names = [str(one) for one in graphs.names[first : int(graphs.node_from[i + 1])]]
    at = slice(int(graphs.edge_from[i]), int(graphs.edge_from[i + 1]))
    pairs = np.stack([graphs.source[at], graphs.target[at]], axis=1).astype(np.int64)
    guilty = {frozenset(pair) for pair in edges}
    marked = [frozenset((names[a], names[b])) in guilty for a, b in pairs]
    ends = {name for pair in guilty for name in pair} | set(nodes)
    kept = _kept(names, pairs, ends)
    places = _layout(len(names), pairs, kept)
    types = graphs.types[first : first + len(names)].cast(pl.String).fill_null("").to_list()
    kinds = [one for one, _ in _counted(types)][:MOST_TYPES]
    colours = {kind: COLOURS[k] for k, kind in enumerate(kinds)}
    shown = {int(u) for u in kept}
    body = [
        _edge(places[a], places[b], mark=mark, text=f"{names[a]} -> {names[b]}", count=count)
        for (a, b), mark, count in sorted(
            zip(pairs.tolist(), marked, graphs.count[at].tolist(), strict=True),
            key=lambda one: one[1],
        )
        if a in shown and b in shown and a != b
    ]
    named = shown if len(shown) <= MOST_NAMED else {u for u in shown if names[u] in ends}
    for u in sorted(shown):
        colour = colours.get(types[u], OTHER)
        text = f"{names[u]} ({types[u] or 'no type'})"
        body.append(_node(places[u], colour, text, guilty=names[u] in ends))
    body += [_name(places[u], names[u]) for u in sorted(named)]
    heading = escape(safe_text(title, 76))
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT + TOP + BOTTOM}" '
        'role="img">'
        f"<title>{heading}</title><style>{STYLE}</style>{_tips()}"
        f'<rect class="page" width="100%" height="100%"/>'
        f'<text class="title" x="12" y="26">{heading}</text>'
        f"{_legend(colours, n_left_out=len(names) - len(shown), any_marked=any(marked))}"
        f"{_note(note)}{''.join(body)}</svg>\n"
    )


def _kept(names: list[str], pairs: NDArray[np.int64], ends: Collection[str]) -> NDArray[np.int64]:
    """Return the nodes to draw: marked ones, then those with most neighbours."""
    degree = np.bincount(pairs.ravel(), minlength=len(names))
    first = np.array([name in ends for name in names], dtype=np.bool_)
    order = np.lexsort((np.arange(len(names)), -degree, ~first))
    return np.sort(order[:MOST_NODES])


def _layout(n: int, pairs: NDArray[np.int64], kept: NDArray[np.int64]) -> Places:
    """Return places in the picture ``(n, 2)``: springs from a fixed start, parts kept near."""
    places = np.zeros((n, 2))
    if not len(kept):
        return places
    graph: nx.Graph[int] = nx.Graph()
    graph.add_nodes_from(kept.tolist())
    shown = set(kept.tolist())
    graph.add_edges_from((a, b) for a, b in pairs.tolist() if a in shown and b in shown and a != b)
    found = nx.spring_layout(graph, seed=7, iterations=200, k=1.6 / np.sqrt(len(kept)), weight=None)
    drawn = np.array([found[int(u)] for u in kept], dtype=np.float64)
    # Ranks beside values: what lies far out does not press all others together.
    for axis, room in ((0, WIDTH), (1, HEIGHT)):
        value = drawn[:, axis]
        rank = np.argsort(np.argsort(value, kind="stable")) / max(len(kept) - 1, 1)
        width = float(value.max() - value.min())
        share = 0.6 * (value - value.min()) / width + 0.4 * rank if width > 0 else rank * 0 + 0.5
        places[kept, axis] = MARGIN + share * (room - 2 * MARGIN) + (TOP if axis else 0)
    return places


def _counted(types: list[str]) -> list[tuple[str, int]]:
    counts = {one: types.count(one) for one in set(types)}
    return sorted(counts.items(), key=lambda one: (-one[1], one[0]))


def _edge(a: Places, b: Places, *, mark: bool, text: str, count: float) -> str:
    gap = b - a
    length = max(float(np.hypot(*gap)), 1e-9)
    start, end = a + gap * min(8 / length, 0.4), b - gap * min(11 / length, 0.4)
    look, tip = ("marked", "marked-tip") if mark else ("edge", "tip")
    width = min(1.0 + 0.5 * np.log1p(max(count, 0.0)), 4.0) + (0.8 if mark else 0.0)
    told = escape(safe_text(f"{text}, count {count:g}", 200))
    return (
        f'<line class="{look}" x1="{start[0]:.1f}" y1="{start[1]:.1f}" x2="{end[0]:.1f}" '
        f'y2="{end[1]:.1f}" stroke-width="{width:.1f}" marker-end="url(#{tip})">'
        f"<title>{told}</title></line>"
    )


def _node(place: Places, colour: str, text: str, *, guilty: bool) -> str:
    look = ' class="guilty"' if guilty else ""
    return (
        f'<circle{look} cx="{place[0]:.1f}" cy="{place[1]:.1f}" r="7" fill="{colour}">'
        f"<title>{escape(safe_text(text, 200))}</title></circle>"
    )


def _name(place: Places, name: str) -> str:
    return (
        f'<text class="name" x="{place[0]:.1f}" y="{place[1] - 11:.1f}" text-anchor="middle">'
        f"{escape(safe_text(name, 24))}</text>"
    )


def _tips() -> str:
    return (
        "<defs>"
        + "".join(
            f'<marker id="{name}" viewBox="0 0 8 8" refX="6" refY="4" markerWidth="{size}" '
            f'markerHeight="{size}" markerUnits="userSpaceOnUse" orient="auto">'
            f'<path class="{look}" d="M0,0L8,4L0,8z"/></marker>'
            for name, look, size in (("tip", "grey", 7), ("marked-tip", "tip", 10))
        )
        + "</defs>"
    )


def _note(text: str) -> str:
    lines = textwrap.wrap(safe_text(text, MOST_NOTE), LINE, max_lines=2, placeholder=" ...")
    return "".join(
        f'<text class="dim" x="12" y="{TOP + HEIGHT + 8 + 17 * place}">{escape(line)}</text>'
        for place, line in enumerate(lines)
    )


def _legend(colours: dict[str, str], *, n_left_out: int, any_marked: bool) -> str:
    parts, x = [], 12
    shown = [(kind or "no type", f'fill="{colour}"') for kind, colour in colours.items()]
    if any_marked:
        shown.append(("stands out", 'class="tip"'))
    for name, look in shown:
        text = safe_text(name, 30)
        parts.append(
            f'<rect x="{x}" y="38" width="12" height="10" {look}/>'
            f'<text class="dim" x="{x + 16}" y="47">{escape(text)}</text>'
        )
        x += 34 + 7 * len(text)
    if n_left_out:
        parts.append(
            f'<text class="dim" x="{WIDTH - 12}" y="26" text-anchor="end">'
            f"{n_left_out:,} other nodes are not drawn</text>"
        )
    return "".join(parts)
