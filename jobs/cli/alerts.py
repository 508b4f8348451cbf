"""Commands for the people who are paged: follow, list, show, answer, silence; and the budgets."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from jobs.cli.options import examples

File = Annotated[
    Path, typer.Argument(help="An alerting file or a pipeline file, YAML.", metavar="FILE")
]
Id = Annotated[
    str,
    typer.Argument(help="Of an incident or an alert; its first characters will do.", metavar="ID"),
]
Json = Annotated[bool, typer.Option("--json", help="Machine-readable, one object per line.")]
By = Annotated[str | None, typer.Option(help="Who answers. Default: the user of this machine.")]
Comment = Annotated[str, typer.Option(help="A line for whoever reads it later.")]

alerts = typer.Typer(
    help="Follow alerts and incidents, answer to them, and silence them.", no_args_is_help=True
)


@alerts.command(
    epilog=examples(
        "streamad alerts tail pipeline.yaml",
        "streamad alerts tail alerting.yaml --only incidents --from '1h ago'",
        "streamad alerts tail pipeline.yaml --json | jq .summary",
    )
)
def tail(
    file: File,
    *,
    begin: Annotated[
        str, typer.Option("--from", help="Start at this time: ISO 8601, or '1h ago'.")
    ] = "now",
    only: Annotated[
        str | None, typer.Option(help="alerts or incidents. Default: both.", metavar="KIND")
    ] = None,
    follow: Annotated[
        bool, typer.Option("--follow/--no-follow", help="Wait for more, until Ctrl-C.")
    ] = True,
    as_json: Json = False,
) -> None:
    """Follow alerts and incidents as they are written, one line each.

    Only committed records are read, so each line was really sent.
    """
    from jobs.desk.commands import tail as run

    run(file, begin=begin, only=only, follow=follow, to_json=as_json)


@alerts.command(
    "list",
    epilog=examples(
        "streamad alerts list pipeline.yaml",
        "streamad alerts list alerting.yaml --since '1d ago'      # also those that are over",
    ),
)
def list_(
    file: File,
    *,
    since: Annotated[
        str | None, typer.Option(help="Also those resolved since this time: '1d ago', ISO 8601.")
    ] = None,
    as_json: Json = False,
) -> None:
    """List the open incidents, the newest first: since when, how severe, and who was paged."""
    from jobs.desk.commands import list_incidents

    list_incidents(file, since=since, to_json=as_json)


@alerts.command(epilog=examples("streamad alerts show pipeline.yaml 3fa2c1"))
def show(file: File, name: Id, *, as_json: Json = False) -> None:
    """Show one incident: its alerts, probable causes, values, answers, and similar ones."""
    from jobs.desk.commands import show as run

    run(file, name, to_json=as_json)


@alerts.command(
    epilog=examples(
        "streamad alerts ack pipeline.yaml 3fa2c1",
        "streamad alerts ack pipeline.yaml 3fa2c1 --as false_positive --comment 'nightly backup'",
        "streamad alerts ack pipeline.yaml 3fa2c1 --as expected --until 2h",
        "streamad alerts ack pipeline.yaml 3fa2c1 --as real --severity critical",
    )
)
def ack(  # noqa: PLR0913 - one argument an option
    file: File,
    name: Id,
    *,
    verdict: Annotated[
        str,
        typer.Option(
            "--as",
            help="acknowledged, false_positive, expected or real.",
            metavar="VERDICT",
        ),
    ] = "acknowledged",
    until: Annotated[
        str | None,
        typer.Option(help="Expected until then: a length (2h) or a time. Default: the end of it."),
    ] = None,
    severity: Annotated[
        str | None,
        typer.Option(
            help="How severe it was: info, warning, error or critical. 'alerts severities' learns "
            "from it what to call the next ones."
        ),
    ] = None,
    by: By = None,
    comment: Comment = "",
) -> None:
    """Answer to an incident or an alert; the desk reads it within a second.

    acknowledged: somebody looks at it. false_positive: its series must be more anomalous from now
    on before it alerts; this fades over weeks. expected: its series does not page until a time.
    real: its series alerts a little sooner. Every answer is counted in the ledger of the group.
    """
    from jobs.desk.commands import acknowledge

    acknowledge(file, name, verdict=verdict, until=until, by=by, comment=comment, severity=severity)


@alerts.command(
    epilog=examples(
        "streamad alerts silence pipeline.yaml 'host=\"web-1\"' --until 2h --name 'new kernel'",
        "streamad alerts silence alerting.yaml 'service=~\"pay.*\"' --until 2026-03-02T06:00:00Z",
        "streamad alerts silence alerting.yaml                     # prints the silences",
        "streamad alerts silence alerting.yaml --end 9c41",
    )
)
def silence(  # noqa: PLR0913 - one argument an option
    file: File,
    matchers: Annotated[
        list[str] | None,
        typer.Argument(
            help='name="value", !=, =~ or !~ on entity fields, key, group, pipeline, detector or '
            "kind; all must match.",
            metavar="[MATCHER]...",
        ),
    ] = None,
    *,
    until: Annotated[
        str | None, typer.Option(help="The end, required: a length (2h) or a time.")
    ] = None,
    begin: Annotated[str, typer.Option("--from", help="The begin, ISO 8601.")] = "now",
    name: Annotated[
        str | None, typer.Option(help="Shown where it withholds a page. Default: the matchers.")
    ] = None,
    end: Annotated[str | None, typer.Option(help="End the silence with this id.")] = None,
    by: By = None,
    comment: Comment = "",
    tenant: Annotated[
        str, typer.Option(help="The tenant whose alerts are silenced; '*': all.")
    ] = "default",
) -> None:
    """Silence what matches, until a time; no restart is needed.

    What is silenced is still written and counted, and does not page. Without matchers the silences
    in force and to come are printed.
    """
    from jobs.desk import commands

    if end is not None:
        commands.end_silence(file, end, by=by)
        return
    commands.silence(
        file,
        matchers or [],
        until=until,
        begin=begin,
        name=name,
        by=by,
        comment=comment,
        tenant=tenant,
    )


@alerts.command(
    epilog=examples(
        "streamad alerts answers pipeline.yaml -o answers.jsonl",
        "streamad fit knn week.jsonl --pipeline pipeline.yaml --feedback answers.jsonl -o models/k",
    )
)
def answers(
    file: File,
    *,
    out: Annotated[
        str, typer.Option("--out", "-o", help="The file to write; '-': print it.")
    ] = "-",
) -> None:
    """Write the answers as JSON lines: series, begin, end, verdict; 'fit --feedback' reads them.

    'alerts severities --answers' reads them, too.

    Incidents are known for 35 days, single alerts for 7: keep the file, and append to it.
    """
    from jobs.desk.commands import export

    export(file, out=out)


@alerts.command(
    epilog=examples(
        "streamad alerts severities alerting.yaml -o severities.json",
        "streamad alerts severities alerting.yaml --answers answers.jsonl",
    )
)
def severities(
    file: File,
    *,
    answers: Annotated[
        Path | None,
        typer.Option(help="A file of 'alerts answers'. Default: the answers on the topics."),
    ] = None,
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="The file to write, JSON. Default: none.")
    ] = None,
) -> None:
    """Learn from answers with a severity what people call info, warning, error and critical.

    Prints from which evidence on each word holds, how well evidence orders what people answered
    (C-index: .5 is chance, 1.0 their order), and how often the word is theirs. The alerting file
    names the file as 'severities'. What pages does not change: that is the budget's.
    """
    from jobs.desk.severities import fit_severities

    fit_severities(file, answers=answers, out=out)


budget = typer.Typer(help="Show the page budgets.", no_args_is_help=True)


@budget.callback()
def _budget() -> None:
    """Show the page budgets."""


@budget.command(
    "show",
    epilog=examples(
        "streamad budget show alerting.yaml",
        "streamad budget show alerting.yaml --group checkout --days 7",
    ),
)
def show_(
    file: File,
    *,
    days: Annotated[int, typer.Option(help="Days back.", min=1, max=35)] = 35,
    group: Annotated[str | None, typer.Option(help="Only this group.")] = None,
    as_json: Json = False,
) -> None:
    """Show per group and day how many pages were asked, sent, overdrawn and withheld, and why."""
    from jobs.desk.budget import show_budgets

    show_budgets(file, days=days, group=group, to_json=as_json)
