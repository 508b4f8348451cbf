"""What ``streamad flink`` does with its arguments."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

from connectors.flink.rest import FlinkRest
from jobs.console import say, status
from jobs.flink.plan import job_name
from jobs.flink.run import run_here, run_on_cluster, stop_on_cluster
from jobs.logs import secrets_of, setup_logs
from jobs.settings import environment, kafka_settings, read_settings
from streamad.config import PipelineConfig, load_pipeline


def run_pipeline(
    pipeline: Path, *, cluster: str | None, parallelism: int | None, start_from: str
) -> None:
    """Run a pipeline here or on a cluster."""
    given = environment()
    settings = read_settings(given)
    setup_logs(settings.log_format, level=settings.log_level, secrets=secrets_of(given))
    config = _with_parallelism(load_pipeline(pipeline, environment=given), parallelism)
    kafka = kafka_settings(given)
    if cluster is not None:
        with status(f"submitting {config.name}"):
            job = run_on_cluster(config, kafka, cluster=cluster, start_from=start_from)
        say(f"{job.name} runs as {job.id}; alerts: streamad run --role alert {pipeline}")
        return
    say(f"{config.name} starts on Flink in this process; this takes about 20 s")
    with _stopping() as stop:
        saved = run_here(
            config,
            kafka,
            start_from=start_from,
            stop=stop.is_set,
            started=lambda url: say(f"{config.name} runs; Flink's web page is at {url}"),
        )
    if saved is None:
        say("stopped before the job ran; the next start resumes from the same place")
    else:
        say(f"stopped; the next start resumes from {saved}")


def stop_pipeline(pipeline: Path, *, cluster: str) -> str:
    """Stop a pipeline; return its savepoint."""
    config = load_pipeline(pipeline, environment=environment())
    with status(f"stopping {config.name}"):
        return stop_on_cluster(config, cluster=cluster)


def tell_status(pipeline: Path, *, cluster: str) -> Iterator[str]:
    """Yield lines about the pipeline's newest job."""
    config = load_pipeline(pipeline, environment=environment())
    rest = FlinkRest(cluster)
    jobs = rest.jobs(job_name(config))
    if not jobs:
        yield f"{job_name(config)} never ran on {rest.url}"
        return
    job = jobs[0]
    yield f"{job.name}: {job.state}, as {job.id}"
    if saved := rest.last_checkpoint(job.id):
        age_s = time.time() - saved.at_ms / 1000
        yield (
            f"last checkpoint: {age_s:.0f} s ago, took {saved.duration_ms} ms, "
            f"{saved.size_bytes / 1e6:.1f} MB, {saved.path}"
        )
    if failures := rest.failures(job.id):
        yield f"last failure: {failures[0]}"


def _with_parallelism(config: PipelineConfig, parallelism: int | None) -> PipelineConfig:
    if parallelism is None:
        return config
    # Validated as the file would be.
    tree = config.model_dump(mode="json")
    tree["flink"]["parallelism"] = parallelism
    return PipelineConfig.model_validate(tree)


@contextmanager
def _stopping() -> Iterator[threading.Event]:
    """Yield an event that SIGTERM and SIGINT set."""
    stop = threading.Event()

    def handle(number: int, frame: FrameType | None) -> None:
        del number, frame
        stop.set()

    old = {number: signal.signal(number, handle) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield stop
    finally:
        for number, handler in old.items():
            signal.signal(number, handler)
