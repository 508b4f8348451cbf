"""``streamad flink``: the same pipelines on Apache Flink."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from jobs.console import say

flink = typer.Typer(
    name="flink",
    no_args_is_help=True,
    rich_markup_mode=None,
    help=(
        "Run the detect stage of a pipeline on Apache Flink. Alerts are made behind it by "
        "'streamad run --role alert'."
    ),
)

_Pipeline = Annotated[Path, typer.Argument(help="The pipeline file.", metavar="PIPELINE")]
_Cluster = Annotated[
    str, typer.Option(help="Where the cluster's REST interface answers, as HOST:PORT.")
]


def _examples(*lines: str) -> str:
    return "Examples:\n\n\b\n" + "\n".join(f"  {line}" for line in lines)


@flink.command(
    epilog=_examples(
        "streamad flink run pipeline.yaml                  # here, until Ctrl-C",
        "streamad flink run pipeline.yaml --cluster localhost:8081 --parallelism 2",
        "streamad flink run pipeline.yaml --cluster jm:8081 --from s3://state/savepoint-3f2a",
        "streamad flink run pipeline.yaml --from none      # forget what was learned",
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
        int | None, typer.Option(help="Slots to use; wins over flink.parallelism.")
    ] = None,
    start_from: Annotated[
        str,
        typer.Option(
            "--from",
            help=(
                "Where to go on: the 'latest' savepoint or checkpoint, else where the plain job "
                "stopped; a savepoint's folder or URL; 'plain'; or 'none'."
            ),
        ),
    ] = "latest",
) -> None:
    """Run a pipeline on Flink: here until told to stop, or on a cluster.

    Here, Ctrl-C (or SIGTERM) stops with a savepoint, and the next run goes on from it. On a cluster
    the command returns once the job has made its first checkpoint, or tells why it cannot.

    The first time, it takes over from the plain job ('streamad run'), which must have been stopped:
    from its offsets, with all it has learned. 'none' forgets all that and begins at input.start.

    Needs the extra 'flink', Java 17 and the Kafka connector: 'make setup-flink' gets them.
    """
    from jobs.flink_commands import run_pipeline

    run_pipeline(pipeline, cluster=cluster, parallelism=parallelism, start_from=start_from)


@flink.command(epilog=_examples("streamad flink stop pipeline.yaml --cluster localhost:8081"))
def stop(pipeline: _Pipeline, *, cluster: _Cluster = "localhost:8081") -> None:
    """Stop a pipeline on a cluster with a savepoint, and print where that is."""
    from jobs.flink_commands import stop_pipeline

    typer.echo(stop_pipeline(pipeline, cluster=cluster))


@flink.command(epilog=_examples("streamad flink status pipeline.yaml --cluster localhost:8081"))
def status(pipeline: _Pipeline, *, cluster: _Cluster = "localhost:8081") -> None:
    """Tell how a pipeline fares on a cluster: state, last checkpoint, last failure."""
    from jobs.flink_commands import tell_status

    for line in tell_status(pipeline, cluster=cluster):
        say(line)
