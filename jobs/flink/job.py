"""What Flink is given to run: ``flink run -pym jobs.flink.job pipeline.yaml``; FlinkDeployment too.

The cluster decides where checkpoints go and what is restored (``execution.checkpointing.dir``,
``execution.state-recovery.path``). Where it restores nothing, the job takes over from the plain one
if that ever ran; a second argument, ``none``, has it begin anew instead.
"""

from __future__ import annotations

import sys
from pathlib import Path

from jobs.flink.run import LATEST, NONE, PLAIN, run_submitted
from jobs.logs import secrets_of, setup_logs
from jobs.settings import environment, kafka_settings, read_settings
from streamad.config import load_pipeline
from streamad.errors import StreamadError


def main(arguments: list[str]) -> int:
    """Run the pipeline of a file; return the exit code, having told any error in one line."""
    given = environment()
    settings = read_settings(given)
    setup_logs(settings.log_format, level=settings.log_level, secrets=secrets_of(given))
    start_from = arguments[1] if len(arguments) > 1 else LATEST
    if len(arguments) not in (1, 2) or start_from not in (LATEST, NONE, PLAIN):
        sys.stderr.write(
            "streamad: error: give a pipeline file, and after it nothing or one of "
            f"{LATEST}, {NONE}, {PLAIN}; a savepoint is named to Flink\n"
        )
        return 2
    try:
        config = load_pipeline(Path(arguments[0]), environment=given)
        run_submitted(config, kafka_settings(given), start_from=start_from)
    except StreamadError as error:
        sys.stderr.write(f"streamad: error: {error}\n")
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
