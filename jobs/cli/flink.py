"""``streamad flink``: the same pipelines on Apache Flink."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from jobs.cli.options import examples
from jobs.console import say

flink = typer.Typer(
    name="flink",
    no_args_is_help=True,
    rich_markup_mode=None,
    help=(
        "Run the detect stage of a pipeline on Apache Flink. Run 'streamad run --role alert' "
        "beside it for the alerts."
    ),
)

_Pipeline = Annotated[Path, typer.Argument(help="The pipeline file.", metavar="PIPELINE")]
_Cluster = Annotated[
    str, typer.Option(help="Address of the cluster's REST interface, as HOST:PORT.")
]


@flink.command(
    epilog=examples(
        "streamad flink run pipeline.yaml                  # in this process, until Ctrl-C",
        "streamad flink run pipeline.yaml --cluster localhost:8081 --parallelism 2",
        "streamad flink run pipeline.yaml --cluster jm:8081 --from s3://state/savepoint-3f2a",
        "streamad flink run pipeline.yaml --from none      # discard the state",
    )
)
def run(
    pipeline: _Pipeline,
    *,
    cluster: Annotated[
        str | None,
        typer.Option(help="Submit to this cluster (HOST:PORT). Default: run Flink here."),
    ] = None,
    parallelism: Annotated[
        int | None, typer.Option(help="Slots to use; overrides flink.parallelism.")
    ] = None,
    start_from: Annotated[
        str,
        typer.Option(
            "--from",
            help=(
                "Resume from: the 'latest' savepoint or checkpoint, or else the plain job; a "
                "savepoint's folder or URL; 'plain', the plain job; or 'none', input.start."
            ),
        ),
    ] = "latest",
) -> None:
    """Run a pipeline on Flink: in this process until it is stopped, or on a cluster.

    In this process, Ctrl-C (or SIGTERM) stops with a savepoint, and the next run resumes from it.
    On a cluster the command returns after the job's first checkpoint, or reports why it failed.

    The first run takes over from the plain job ('streamad run'), which must be stopped: it starts
    at the plain job's offsets, with its state. 'none' discards both and starts at input.start.

    Needs the extra 'flink', Java 17 and the Kafka connector: 'make setup-flink' installs them.
    """
    from jobs.flink.commands import run_pipeline

    run_pipeline(pipeline, cluster=cluster, parallelism=parallelism, start_from=start_from)


@flink.command(epilog=examples("streamad flink stop pipeline.yaml --cluster localhost:8081"))
def stop(pipeline: _Pipeline, *, cluster: _Cluster = "localhost:8081") -> None:
    """Stop a pipeline on a cluster with a savepoint, and print its path."""
    from jobs.flink.commands import stop_pipeline

    typer.echo(stop_pipeline(pipeline, cluster=cluster))


@flink.command(epilog=examples("streamad flink status pipeline.yaml --cluster localhost:8081"))
def status(pipeline: _Pipeline, *, cluster: _Cluster = "localhost:8081") -> None:
    """Show a pipeline on a cluster: state, last checkpoint, last failure."""
    from jobs.flink.commands import tell_status

    for line in tell_status(pipeline, cluster=cluster):
        say(line)
