"""The graph of an alert as a picture: the edges of its window, those that stand out marked."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from streamad.config import PipelineConfig
from streamad.errors import ConfigError
from streamad.graphs.picture import draw_graph
from streamad.graphs.rows import EdgeRows, Graphs
from streamad.records import Alert, Explanation, Finding, RecordBatch
from streamad.shown import safe_text
from streamad.windows.graphs import GraphPlan, GraphWindows
from streamad.wording import clock, one_line

MOST_PICTURES = 20
"""Of one back-test: the worst alerts come first."""
MOST_SPANS = 10
ARROW = " -> "
MAX_NAME_CHARS = 60


def require_edges(config: PipelineConfig, option: str) -> None:
    """Raise ConfigError where a pipeline reads no edges, of which a graph could be drawn."""
    if config.input.fields.source is None:
        msg = (
            f"{option} draws graphs, and {config.name} reads {config.input.records}; "
            "`streamad backtest --plot` draws what it judges"
        )
        raise ConfigError(msg)


def window_of(finding: Finding, config: PipelineConfig) -> tuple[int, int]:
    """Return begin and end (in ms, both inside) of what to draw of a finding.

    A graph that was judged has its own window. An edge that was judged by itself is drawn with
    those since ``graphs.span`` before its episode began, at most `MOST_SPANS` of them.
    """
    span, end = config.graphs.span, finding.window_end_ms
    begin = finding.window_start_ms
    if begin >= end:
        begin = max(finding.began_ms, end - (MOST_SPANS - 1) * span) + 1 - span
    return begin, end


def graph_of(
    batches: Iterable[RecordBatch[Any]], key: str, window: tuple[int, int], config: PipelineConfig
) -> Graphs:
    """Return the edges of a key in a window as one graph, cut at the pipeline's bounds."""
    parts = []
    for batch in batches:
        inside = (batch.time_ms >= window[0]) & (batch.time_ms <= window[1])
        rows = np.flatnonzero(inside & (batch.keys == key).to_numpy())
        if len(rows):
            parts.append(batch.values[rows])
    if not parts:
        msg = (
            f"no edge of {key!r} from {clock(window[0], dated=True)} to "
            f"{clock(window[1], dated=True)} UTC is in the input; it may be past its retention: "
            "name a file with --input"
        )
        raise ConfigError(msg)
    edges = EdgeRows.join(parts)
    n = len(edges)
    # Cut as live windows are, all edges in one; a last edge after its end closes it.
    windows = GraphWindows(
        GraphPlan(
            span_ms=1,
            slide_ms=1,
            max_nodes=config.graphs.max_nodes,
            max_edges=config.graphs.max_edges,
        )
    )
    windows.state.reserve(1)
    closing = EdgeRows.join([edges, edges[np.zeros(1, np.int64)]])
    times = np.append(np.zeros(n, np.int64), 1)
    late = np.zeros(n + 1, np.bool_)
    block = next(iter(windows.ingest(np.zeros(n + 1, np.int32), times, closing, late)))
    made: Graphs = block.values
    return made


def title_of(key: str, window: tuple[int, int]) -> str:
    """Return the title of a picture: of which key it is, and from when to when."""
    begin, end = clock(window[0], dated=True), clock(window[1] + 1)
    return f"{safe_text(key, 40)}, {begin} to {end} UTC"


def picture_of(graphs: Graphs, i: int, *, title: str, why: Explanation | None) -> str:
    """Return graph ``i`` as SVG, with the edges and nodes that an explanation names marked."""
    edges, nodes = marked(graphs, i, why)
    notes = [] if why is None else [one_line(why.text)]
    if graphs.dropped[i]:
        notes.append(f"{int(graphs.dropped[i]):,} edges were left out (graphs.max_edges)")
    return draw_graph(
        graphs,
        i,
        title=title,
        edges=edges,
        nodes=nodes,
        note="; ".join(note for note in notes if note),
    )


