"""The ``streamad`` command: arguments in, one call out; whatever is heavy is imported on the way.

Results go to standard output, everything else to standard error. Exit codes: 0 done, 1 it failed
while running or nothing was judged, 2 the command or a configuration is wrong and nothing was
started.
"""

from __future__ import annotations

import os
import sys
from typing import Any

import typer

from jobs.cli import (
    alerts,
    demo,
    evaluate,
    files,
    flink,
    pipelines,
    pretrain,
    topics,
    triage,
)
from jobs.cli.options import examples

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
        "  streamad demo                                    see alerts in a minute, no broker\n"
        "  streamad score metrics.csv -o scores.csv         score a file you have\n"
        "  streamad init metrics -o pipeline.yaml           write a pipeline for a topic or file\n"
        "  streamad validate pipeline.yaml                  check a pipeline before you run it\n"
        "  streamad run pipeline.yaml                       run it"
    ),
)
# In the order of the help.
app.registered_commands = [
    *files.commands.registered_commands,
    *evaluate.commands.registered_commands,
    *pipelines.commands.registered_commands,
    *demo.commands.registered_commands,
]
app.add_typer(alerts.alerts, name="alerts", epilog=examples("streamad alerts list pipeline.yaml"))
app.add_typer(alerts.budget, name="budget", epilog=examples("streamad budget show pipeline.yaml"))
app.add_typer(topics.topics, name="topics", epilog=examples("streamad topics create pipeline.yaml"))
app.add_typer(topics.dlq, name="dlq", epilog=examples("streamad dlq show pipeline.yaml"))
app.add_typer(triage.triage, name="triage", epilog=examples("streamad triage groups alerts.jsonl"))
app.add_typer(flink.flink, name="flink", epilog=examples("streamad flink run pipeline.yaml"))
app.add_typer(
    pretrain.pretrain, name="pretrain", epilog=examples("streamad pretrain timercd -o models/rcd")
)
app.add_typer(
    pretrain.corpus, name="corpus", epilog=examples("streamad corpus draw -o corpus.html")
)

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
