"""Commands of triage: group alike alerts, name the groups, recognise them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from jobs.cli.options import examples

triage = typer.Typer(
    help="Group alike alerts, name the groups, and recognise them the next time.",
    no_args_is_help=True,
)

Alerts = Annotated[
    Path,
    typer.Argument(
        help="Alerts as JSON lines ('streamad backtest -o alerts.jsonl'), or the pipeline or "
        "alerting file (.yaml) whose topic is read.",
        metavar="ALERTS",
    ),
]
Book = Annotated[Path, typer.Option("--book", "-b", help="The file that holds groups and names.")]
Since = Annotated[
    str | None,
    typer.Option("--from", help="Only alerts that began since then: 2026-03-01, or '14d ago'."),
]
AsJson = Annotated[bool, typer.Option("--json", help="Machine-readable.")]

BOOK = Path("triage.json")


@triage.command(
    epilog=examples(
        "streamad triage groups alerts.jsonl",
        'streamad triage groups alerting.yaml --from "14d ago" --book shop.json',
        "streamad triage groups alerts.jsonl --method pbn     # once some groups have names",
    )
)
def groups(
    alerts: Alerts,
    *,
    book: Book = BOOK,
    since: Since = None,
    k: Annotated[
        int | None,
        typer.Option("--groups", help="Number of groups. Default: chosen.", min=1, max=30),
    ] = None,
    method: Annotated[
        str,
        typer.Option(
            help="kmeans, or pbn: a network learns from the named groups how groups differ; "
            "it needs two names and the extra 'train', and takes a minute."
        ),
    ] = "kmeans",
    as_json: AsJson = False,
) -> None:
    """Group the alerts that are like none with a name, and show what each group shares.

    Alerts of named groups are counted there. Groups without a name are proposed again by every run.
    """
    from jobs.triage.commands import group_alerts

    group_alerts(alerts, book=book, since=since, k=k, method=method, as_json=as_json)


@triage.command(
    epilog=examples(
        'streamad triage name g2 "disk full"',
        'streamad triage name "disk full" "log volume full"',
    )
)
def name(
    group: Annotated[
        str, typer.Argument(help="A proposed group (g1), or a name to change.", metavar="GROUP")
    ],
    name: Annotated[str, typer.Argument(help="What people call it.", metavar="NAME")],
    *,
    book: Book = BOOK,
) -> None:
    """Name a group: alerts like it are recognised from now on.

    Two groups given one name are one group.
    """
    from jobs.triage.commands import name_group

    name_group(group, name, book=book)


@triage.command(epilog=examples("streamad triage show", "streamad triage show --json"))
def show(*, book: Book = BOOK, as_json: AsJson = False) -> None:
    """Show the named groups, and those proposed last."""
    from jobs.triage.commands import show_groups

    show_groups(book, as_json=as_json)


@triage.command(epilog=examples('streamad triage drop "disk full"'))
def drop(
    name: Annotated[str, typer.Argument(help="The name.", metavar="NAME")], *, book: Book = BOOK
) -> None:
    """Forget a name: alerts like that group are unknown again."""
    from jobs.triage.commands import drop_name

    drop_name(name, book=book)


@triage.command(epilog=examples("streamad triage recognise alerts.jsonl"))
def recognise(alerts: Alerts, *, book: Book = BOOK, since: Since = None) -> None:
    """Print which named group each alert looks like, as JSON lines; empty: none."""
    from jobs.triage.commands import recognise_alerts

    recognise_alerts(alerts, book=book, since=since)
