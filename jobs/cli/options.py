"""Arguments and options that several commands share, and what reads their values."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

File = Annotated[
    Path,
    typer.Argument(
        help="CSV of any kind, JSON lines, Parquet, or JSON as a monitoring tool answers; gzipped "
        "or not.",
        metavar="FILE",
    ),
]
Columns = Annotated[
    str, typer.Option(help="Columns to score, as a,b,c. Default: all numeric ones except labels.")
]
Time = Annotated[
    str | None,
    typer.Option(
        help="Column of times, or 'row' for the row number. Default: a column with a usual name."
    ),
]
Key = Annotated[
    list[str] | None,
    typer.Option(
        help="Column that names the series of a row. Repeatable: several name it together. "
        "Default: a column with a usual name, or those of texts where times repeat."
    ),
]
Joint = Annotated[
    bool,
    typer.Option(
        "--joint", help="Take all columns for one series, not each for a series of its own."
    ),
]
Plot = Annotated[
    Path | None,
    typer.Option(help="Draw the series, their severity and alerts: .html or .svg."),
]
GraphFolder = Annotated[
    Path | None,
    typer.Option(
        "--graphs",
        help="Draw the graphs that alerted into this folder, as SVG: at most 20, the worst.",
        metavar="FOLDER",
    ),
]
Fields = Annotated[
    str,
    typer.Option(
        help="Events: columns that describe one, as a,b,c. Edges: source,target. Default: all but "
        "time, key, count and label; usual names of an edge's ends."
    ),
]
Count = Annotated[
    str | None, typer.Option(help="Column that holds how often a row of events happened.")
]
Label = Annotated[
    str | None,
    typer.Option(help="Column that labels rows; it is never scored. Default: a usual name."),
]
Labels = Annotated[
    Path | None,
    typer.Option(help="Graphs: a file with a label per graph, a line each, in their order."),
]
Normal = Annotated[
    str | None,
    typer.Option(help="The label of ordinary rows: 'fit' leaves out rows that have another."),
]
Size = Annotated[
    int | None, typer.Option(help="Samples per window. Default: the period of the training part.")
]
Params = Annotated[
    list[str] | None,
    typer.Option("--params", "-p", help="A parameter of the detector, as name=value. Repeatable."),
]
Pipeline = Annotated[Path, typer.Argument(help="The pipeline file, YAML.", metavar="PIPELINE")]


def examples(*lines: str) -> str:
    """Return the examples below a command's help."""
    return "Examples:\n\n\b\n" + "\n".join(f"  {line}" for line in lines)


def names(given: list[str] | None) -> list[str]:
    """Return the names of an option that may be repeated, or hold several with commas between."""
    return list(dict.fromkeys(name for text in given or [] for name in listed(text)))


def listed(text: str) -> list[str]:
    """Return the parts of a text between commas."""
    return [part.strip() for part in text.split(",") if part.strip()]


def parameters(given: list[str] | None) -> dict[str, Any]:
    """Read ``name=value`` pairs; a value is what YAML takes it for."""
    import yaml

    from streamad.errors import ConfigError

    found = {}
    for pair in given or []:
        name, equals, value = pair.partition("=")
        if not equals or not name:
            msg = f"--params: expected name=value, got {pair!r}"
            raise ConfigError(msg)
        try:
            found[name.strip()] = yaml.safe_load(value)
        except yaml.YAMLError:
            found[name.strip()] = value
    return found
