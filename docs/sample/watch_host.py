"""Watch the processes this machine starts and its connections, and print alerts; Ctrl-C ends it."""

from __future__ import annotations

import contextlib
import socket
import time
from itertools import count, islice
from pathlib import Path

from connectors.host import Connections, ProcessStarts
from jobs.build import build_detect
from streamad.config import load_pipeline
from streamad.runtime.embedded import EmbeddedPipeline


def pipeline(name: str) -> EmbeddedPipeline:
    """Return a pipeline of this folder, in memory."""
    config = load_pipeline(Path(__file__).with_name(name), environment={})
    return EmbeddedPipeline(config, build_detect(config), lambda: time.time_ns() // 1_000_000)


def main(readings: int | None = None) -> list[EmbeddedPipeline]:
    """Read until interrupted, or so many times; return the pipelines."""
    starts, connections = pipeline("host-starts.yaml"), pipeline("host-connections.yaml")
    host, fields = socket.gethostname(), starts.config.input.fields
    watched = [
        # The first is waited for; the other is read when it is due.
        (starts, ProcessStarts(host=host, key=fields.key, fields=fields.categories)),
        (connections, Connections(host=host, key=connections.config.input.fields.key)),
    ]
    for _ in islice(count(), readings):
        for place, (one, source) in enumerate(watched):
            if place == 0 or source.is_due:
                for alert in one.feed(source.poll()):
                    print(alert.state, alert.summary, flush=True)  # noqa: T201 - its output
    return [one for one, _ in watched]


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        main()
