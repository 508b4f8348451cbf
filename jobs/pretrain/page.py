"""A page of synthetic series: samples of every kind of anomaly, with label and clean twin."""

from __future__ import annotations

from collections.abc import Iterator
from html import escape
from typing import Final

import numpy as np
from numpy.typing import NDArray

from streamad.training.corpus import KINDS, LOCAL, CorpusConfig, Sample, draw_sample

WIDTH, HEIGHT, PAD = 400, 110, 6
LINE: Final = 84
"""Height of one variate in a panel of several."""
_STYLE: Final = """
body{font:13px system-ui,sans-serif;color:#1c2330;background:#fff;margin:24px;max-width:1280px}
h1{font-size:20px} h2{font-size:14px;margin:18px 0 4px} p{color:#697386;margin:4px 0 12px}
.row{display:flex;gap:12px;flex-wrap:wrap} svg{border:1px solid #e6eaf0}
polyline{fill:none;stroke-width:1.1} .series{stroke:#2f7fd0} .normal{stroke:#e07b39;
stroke-dasharray:3 2} .label{fill:#e0a100;fill-opacity:.28}
"""


def corpus_page(
    config: CorpusConfig, *, seed: int, length: int, n_samples: int, n_systems: int = 4
) -> str:
    """Return a page of HTML with ``n_samples`` series per kind, and some of several variates."""
    groups = []
    for number, kind in enumerate(KINDS):
        samples = _samples_with(config, kind, n_samples, length, seed, number)
        drawings = [drawing(sample) for sample in samples]
        name = kind.replace("_", " ")
        what = "local" if kind in LOCAL else "seasonal"
        groups.append(f'<h2>{escape(name)} ({what})</h2><div class="row">{"".join(drawings)}</div>')
    systems = []
    for number in range(n_systems):
        rng = np.random.default_rng([seed, 1_000 + number])
        sample = draw_sample(config, rng, length=length, n_variates=4)
        systems.append(drawing(sample))
    return (
        '<!doctype html><html lang="en"><meta charset="utf-8"><title>Synthetic corpus</title>'
        f"<style>{_STYLE}</style><h1>Synthetic corpus, seed {seed}</h1>"
        "<p>Blue: the series. Orange, dashed: its clean twin, where it differs. Yellow: labelled "
        f"an anomaly.</p>{''.join(groups)}"
        f'<h2>Several variates, drawn at random</h2><div class="row">{"".join(systems)}</div>'
        "</html>\n"
    )


def _samples_with(
    config: CorpusConfig, kind: str, n: int, length: int, seed: int, number: int
) -> Iterator[Sample]:
    """Yield samples that hold the kind: a draw that found no place for it is passed over."""
    found, attempt = 0, 0
    while found < n and attempt < 20 * n:
        rng = np.random.default_rng([seed, number, attempt])
        sample = draw_sample(config, rng, length=length, kinds=(kind,))
        attempt += 1
        if sample.events:
            found += 1
            yield sample


def drawing(sample: Sample) -> str:
    """Return one SVG: a strip per variate."""
    n_variates = sample.series.shape[1]
    height = HEIGHT if n_variates == 1 else n_variates * LINE
    strips = []
    for v in range(n_variates):
        top, tall = (0, HEIGHT) if n_variates == 1 else (v * LINE, LINE)
        strips.append(_strip(sample, v, top, tall))
    kinds = ", ".join(event.kind for event in sample.events)
    return (
        f'<svg width="{WIDTH}" height="{height}" viewBox="0 0 {WIDTH} {height}" role="img">'
        f"<title>{escape(kinds)}</title>{''.join(strips)}</svg>"
    )


def _strip(sample: Sample, variate: int, top: int, tall: int) -> str:
    series, normal = sample.series[:, variate], sample.normal[:, variate]
    low = float(min(series.min(), normal.min()))
    span = max(float(max(series.max(), normal.max())) - low, 1e-9)
    per_sample = WIDTH / len(series)

    def points(values: NDArray[np.float32], first: int) -> str:
        x = (np.arange(len(values)) + first + 0.5) * per_sample
        y = top + tall - PAD - (values - low) / span * (tall - 2 * PAD)
        return " ".join(f"{a:.1f},{b:.1f}" for a, b in zip(x, y, strict=True))

    parts = []
    edges = np.flatnonzero(np.diff(np.concatenate([[0], sample.labels[:, variate], [0]])))
    for start, stop in edges.reshape(-1, 2):
        # One labelled sample is less than a pixel wide.
        width = max((stop - start) * per_sample, 2.0)
        parts.append(
            f'<rect class="label" x="{start * per_sample:.1f}" y="{top}" width="{width:.1f}" '
            f'height="{tall}"/>'
        )
    parts.append(f'<polyline class="series" points="{points(series, 0)}"/>')
    changed = np.flatnonzero(series != normal)
    if len(changed):
        first, last = max(int(changed[0]) - 1, 0), min(int(changed[-1]) + 2, len(series))
        parts.append(f'<polyline class="normal" points="{points(normal[first:last], first)}"/>')
    return "".join(parts)
