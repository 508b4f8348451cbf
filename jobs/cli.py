"""The ``streamad`` command: arguments in, one call out; whatever is heavy is imported on the way.

Results go to standard output, everything else to standard error. Exit codes: 0 done, 1 it failed
while running or nothing was judged, 2 the command or a configuration is wrong and nothing was
started.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from jobs.flink.cli import flink

app = typer.Typer(
    name="streamad",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    help=("Watch Kafka topics and report anomalies, with the reason, in time to act."),
    epilog=(
        "Start here:\n\n\b\n"
        "  streamad demo                                    see an alert in a minute, no broker\n"
        "  streamad score metrics.csv -o scores.csv         score a file you have\n"
        "  streamad init metrics -o pipeline.yaml           write a pipeline for a topic or file\n"
        "  streamad validate pipeline.yaml                  check a pipeline before you run it\n"
        "  streamad run pipeline.yaml                       run it"
    ),
)


def _examples(*lines: str) -> str:
    return "Examples:\n\n\b\n" + "\n".join(f"  {line}" for line in lines)


# --- scoring and fitting ------------------------------------------------------------------------

_File = Annotated[
    Path,
    typer.Argument(
        help="CSV of any kind, JSON lines, Parquet, or JSON as a monitoring tool answers; gzipped "
        "or not.",
        metavar="FILE",
    ),
]
_Columns = Annotated[
    str, typer.Option(help="Columns to score, as a,b,c. Default: all numeric ones except labels.")
]
_Time = Annotated[
    str | None,
    typer.Option(
        help="Column of times, or 'row' for the row number. Default: a column with a usual name."
    ),
]
_Key = Annotated[
    list[str] | None,
    typer.Option(
        help="Column that names the series of a row. Repeatable: several name it together. "
        "Default: a column with a usual name, or those of texts where times repeat."
    ),
]
_Joint = Annotated[
    bool,
    typer.Option(
        "--joint", help="Take all columns for one series, not each for a series of its own."
    ),
]
_Plot = Annotated[
    Path | None,
    typer.Option(help="Draw the series, their severity and alerts: .html or .svg."),
]
_Size = Annotated[
    int | None, typer.Option(help="Samples per window. Default: the period of the training part.")
]
_Params = Annotated[
    list[str] | None,
    typer.Option("--params", "-p", help="A parameter of the detector, as name=value. Repeatable."),
]


@app.command(
    epilog=_examples(
        "streamad score cpu.csv -o scores.csv --plot cpu.html",
        "streamad score cpu.parquet --detector knn --columns v0 --train-end 2000 -o scores.parquet",
        "streamad score hosts.csv --key host --time ts --artifact models/hosts -o scores.jsonl",
    )
)
def score(  # noqa: PLR0913 - one argument an option
    file: _File,
    *,
    detector: Annotated[
        str | None, typer.Option("--detector", "-d", help="The detector; default: knn_fused.")
    ] = None,
    artifact: Annotated[
        str | None, typer.Option(help="A fitted detector: directory or URL (see 'streamad fit').")
    ] = None,
    columns: _Columns = "",
    time: _Time = None,
    key: _Key = None,
    joint: _Joint = False,
    train_end: Annotated[
        int | None,
        typer.Option(help="Fit on the rows before this one; later rows are scored as a stream."),
    ] = None,
    size: _Size = None,
    params: _Params = None,
    out: Annotated[
        str, typer.Option("--out", "-o", help="CSV, Parquet or JSON lines by suffix; '-': CSV out.")
    ] = "-",
    plot: _Plot = None,
) -> None:
    """Score a file, row by row, exactly as it would be scored live.

    The output has one row for every input row (and column, where each is a series), in the same
    order: row, time, score (higher is more anomalous), p_value (how rare such a score is), severity
    (1.0 and more alerts), alert (an alert was open), incomplete (no window scored this row: it has
    its series' last score). Where nothing could be scored, the exit code is 1.

    No score uses the future: the score of row t uses no row after t + lag. The lag (at most one
    window; 'streamad detectors' lists it) is printed.
    """
    from jobs.commands import score_file

    score_file(
        file,
        out=out,
        detector=detector,
        artifact=artifact,
        columns=_listed(columns),
        time=time,
        key=_names(key),
        joint=joint,
        train_end=train_end,
        size=size,
        params=_parameters(params),
        plot=plot,
    )


@app.command(
    epilog=_examples(
        "streamad fit knn_fused lastmonth.parquet --key host -o models/hosts",
        "streamad fit pca pumps.csv --columns flow,pressure,heat --size 96 -o models/pumps",
        "streamad fit lof history.jsonl --pipeline pipeline.yaml -o s3://models/checkout",
    )
)
def fit(  # noqa: PLR0913 - one argument an option
    detector: Annotated[str, typer.Argument(help="The detector; 'streamad detectors' lists them.")],
    train: _File,
    *,
    out: Annotated[str, typer.Option("--out", "-o", help="Directory or URL to write to.")],
    columns: _Columns = "",
    time: _Time = None,
    key: _Key = None,
    joint: _Joint = False,
    size: _Size = None,
    params: _Params = None,
    pipeline: Annotated[
        Path | None,
        typer.Option(help="Read the file as this pipeline does, and fit for it."),
    ] = None,
    licence: Annotated[str, typer.Option(help="Licence of the data, kept in the artifact.")] = "",
) -> None:
    """Fit a detector on ordinary data and keep it as an artifact.

    The tail (how high scores are on ordinary data) is measured out of sample: on the last third of
    each series, after a fit on the rest. Set the artifact as detector.artifact in a pipeline, or
    pass it to 'streamad score --artifact'.
    """
    from jobs.commands import fit_file

    fit_file(
        detector,
        train,
        out=out,
        columns=_listed(columns),
        time=time,
        key=_names(key),
        joint=joint,
        size=size,
        params=_parameters(params),
        pipeline=pipeline,
        licence=licence,
    )


@app.command(
    short_help="List the detectors with their needs and costs.",
    epilog=_examples("streamad detectors", "streamad detectors --json | jq '.[].name'"),
)
def detectors(
    *,
    as_json: Annotated[bool, typer.Option("--json", help="Machine-readable.")] = False,
) -> None:
    """List the detectors with their input, needs, costs and lag."""
    from jobs.catalogue import print_detectors

    print_detectors(as_json=as_json)


# --- pipelines ----------------------------------------------------------------------------------

_Pipeline = Annotated[Path, typer.Argument(help="The pipeline file, YAML.", metavar="PIPELINE")]


@app.command(
    short_help="Write a first pipeline for a file or a topic.",
    epilog=_examples(
        "streamad init metrics.csv -o pipeline.yaml",
        "streamad init metrics -o pipeline.yaml       # a topic of KAFKA_BOOTSTRAP_SERVERS",
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
) -> None:
    """Look at a file or a topic, and write a pipeline for it.

    The format, the fields, the unit of times, the time between readings and what repeats are
    found in the data; comments in the file give the reasons. Read it before you run it.
    """
    from jobs.init import init_pipeline

    init_pipeline(source, out=out, name=name)


@app.command(
    short_help="Check a pipeline file, and print what it would run.",
    epilog=_examples(
        "streamad validate pipeline.yaml",
        "streamad validate pipeline.yaml --online          # also checks the broker",
        "TOPIC=metrics streamad validate pipeline.yaml     # ${TOPIC} in the file is replaced",
    ),
)
def validate(
    pipeline: _Pipeline,
    *,
    online: Annotated[
        bool,
        typer.Option("--online", help="Also check the topics on the broker: sizes, retention."),
    ] = False,
) -> None:
    """Check a pipeline file, and print its settings, topics, memory and detector.

    Every error names the line, the expected value and the nearest right name. Secrets are not
    printed.
    """
    from jobs.validate import validate_pipeline

    validate_pipeline(pipeline, online=online)


@app.command(
    short_help="Replay a file or a topic: which alerts would have fired?",
    epilog=_examples(
        "streamad backtest pipeline.yaml lastmonth.jsonl -o alerts.jsonl",
        "streamad backtest pipeline.yaml lastmonth.csv -o alerts.csv --plot alerts.html",
        "streamad backtest pipeline.yaml metrics --from 2026-03-01 --to 2026-03-08 -o alerts.jsonl",
    ),
)
def backtest(  # noqa: PLR0913 - one argument an option
    pipeline: _Pipeline,
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
    plot: _Plot = None,
    joint: _Joint = False,
) -> None:
    """Replay a file or a topic through a pipeline, and report which alerts would have fired.

    The same code runs over the same rows as live, so each replay returns the same alerts, however
    the rows are batched. The report shows alerts per day, the longest and the flapping ones: read
    it before the pipeline pages anyone.
    """
    from jobs.offline.backtest import Outputs, backtest_pipeline

    files = Outputs(alerts=out, scores=scores, findings=findings, plot=plot)
    backtest_pipeline(pipeline, source, begin=begin, end=end, files=files, joint=joint)


@app.command(
    short_help="Run a pipeline until it is stopped.",
    epilog=_examples(
        "streamad run pipeline.yaml",
        "streamad run pipeline.yaml --role detect --health-port 8080 --log-format json",
        "KAFKA_BOOTSTRAP_SERVERS=broker:9092 streamad run pipeline.yaml --strict",
    ),
)
def run(
    pipeline: _Pipeline,
    *,
    role: Annotated[
        str,
        typer.Option(
            help="detect, alert, or both in one process; rekey alone, before a job on Flink.",
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
    run_pipeline(pipeline, role=role, strict=strict, options=options)


@app.command(
    short_help="Show why a window alerted, or did not.",
    epilog=_examples(
        "streamad explain web-1/cpu pipeline.yaml --at 2026-03-01T12:00:00Z",
        "streamad backtest pipeline.yaml week.csv -o a.jsonl --scores s.parquet --findings f.jsonl",
        "streamad explain web-1/cpu --scores s.parquet --findings f.jsonl --alerts a.jsonl "
        "--at 2026-03-01T12:00:00Z",
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
) -> None:
    """Show the score and the decision for one window of a series, and why it alerted or did not.

    It reads the scores log: the decision of that time, not the one of today's settings.
    """
    from jobs.explain.command import explain_window

    explain_window(
        key, pipeline, at=at, scores=scores, findings=findings, alerts=alerts, to_json=as_json
    )


topics = typer.Typer(help="Create the topics of a pipeline.", no_args_is_help=True)
app.add_typer(topics, name="topics", epilog=_examples("streamad topics create pipeline.yaml"))


@topics.callback()
def _topics() -> None:
    """Create the topics of a pipeline."""


@topics.command(epilog=_examples("streamad topics create pipeline.yaml"))
def create(pipeline: _Pipeline) -> None:
    """Create the output topics that are missing, with the settings they need.

    'streamad run' does the same at its start; this is for clusters where jobs have no right to.
    """
    from jobs.commands import make_topics

    make_topics(pipeline)


dlq = typer.Typer(help="Show dead-letter records, and replay them.", no_args_is_help=True)
app.add_typer(dlq, name="dlq", epilog=_examples("streamad dlq show pipeline.yaml"))


@dlq.command(
    epilog=_examples(
        "streamad dlq show pipeline.yaml",
        "streamad dlq show pipeline.yaml --limit 3 --payloads",
    )
)
def show(
    pipeline: _Pipeline,
    *,
    limit: Annotated[int, typer.Option(help="How many of the newest records to show.", min=0)] = 10,
    payloads: Annotated[bool, typer.Option("--payloads", help="Show the payloads.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Machine-readable.")] = False,
) -> None:
    """Show unusable input: how often, and why."""
    from jobs.dlq.commands import show_letters

    show_letters(pipeline, limit=limit, to_json=as_json, payloads=payloads)


@dlq.command(
    epilog=_examples(
        "streamad dlq replay pipeline.yaml --dry-run",
        "streamad dlq replay pipeline.yaml --reason bad_time",
    )
)
def replay(
    pipeline: _Pipeline,
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

    Fix the cause first: a record that fails again returns with its attempt count raised.
    """
    from jobs.dlq.commands import replay_letters

    replay_letters(pipeline, reason=reason, limit=limit, dry_run=dry_run, max_attempts=max_attempts)


app.add_typer(flink, name="flink", epilog=_examples("streamad flink run pipeline.yaml"))


@app.command(
    short_help="See an alert in a minute: no broker, no file, this machine.",
    epilog=_examples("streamad demo", "streamad demo --keep-going --out alerts.jsonl"),
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
    """Watch this machine, disturb it on purpose, and show the alert and its end.

    Nothing is staged: the readings are the machine's own and the disturbance is real work.
    """
    from jobs.demo.play import run_demo

    return run_demo(
        seconds=seconds,
        keep_going=keep_going,
        no_disturbance=no_disturbance,
        out=out,
        picture=picture,
    )


@app.command(epilog=_examples("streamad version"))
def version() -> None:
    """Print the version."""
    from importlib.metadata import version as version_of

    typer.echo(f"streamad {version_of('streamad-pipeline')}")


# --- the door -----------------------------------------------------------------------------------


def _names(given: list[str] | None) -> list[str]:
    """Return the names of an option that may be repeated, or hold several with commas between."""
    return list(dict.fromkeys(name for text in given or [] for name in _listed(text)))


def _listed(text: str) -> list[str]:
    return [part.strip() for part in text.split(",") if part.strip()]


def _parameters(given: list[str] | None) -> dict[str, Any]:
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


# Typer brings its own copy of click from some version on; both know usage errors by this class.
_ClickError = typer.BadParameter.__mro__[2]


def main(arguments: list[str] | None = None) -> int:
    """Run the command; return its exit code, after printing any error in one line."""
    try:
        code = app(args=arguments, prog_name="streamad", standalone_mode=False)
        sys.stdout.flush()
        return int(code or 0)
    except (KeyboardInterrupt, typer.Abort):
        return _told("interrupted", 130)
    except BrokenPipeError:
        # Whoever read our output has seen enough; the interpreter must not complain at exit either.
        sys.stderr.close()
        return 1
    except Exception as error:
        if os.environ.get("STREAMAD_DEBUG", "") not in {"", "0", "false"}:
            raise
        return _failed(error)


def _failed(error: Exception) -> int:
    from streamad.errors import ArtifactError, ConfigError, StreamadError

    if isinstance(error, _ClickError):
        shown: Any = error
        context = getattr(shown, "ctx", None)
        hint = f"; see: {context.command_path} --help" if context is not None else ""
        # No arguments at all: click has printed the help already.
        if type(error).__name__ == "NoArgsIsHelpError":
            typer.echo(shown.format_message(), err=True)
            return 2
        return _told(f"{str(shown.format_message()).rstrip('.')}{hint}", 2)
    if isinstance(error, ConfigError | ArtifactError):
        return _told(str(error), 2)
    if isinstance(error, StreamadError | OSError):
        return _told(str(error), 1)
    name = type(error).__name__
    return _told(f"unexpected {name}: {error}; STREAMAD_DEBUG=1 shows where", 1)


def _told(text: str, code: int) -> int:
    # What failed may have repeated a URL, an option or a record; this is where it is shown.
    from jobs.console import displayable

    for line in displayable(text).splitlines() or [""]:
        sys.stderr.write(f"streamad: error: {line}\n")
    return code


if __name__ == "__main__":
    raise SystemExit(main())