def marked(
    graphs: Graphs, i: int, why: Explanation | None
) -> tuple[list[tuple[str, str]], list[str]]:
    """Return the edges and the nodes of a graph that an explanation names.

    Explanations show names cut to a length, so that names of the graph are compared as shown.
    """
    if why is None:
        return [], []
    first, last = int(graphs.node_from[i]), int(graphs.node_from[i + 1])
    names = [str(name) for name in graphs.names[first:last]]
    shown = [safe_text(name, MAX_NAME_CHARS) for name in names]
    parts, told = set(why.variates), {safe_text(one, MAX_NAME_CHARS) for one in why.entities}
    at = slice(int(graphs.edge_from[i]), int(graphs.edge_from[i + 1]))
    pairs: NDArray[np.int32] = np.stack([graphs.source[at], graphs.target[at]], axis=1)
    edges = [
        (names[a], names[b]) for a, b in pairs.tolist() if f"{shown[a]}{ARROW}{shown[b]}" in parts
    ]
    return edges, [name for name, text in zip(names, shown, strict=True) if text in told]


def draw_alerts(
    folder: Path,
    alerts: Sequence[Alert],
    findings: Sequence[Finding],
    batches: Sequence[RecordBatch[Any]],
    config: PipelineConfig,
) -> list[Path]:
    """Write a picture of each alert's graph, the worst `MOST_PICTURES`; return their paths."""
    peaks: dict[str, float] = {}
    for alert in alerts:
        peaks[alert.id] = max(peaks.get(alert.id, 0.0), alert.peak_severity)
    worst = sorted(peaks, key=lambda one: -peaks[one])[:MOST_PICTURES]
    chosen = _clearest(findings, worst)
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for place, finding in enumerate(chosen, start=1):
        window = window_of(finding, config)
        graph = graph_of(batches, finding.key, window, config)
        path = folder / f"{place:02d}-{_file_name(finding.key)}-{window[1] + 1}.svg"
        title = title_of(finding.key, window)
        svg = picture_of(graph, 0, title=title, why=finding.explanation)
        path.write_text(svg, encoding="utf-8")
        paths.append(path)
    return paths


def draw_judged(
    folder: Path, graphs: Graphs, names: Sequence[str], findings: Sequence[Finding], step_ms: int
) -> list[Path]:
    """Write a picture of each graph of a file at which an episode began, the worst ones.

    names : of the graphs; step_ms : from one graph to the next, in the findings' time
    """
    began = sorted((f for f in findings if f.state == "began"), key=lambda f: -f.score)
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for place, finding in enumerate(began[:MOST_PICTURES], start=1):
        i = finding.window_start_ms // step_ms
        path = folder / f"{place:02d}-{_file_name(names[i])}.svg"
        svg = picture_of(graphs, i, title=f"graph {names[i]}", why=finding.explanation)
        path.write_text(svg, encoding="utf-8")
        paths.append(path)
    return paths


def _clearest(findings: Iterable[Finding], ids: Collection[str]) -> list[Finding]:
    """Return of each episode the finding with the highest score of those that are explained."""
    best: dict[str, Finding] = {}
    for finding in findings:
        if finding.explanation is None or finding.id not in ids:
            continue
        known = best.get(finding.id)
        if known is None or finding.score > known.score:
            best[finding.id] = finding
    return [best[one] for one in ids if one in best]


def _file_name(key: str) -> str:
    return re.sub(r"[^A-Za-z0-9._-]+", "-", key).strip("-.")[:60] or "key"


def shown_count(paths: Sequence[Path], n_alerts: int) -> str:
    """Return how many pictures were drawn, for a report."""
    drawn = f"{len(paths)} picture{'' if len(paths) == 1 else 's'}"
    more = f" of {n_alerts:,} alerts, the worst" if n_alerts > len(paths) else ""
    return f"{drawn}{more}"
