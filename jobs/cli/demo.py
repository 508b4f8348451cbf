"""Commands that need nothing at all: the demo, and the version."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from jobs.cli.options import examples

commands = typer.Typer()


@commands.command(
    short_help="See alerts in a minute: no broker, no file, this machine.",
    epilog=examples("streamad demo", "streamad demo --keep-going --out alerts.jsonl"),
)
def demo(
    *,
    seconds: Annotated[
        float, typer.Option(help="Stop after this many seconds; at least 60.")
    ] = 90.0,
    keep_going: Annotated[
        bool, typer.Option("--keep-going", help="Keep watching until Ctrl-C.")
    ] = False,
    no_disturbance: Annotated[
        bool, typer.Option("--no-disturbance", help="Only watch, without a disturbance.")
    ] = False,
    out: Annotated[Path | None, typer.Option("--out", "-o", help="File for the alerts.")] = None,
    picture: Annotated[Path | None, typer.Option(help="Save the screen as SVG.")] = None,
) -> int:
    """Watch this machine, disturb it on purpose, and show the alerts.

    It watches metrics, process starts and connections, and does a little ordinary work, so that
    something is usual. Then it keeps two cores busy, starts a program that never ran here, and
    connects one program to 40 ports, all on this machine. Nothing is staged: what is read is the
    machine's own, and the disturbance is real.
    """
    from jobs.demo.play import run_demo

    return run_demo(
        seconds=seconds,
        keep_going=keep_going,
        no_disturbance=no_disturbance,
        out=out,
        picture=picture,
    )


@commands.command(epilog=examples("streamad version"))
def version() -> None:
    """Print the version."""
    from importlib.metadata import version as version_of

    typer.echo(f"streamad {version_of('streamad-pipeline')}")
