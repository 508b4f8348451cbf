"""Commands around a pipeline: write, check, replay and run it, and explain what it decided."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from jobs.cli.options import GraphFolder, Joint, Pipeline, Plot, examples

commands = typer.Typer()


@commands.command(
    short_help="Write a first pipeline for a file or a topic.",
    epilog=examples(
        "streamad init metrics.csv -o pipeline.yaml",
        "streamad init metrics -o pipeline.yaml       # a topic of KAFKA_BOOTSTRAP_SERVERS",
        "streamad init flows.csv --records edges -o pipeline.yaml",
    ),
)
def init(
    source: Annotated[
        str,
        typer.Argument(help="A file of any kind that 'score' reads, or a topic.", metavar="SOURCE"),
    ],
    *,
    out: Annotated[
        str,
        typer.Option("--out", "-o", help="The file to write; it must not exist. '-': print it."),
    ] = "-",
    name: Annotated[
        str | None, typer.Option(help="The pipeline's name. Default: that of the source.")
    ] = None,
    records: Annotated[
        str | None,
        typer.Option(
            help="What its records hold: signals, events or edges. Default: what they look like."
        ),
    ] = None,
) -> None:
    """Look at a file or a topic, and write a pipeline for it.

    What records hold, the format, the fields, the unit of times, the time between readings and what
    repeats are found in the data; comments in the file give the reasons. Read it before you run it.
    """
    from jobs.init import init_pipeline

    init_pipeline(source, out=out, name=name, records=records)


@commands.command(
    short_help="Check a pipeline file, and print what it would run.",
    epilog=examples(
        "streamad validate pipeline.yaml",
        "streamad validate pipeline.yaml --online          # also checks the broker",
        "TOPIC=metrics streamad validate pipeline.yaml     # ${TOPIC} in the file is replaced",
    ),
)
def validate(
    pipeline: Pipeline,
    *,
    online: Annotated[
        bool,
        typer.Option("--online", help="Also check the topics on the broker: sizes, retention."),
    ] = False,
    source: Annotated[
        str | None,
        typer.Option(
            "--input",
            help="Also read this file, or the newest messages of this topic: how many rows can be "
            "used, and why others cannot, by field.",
            metavar="SOURCE",
        ),
    ] = None,
) -> None:
    """Check a pipeline file, and print its settings, topics, memory and detector.

    Every error names the line, the expected value and the nearest right name. Secrets are not
    printed.
    """
    from jobs.validate import validate_pipeline

    validate_pipeline(pipeline, online=online, source=source)


@commands.command(
    short_help="Replay a file or a topic: which alerts would have fired?",
    epilog=examples(
        "streamad backtest pipeline.yaml lastmonth.jsonl -o alerts.jsonl",
        "streamad backtest pipeline.yaml lastmonth.csv -o alerts.csv --plot alerts.html",
        "streamad backtest pipeline.yaml lastmonth.csv -o alerts.jsonl --report report.html",
        "streamad backtest pipeline.yaml metrics --from 2026-03-01 --to 2026-03-08 -o alerts.jsonl",
    ),
)
def backtest(  # noqa: PLR0913 - one argument an option
    pipeline: Pipeline,
    source: Annotated[
        str,
        typer.Argument(help="A file of any kind that 'score' reads, or a topic.", metavar="SOURCE"),
    ],
    *,
    begin: Annotated[
        str | None, typer.Option("--from", help="Start at this time: ISO 8601, or '7d ago'.")
    ] = None,
    end: Annotated[str | None, typer.Option("--to", help="End at this time.")] = None,
    out: Annotated[
        str,
        typer.Option("--out", "-o", help="Alerts, as JSON lines, CSV or Parquet; '-': JSON out."),
    ] = "-",
    scores: Annotated[
        Path | None, typer.Option(help="Write every window's score here, Parquet, for 'explain'.")
    ] = None,
    findings: Annotated[
        Path | None, typer.Option(help="Write the findings here, as JSON lines, for 'explain'.")
    ] = None,
    report: Annotated[
        list[Path] | None,
        typer.Option(
            help="Write what would page at several budgets, .html or .json. Repeatable.",
        ),
    ] = None,
    label: Annotated[
        str | None,
        typer.Option(help="With --report: the column that marks anomalies. Default: a usual name."),
    ] = None,
    alerting: Annotated[
        Path | None, typer.Option(help="An alerting file, in place of the pipeline's own alerts.")
    ] = None,
    plot: Plot = None,
    graphs: GraphFolder = None,
    joint: Joint = False,
) -> None:
    """Replay a file or a topic through a pipeline, and report which alerts would have fired.

    The same code runs over the same rows as live, so each replay returns the same alerts, however
    the rows are batched. --report compares budgets: how many pages per week would have come, what
    they would have found, what was withheld. Read it before the pipeline pages anyone.
    """
    from jobs.offline.backtest_command import Asked, Outputs, backtest_pipeline

    files = Outputs(
        alerts=out,
        scores=scores,
        findings=findings,
        plot=plot,
        graphs=graphs,
        reports=tuple(report or ()),
    )
    asked = Asked(begin=begin, end=end, joint=joint, label=label, alerting=alerting)
    backtest_pipeline(pipeline, source, asked=asked, files=files)


@commands.command(
    short_help="Check that an installed job works: file, cluster, round trip, readiness.",
    epilog=examples(
        "streamad check pipeline.yaml",
        "streamad check pipeline.yaml --url http://localhost:8080",
    ),
)
def check(
    file: Annotated[
        Path, typer.Argument(help="The pipeline or alerting file, YAML.", metavar="FILE")
    ],
    *,
    url: Annotated[
        str | None, typer.Option(help="Where the job serves /readyz; asked until it is ready.")
    ] = None,
    wait: Annotated[
        float, typer.Option(help="Seconds to wait for the job to be ready.", min=0, max=3600)
    ] = 60,
    round_trip: Annotated[
        bool,
        typer.Option(help="Write a record to streamad.<name>.check in a transaction, and read it."),
    ] = True,
) -> None:
    """Check a job from beside it, as 'helm test' does: read the file, ask the broker, ask the job.

    Nothing of the job is changed; the record of the round trip goes to a topic of its own, which is
    created if it is missing.
    """
    from jobs.check import check_job

    check_job(file, url=url, wait_s=wait, trip=round_trip)


@commands.command(
    short_help="Run a pipeline until it is stopped.",
    epilog=examples(
        "streamad run pipeline.yaml",
        "streamad run pipeline.yaml --role detect --health-port 8080 --log-format json",
        "KAFKA_BOOTSTRAP_SERVERS=broker:9092 streamad run pipeline.yaml --strict",
        "streamad run --alerting alerting.yaml             # alerts of several pipelines",
    ),
)
def run(  # noqa: PLR0913 - one argument an option
    pipeline: Annotated[
        Path | None, typer.Argument(help="The pipeline file, YAML.", metavar="[PIPELINE]")
    ] = None,
    *,
    alerting: Annotated[
        Path | None,
        typer.Option(help="An alerting file, in place of a pipeline: budgets, incidents, pagers."),
    ] = None,
    role: Annotated[
        str,
        typer.Option(
            help="detect, alert, or both in one process; rekey alone, before a job on Flink; page.",
            metavar="ROLE",
        ),
    ] = "both",
    strict: Annotated[
        bool, typer.Option("--strict", help="Fail at the start if the detector needs a fallback.")
    ] = False,
    health_port: Annotated[
        int | None, typer.Option(help="Serve /healthz, /readyz and /metrics on this port.")
    ] = None,
    log_format: Annotated[str | None, typer.Option(help="text or json.", metavar="FORMAT")] = None,
    log_level: Annotated[
        str | None, typer.Option(help="DEBUG, INFO, WARNING or ERROR.", metavar="LEVEL")
    ] = None,
) -> None:
    """Run a pipeline until SIGTERM or Ctrl-C; processed input is committed before it exits.

    KAFKA_BOOTSTRAP_SERVERS and other KAFKA_* variables set the cluster; a secret may be given as
    NAME_FILE, the path of a file that holds it. Start more processes to add members. Options
    override STREAMAD_HEALTH_PORT, STREAMAD_LOG_FORMAT and STREAMAD_LOG_LEVEL.
    """
    from jobs.commands import run_pipeline

    options = {"health_port": health_port, "log_format": log_format, "log_level": log_level}
    run_pipeline(pipeline, alerting=alerting, role=role, strict=strict, options=options)


@commands.command(
    short_help="Show why a window alerted, or did not.",
    epilog=examples(
        "streamad explain web-1/cpu pipeline.yaml --at 2026-03-01T12:00:00Z",
        "streamad backtest pipeline.yaml week.csv -o a.jsonl --scores s.parquet --findings f.jsonl",
        "streamad explain web-1/cpu --scores s.parquet --findings f.jsonl --alerts a.jsonl "
        "--at 2026-03-01T12:00:00Z",
        "streamad explain shop calls.yaml --at '10m ago' --picture shop.svg",
    ),
)
def explain(  # noqa: PLR0913 - one argument an option
    key: Annotated[str, typer.Argument(help="The series, as alerts name it.", metavar="KEY")],
    pipeline: Annotated[
        Path | None, typer.Argument(help="The pipeline file, YAML.", metavar="[PIPELINE]")
    ] = None,
    *,
    at: Annotated[
        str, typer.Option(help="Time: ISO 8601, milliseconds since 1970, '10m ago', 'now'.")
    ] = "now",
    scores: Annotated[
        Path | None, typer.Option(help="Read scores from a file instead of the topic.")
    ] = None,
    findings: Annotated[Path | None, typer.Option(help="Findings, as JSON lines.")] = None,
    alerts: Annotated[Path | None, typer.Option(help="Alerts, as JSON lines.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Machine-readable.")] = False,
    picture: Annotated[
        Path | None,
        typer.Option(help="Draw the graph here, .svg; what stands out is marked.", metavar="FILE"),
    ] = None,
    source: Annotated[
        str | None,
        typer.Option(
            "--input",
            help="The file or topic with the edges to draw. Default: the pipeline's topics.",
            metavar="SOURCE",
        ),
    ] = None,
) -> None:
    """Show the score and the decision for one window of a series, and why it alerted or did not.

    It reads the scores log: the decision of that time, not the one of today's settings. A picture
    of the graph is made of the input, as long as that is kept.
    """
    from jobs.explain.command import Wanted, explain_window

    explain_window(
        key,
        pipeline,
        at=at,
        scores=scores,
        findings=findings,
        alerts=alerts,
        wanted=Wanted(as_json=as_json, picture=picture, source=source),
    )
