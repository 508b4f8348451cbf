"""Commands that compare detectors on labelled series."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from jobs.cli.options import Columns, examples, listed

commands = typer.Typer()


@commands.command(
    short_help="Compare detectors, and simple baselines, on labelled series.",
    epilog=examples(
        "streamad evaluate NAB/ -o nab",
        "streamad evaluate TSB-AD-U/ -d knn_fused -d themis --sample 50 -o tsb",
        "streamad evaluate signals/ --sets nab,aiops --columns v0 -d knn:k=5 -o out",
        "streamad evaluate labelled.csv --label is_anomaly --train-end 2000 -o out",
    ),
)
def evaluate(  # noqa: PLR0913 - one argument an option
    data: Annotated[
        Path,
        typer.Argument(
            help="A folder of labelled series, or one file; 'streamad datasets' shows layouts.",
            metavar="DATA",
        ),
    ],
    *,
    detector: Annotated[
        list[str] | None,
        typer.Option(
            "--detector",
            "-d",
            help="A detector, with parameters as name:param=value,param=value. Repeatable. "
            "Default: auto.",
        ),
    ] = None,
    out: Annotated[
        Path,
        typer.Option("--out", "-o", help="Folder for results.jsonl, summary.json, report.html."),
    ] = Path("evaluation"),
    reference: Annotated[
        str | None,
        typer.Option(help="The detector others are compared with. Default: knn_raw."),
    ] = None,
    baselines: Annotated[
        str | None,
        typer.Option(help="Baselines, as a,b,c; random and abs_z always run. Default: all."),
    ] = None,
    layout: Annotated[
        str, typer.Option(help="How files are laid: auto, index, nab, tsb-ad or plain.")
    ] = "auto",
    sets: Annotated[str, typer.Option(help="Only these sets (folders, sources), as a,b,c.")] = "",
    sample: Annotated[
        int | None,
        typer.Option(help="So many series, drawn in turn from each set, with --seed."),
    ] = None,
    max_rows: Annotated[
        int | None, typer.Option(help="Leave longer series out, before any are drawn.")
    ] = None,
    seed: Annotated[int, typer.Option(help="Of the drawing.")] = 0,
    columns: Columns = "",
    label: Annotated[
        str | None, typer.Option(help="Column of labels, 0 and 1. Default: a usual name.")
    ] = None,
    time: Annotated[
        str | None, typer.Option(help="Column of times, or 'row'. Default: a usual name.")
    ] = None,
    train_end: Annotated[
        int | None,
        typer.Option(
            help="Rows of each series that may be learned; 0: none. Default: the layout's."
        ),
    ] = None,
    size: Annotated[
        int | None,
        typer.Option(help="Samples per window. Default: the period of each training part."),
    ] = None,
    jobs: Annotated[int | None, typer.Option(help="Processes. Default: one per core.")] = None,
    fresh: Annotated[
        bool, typer.Option("--fresh", help="Run everything again, results there or not.")
    ] = False,
) -> None:
    """Run detectors over labelled series, each through exactly the code that scores live.

    A detector is fitted on the rows before train_end, or on nothing; later rows are scored as a
    stream and count. Two tables come out: how well scores rank (VUS-PR, VUS-ROC, AUC-PR, AUC-ROC),
    and what alerts are worth (anomalies found and how soon, against the share that the same alerts
    would find by chance; alerts and false alerts per week; calibration; the score of the Numenta
    benchmark). Nothing is adjusted to labels. Simple baselines run beside it. The page has
    intervals over series, differences from the reference, and pictures.

    Results are kept as they come: the same command resumes where it was stopped.
    """
    from jobs.evaluate.command import Asked
    from jobs.evaluate.command import evaluate as run

    run(
        Asked(
            data=data,
            out=out,
            detectors=detector or (),
            baselines=None if baselines is None else listed(baselines),
            reference=reference,
            layout=layout,
            sets=listed(sets),
            sample=sample,
            max_rows=max_rows,
            seed=seed,
            columns=listed(columns),
            label=label,
            time=time,
            train_end=train_end,
            size=size,
            jobs=jobs,
            fresh=fresh,
        )
    )


@commands.command(
    short_help="List public sets of labelled series, and how to lay their files.",
    epilog=examples("streamad datasets", "streamad datasets --json | jq '.datasets[].origin'"),
)
def datasets(
    *,
    as_json: Annotated[bool, typer.Option("--json", help="Machine-readable.")] = False,
) -> None:
    """List labelled series for evaluate: where they come from, their licence, their layout."""
    from jobs.evaluate.catalogue import print_datasets

    print_datasets(as_json=as_json)
