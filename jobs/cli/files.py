"""Commands that need no pipeline: score a file, fit a detector, list the detectors."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from jobs.cli.options import (
    Columns,
    Count,
    Fields,
    File,
    GraphFolder,
    Joint,
    Key,
    Label,
    Labels,
    Normal,
    Params,
    Plot,
    Size,
    Time,
    examples,
    listed,
    names,
    parameters,
)

commands = typer.Typer()


@commands.command(
    epilog=examples(
        "streamad score cpu.csv -o scores.csv --plot cpu.html",
        "streamad score cpu.parquet --detector knn --columns v0 --train-end 2000 -o scores.parquet",
        "streamad score hosts.csv --key host --time ts --artifact models/hosts -o scores.jsonl",
        "streamad score logins.csv --artifact models/logins -o scores.csv",
        "streamad score flows.csv --detector edge_stream --fields src,dst -o scores.csv",
        "streamad score labelled.csv --label is_anomaly --train-end 2000 -o scores.csv",
    )
)
def score(  # noqa: PLR0913 - one argument an option
    file: File,
    *,
    detector: Annotated[
        str | None, typer.Option("--detector", "-d", help="The detector; default: auto.")
    ] = None,
    artifact: Annotated[
        str | None, typer.Option(help="A fitted detector: directory or URL (see 'streamad fit').")
    ] = None,
    columns: Columns = "",
    time: Time = None,
    key: Key = None,
    joint: Joint = False,
    fields: Fields = "",
    label: Label = None,
    train_end: Annotated[
        int | None,
        typer.Option(help="Fit on the rows before this one; later rows are scored as a stream."),
    ] = None,
    size: Size = None,
    params: Params = None,
    out: Annotated[
        str, typer.Option("--out", "-o", help="CSV, Parquet or JSON lines by suffix; '-': CSV out.")
    ] = "-",
    plot: Plot = None,
    graphs: GraphFolder = None,
) -> None:
    """Score a file, row by row, exactly as it would be scored live.

    The output has one row for every input row (and column, where each is a series), in the same
    order: row, time, score (higher is more anomalous), p_value (how rare such a score is), severity
    (1.0 and more alerts), alert (an alert was open), incomplete (no window scored this row: it has
    its series' last score). Where nothing could be scored, the exit code is 1.

    No score uses the future: the score of row t uses no row after t + lag. The lag (at most one
    window; 'streamad detectors' lists it) is printed.

    With a column of labels (--label, or one with a usual name) the figures of 'streamad evaluate'
    are printed too: how well scores rank, and what the alerts found. Of events and edges these are
    AUC-ROC, AUC-PR, and the labelled rows that lie in an alert.
    """
    from jobs.commands import score_file
    from jobs.offline.item_files import Asked

    score_file(
        file,
        out=out,
        detector=detector,
        artifact=artifact,
        columns=listed(columns),
        time=time,
        key=names(key),
        joint=joint,
        train_end=train_end,
        size=size,
        params=parameters(params),
        plot=plot,
        graphs=graphs,
        asked=Asked(fields=listed(fields), label=label),
    )


@commands.command(
    epilog=examples(
        "streamad fit auto lastmonth.parquet --key host -o models/hosts",
        "streamad fit pca pumps.csv --columns flow,pressure,heat --size 96 -o models/pumps",
        "streamad fit ape logins.csv --count count --label label --normal ok -o models/logins",
        "streamad fit rqgnn graphs/ --normal 1 -o models/graphs",
        "streamad fit knn week.jsonl --pipeline pipeline.yaml --feedback answers.jsonl -o models/k",
        "streamad fit ape --pipeline pipeline.yaml --last 14d -o models/audit",
        "streamad fit rqgnn --pipeline calls.yaml --last 30d --feedback calls.yaml -o models/calls",
        "streamad fit lof history.jsonl --pipeline pipeline.yaml -o s3://models/checkout",
    )
)
def fit(  # noqa: PLR0913 - one argument an option
    detector: Annotated[str, typer.Argument(help="The detector; 'streamad detectors' lists them.")],
    source: Annotated[
        str | None,
        typer.Argument(
            help="A file as 'streamad score' reads it. With --pipeline also a topic; left out: the "
            "pipeline's topics.",
            metavar="[SOURCE]",
        ),
    ] = None,
    *,
    out: Annotated[str, typer.Option("--out", "-o", help="Directory or URL to write to.")],
    columns: Columns = "",
    time: Time = None,
    key: Key = None,
    joint: Joint = False,
    fields: Fields = "",
    count: Count = None,
    label: Label = None,
    labels: Labels = None,
    normal: Normal = None,
    size: Size = None,
    params: Params = None,
    pipeline: Annotated[
        Path | None,
        typer.Option(help="Read the file or topic as this pipeline does, and fit for it."),
    ] = None,
    last: Annotated[
        str | None,
        typer.Option(help="Topics: fit on rows of this time until now, as 14d or 36h."),
    ] = None,
    rows: Annotated[
        int | None,
        typer.Option(help="Topics: fit on so many rows at most, the newest. Default: 5 million."),
    ] = None,
    licence: Annotated[str, typer.Option(help="Licence of the data, kept in the artifact.")] = "",
    feedback: Annotated[
        Path | None,
        typer.Option(
            help="Answers, as 'streamad alerts answers' writes them, or the pipeline or alerting "
            "file whose feedback topic has them: periods answered as real or expected are not "
            "learned, false positives are. Detectors of labelled graphs take them for labels."
        ),
    ] = None,
) -> None:
    """Fit a detector on ordinary data of a file or of topics, and keep it as an artifact.

    Topics are read committed, up to where they end now; KAFKA_BOOTSTRAP_SERVERS names the cluster.

    The tail (how high scores are on ordinary data) is measured out of sample: on the last third of
    each series, after a fit on the rest. Set the artifact as detector.artifact in a pipeline, or
    pass it to 'streamad score --artifact'.
    """
    from jobs.fit_commands import Recent, fit_file
    from jobs.offline.item_files import Asked

    fit_file(
        detector,
        source,
        out=out,
        columns=listed(columns),
        time=time,
        key=names(key),
        joint=joint,
        size=size,
        params=parameters(params),
        pipeline=pipeline,
        licence=licence,
        asked=Asked(fields=listed(fields), count=count, label=label, normal=normal),
        labels=labels,
        feedback=feedback,
        recent=Recent(last=last, rows=rows),
    )


@commands.command(
    short_help="List the detectors with their needs and costs.",
    epilog=examples("streamad detectors", "streamad detectors --json | jq '.[].name'"),
)
def detectors(
    *,
    as_json: Annotated[bool, typer.Option("--json", help="Machine-readable.")] = False,
) -> None:
    """List the detectors with their input, needs, costs and lag."""
    from jobs.catalogue import print_detectors

    print_detectors(as_json=as_json)
