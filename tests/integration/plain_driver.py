"""Run a pipeline as `streamad run` does, in a process that tests may kill."""

from __future__ import annotations

import os
import sys

from connectors.kafka.client import KafkaSettings
from jobs.logs import setup_logs
from jobs.plain.run import run
from streamad.config import load_pipeline
from streamad.errors import StreamadError


def main() -> int:
    setup_logs("text", level=os.environ.get("STREAMAD_LOG_LEVEL", "INFO"))
    config = load_pipeline(sys.argv[1], environment=os.environ)
    settings = KafkaSettings.from_environment(os.environ)
    try:
        run(config, settings, role=sys.argv[2], environment=os.environ)  # type: ignore[arg-type]
    except StreamadError as error:
        sys.stderr.write(f"{type(error).__name__}: {error}\n")
        return 3
    return 0


if __name__ == "__main__":
    sys.exit(main())
