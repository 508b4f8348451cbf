"""Commands on topics: create those of a pipeline, show and replay dead-letter records."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from jobs.cli.options import Pipeline, examples

Letters = Annotated[
    Path,
    typer.Argument(
        help="The pipeline file, for unusable input; or the alerting file, for pages.",
        metavar="FILE",
    ),
]

topics = typer.Typer(
    help="Create the topics of a pipeline, and show their schemas.", no_args_is_help=True
)


@topics.callback()
def _topics() -> None:
    """Create the topics of a pipeline, and show their schemas."""


@topics.command(epilog=examples("streamad topics create pipeline.yaml"))
def create(pipeline: Pipeline) -> None:
    """Create the output topics that are missing, with the settings they need.

    'streamad run' does the same at its start; this is for clusters where jobs have no right to.
    """
    from jobs.commands import make_topics

    make_topics(pipeline)


@topics.command(
    epilog=examples(
        "streamad topics schemas alerting.yaml | jq -r 'select(.role == \"incidents\").schema'",
        "streamad topics schemas alerting.yaml --register      # at SCHEMA_REGISTRY_URL",
    )
)
def schemas(
    file: Annotated[Path, typer.Argument(help="A pipeline or an alerting file.", metavar="FILE")],
    *,
    register: Annotated[
        bool, typer.Option("--register", help="Register them in the schema registry.")
    ] = False,
) -> None:
    """Print the JSON Schema of each topic, one JSON line with its subject each.

    With --register they are registered under these subjects, for 'output.format: confluent'.
    'streamad run' does so at its start, too; this is for registries where jobs have no right to.
    """
    from jobs.commands import show_schemas

    show_schemas(file, register=register)


dlq = typer.Typer(help="Show dead-letter records, and replay them.", no_args_is_help=True)


@dlq.command(
    epilog=examples(
        "streamad dlq show pipeline.yaml",
        "streamad dlq show pipeline.yaml --limit 3 --payloads",
    )
)
def show(
    pipeline: Letters,
    *,
    limit: Annotated[int, typer.Option(help="How many of the newest records to show.", min=0)] = 10,
    payloads: Annotated[bool, typer.Option("--payloads", help="Show the payloads.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Machine-readable.")] = False,
) -> None:
    """Show unusable input: how often, and why."""
    from jobs.dlq.commands import show_letters

    show_letters(pipeline, limit=limit, to_json=as_json, payloads=payloads)


@dlq.command(
    epilog=examples(
        "streamad dlq replay pipeline.yaml --dry-run",
        "streamad dlq replay pipeline.yaml --reason bad_time",
        "streamad dlq replay alerting.yaml",
    )
)
def replay(
    pipeline: Letters,
    *,
    reason: Annotated[str | None, typer.Option(help="Only records with this reason.")] = None,
    limit: Annotated[int | None, typer.Option(help="Replay at most this many.", min=1)] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only print what would be done.")
    ] = False,
    max_attempts: Annotated[
        int, typer.Option(help="Skip records that failed this often.", min=1)
    ] = 3,
) -> None:
    """Send dead-letter records back to their original topics, each once.

    Fix the cause first: a record that fails again returns with its attempt count raised. With an
    alerting file, pagers send the pages that failed, under the same key and as incidents are by
    now; those that are over open no page.
    """
    from jobs.dlq.commands import replay_letters

    replay_letters(pipeline, reason=reason, limit=limit, dry_run=dry_run, max_attempts=max_attempts)
