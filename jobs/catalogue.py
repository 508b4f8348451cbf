"""``streamad detectors``: what each detector judges, needs and costs."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict, dataclass

from jobs.build import make
from jobs.console import say
from streamad.config import PipelineConfig
from streamad.detectors import DETECTORS
from streamad.errors import StreamadError
from streamad.operators.detect import DetectOperator


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One detector; bytes_per_key for one variate at the default size, windows and all."""

    name: str
    summary: str
    modality: str
    multivariate: bool
    min_size: int
    default_size: int
    lag: int
    warm_up: int
    needs_training: bool
    learns: bool
    cost: str
    bytes_per_key: int
    paper: str


def entry(name: str) -> Entry:
    """Return what a detector declares, and what it measures."""
    detector = make(name)
    info = detector.info
    operator = DetectOperator(PipelineConfig(name="catalogue"), detector)
    return Entry(
        name=name,
        summary=info.summary,
        modality=info.modality,
        multivariate=info.multivariate,
        min_size=info.min_size,
        default_size=info.default_size,
        lag=detector.lag,
        warm_up=info.warm_up,
        needs_training=info.needs_training,
        learns=info.learns,
        cost=info.cost,
        bytes_per_key=operator.new_state().bytes_per_key,
        paper=info.paper,
    )


def print_detectors(*, as_json: bool) -> None:
    """Print all detectors to standard output."""
    entries = []
    for name in DETECTORS:
        try:
            entries.append(entry(name))
        except (StreamadError, ImportError) as error:
            # One broken plug-in must not hide the others.
            say(f"{name} cannot be loaded: {error}")
    if as_json:
        sys.stdout.write(json.dumps([asdict(one) for one in entries], indent=1) + "\n")
        return
    from rich.console import Console
    from rich.table import Table

    table = Table(box=None, pad_edge=False, header_style="bold")
    for heading, justify in _COLUMNS:
        table.add_column(heading, justify=justify, no_wrap=heading == "name")  # type: ignore[arg-type]
    for one in entries:
        table.add_row(*_cells(one))
    console = Console()
    console.print(table)
    # Below, not beside: a column of sentences leaves eighty characters no room for numbers.
    for one in entries:
        console.print(f"\n[bold]{one.name}[/bold]: {one.summary}", highlight=False)
    console.print(
        "\nlag: samples between the scored sample and the newest one. "
        "bytes/key: one variate at the default window. Sizes are in samples.",
        highlight=False,
    )


_COLUMNS = (
    ("name", "left"), ("scores", "left"), ("window", "right"), ("least", "right"),
    ("lag", "right"), ("training", "left"), ("cost", "left"), ("bytes/key", "right"),
)  # fmt: skip


def _cells(one: Entry) -> tuple[str, ...]:
    training = (
        "needed" if one.needs_training else f"warms up {one.warm_up}" if one.warm_up else "none"
    )
    judges = one.modality if one.multivariate else f"{one.modality}, one variate"
    return (
        one.name, judges, str(one.default_size), str(one.min_size), str(one.lag), training,
        one.cost, f"{one.bytes_per_key:,}",
    )  # fmt: skip
