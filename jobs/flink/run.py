"""Start, watch and stop the Flink job of a pipeline: in this process, or on a cluster."""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Callable
from pathlib import Path

import fsspec

from connectors.flink.rest import FlinkRest, JobSummary
from connectors.kafka.client import KafkaSettings
from jobs.flink.plan import STATE_DIR, checkpoint_dir, job_name, plan, why_no_flink
from jobs.flink.takeover import go_on_from, left_by_plain
from jobs.plain.frames import frames_of
from jobs.plain.preflight import require
from jobs.plain.topics import create_topics
from jobs.settings import environment
from streamad.config import PipelineConfig
from streamad.errors import ClusterError, ConfigError, StateError
from streamad.ports import Progress, Source
from streamad.testing.processes import free_ports

logger = logging.getLogger(__name__)

LATEST, NONE, PLAIN = "latest", "none", "plain"

_FATAL = ("StateError", "ConfigError", "ArtifactError", "OffsetOutOfRangeError")
"""Errors of ours that no restart mends: the job is cancelled, and the reason is told."""

_START_S = 180.0
_ENOUGH_FAILURES = 3
_POLL_S = 0.5


def run_here(
    config: PipelineConfig,
    settings: KafkaSettings,
    *,
    start_from: str = LATEST,
    stop: Callable[[], bool],
    started: Callable[[str], None] = lambda _: None,
) -> str | None:
    """Run a pipeline on a Flink inside this process until ``stop``; return its savepoint.

    start_from : `LATEST`, `NONE`, `PLAIN`, or the folder of a savepoint or checkpoint; started : is
    told, once all tasks run, where Flink is asked over REST. Stopped before that, nothing is saved.
    """
    config = _with_place(config, str(STATE_DIR))
    (port,) = free_ports(1)
    options = {
        "rest.port": str(port),
        "rest.bind-port": str(port),
        "rest.address": "127.0.0.1",
        # Without it Flink listens on all addresses, and who reaches its web page may submit code.
        "rest.bind-address": "127.0.0.1",
    }
    rest = FlinkRest(f"127.0.0.1:{port}")
    job_id = _submit(config, settings, start_from=start_from, options=options, remote=False)
    running = False
    try:
        while not stop():
            _require_alive(rest, job_id)
            if not running and rest.is_running(job_id):
                running = True
                started(rest.url)
            time.sleep(_POLL_S)
        _hush_workers()
        if not rest.is_running(job_id):
            return None
        return rest.stop(job_id, directory=checkpoint_dir(config))
    finally:
        _end_quietly(rest, job_id)


def run_on_cluster(
    config: PipelineConfig, settings: KafkaSettings, *, cluster: str, start_from: str = LATEST
) -> JobSummary:
    """Submit a pipeline to a cluster; return once it has made its first checkpoint there."""
    rest = FlinkRest(cluster)
    config = _with_place(config, rest.config().get("execution.checkpointing.dir"))
    if running := _running(rest, config):
        msg = (
            f"{running.name} already runs on {rest.url}, as {running.id} ({running.state}); stop "
            "it first: streamad flink stop"
        )
        raise ConfigError(msg)
    host, _, port = rest.url.partition("://")[2].partition(":")
    options = {"execution.target": "remote", "rest.address": host, "rest.port": port or "8081"}
    job_id = _submit(config, settings, start_from=start_from, options=options, remote=True)
    return await_checkpoint(rest, job_id)


def run_submitted(
    config: PipelineConfig, settings: KafkaSettings, *, start_from: str = LATEST
) -> None:
    """Run a pipeline where Flink started this process: application mode, or ``flink run``.

    start_from : counts where Flink itself restores nothing
    """
    _prepare(config, settings)
    from streamad.runtime.keyed.flink import build, restored_path

    path = restored_path()
    most = _require_fit(config, path) if path else None
    taken = {} if path else _taken(config, settings, start_from)
    frames = frames_of(config, ["detect"], environment())
    made = plan(config, settings, options={}, max_parallelism=most, taken=taken, frames=frames)
    build(made, remote=False).execute(made.name)


def stop_on_cluster(config: PipelineConfig, *, cluster: str) -> str:
    """Stop a pipeline with a savepoint; return where that is."""
    rest = FlinkRest(cluster)
    config = _with_place(config, rest.config().get("execution.checkpointing.dir"))
    running = _running(rest, config)
    if running is None:
        msg = f"{job_name(config)} does not run on {rest.url}"
        raise ConfigError(msg)
    return rest.stop(running.id, directory=checkpoint_dir(config))


def await_checkpoint(rest: FlinkRest, job_id: str) -> JobSummary:
    """Wait until a job runs and has saved itself once; raise with the reason where it does not."""
    deadline = time.monotonic() + _START_S
    while True:
        failures = _require_alive(rest, job_id)
        if rest.is_running(job_id) and rest.last_checkpoint(job_id) is not None:
            told = rest.job(job_id)
            return JobSummary(id=job_id, name=told["name"], state=told["state"])
        if time.monotonic() > deadline or len(failures) >= _ENOUGH_FAILURES:
            why = failures[0] if failures else rest.delay(job_id) or "see its logs"
            _end_quietly(rest, job_id)
            msg = f"job {job_id} did not reach its first checkpoint and was cancelled: {why}"
            raise ClusterError(msg)
        time.sleep(_POLL_S)


def latest(directory: str) -> str | None:
    """Return the newest savepoint or retained checkpoint under a pipeline's folder."""
    files, root = fsspec.core.url_to_fs(directory)
    patterns = (f"{root}/savepoint-*/_metadata", f"{root}/*/chk-*/_metadata")
    found = [path for pattern in patterns for path in files.glob(pattern)]
    if not found:
        return None
    newest = max(found, key=files.modified)
    return str(files.unstrip_protocol(newest.removesuffix("/_metadata")))


def _submit(
    config: PipelineConfig,
    settings: KafkaSettings,
    *,
    start_from: str,
    options: dict[str, str],
    remote: bool,
) -> str:
    _prepare(config, settings)
    frames = frames_of(config, ["detect"], environment())
    from streamad.runtime.keyed.flink import build, submit

    options, max_parallelism, taken = dict(options), None, {}
    if restored := _restored(config, start_from):
        max_parallelism = _require_fit(config, restored)
        options["execution.state-recovery.path"] = restored
        logger.info("resumes from %s", restored)
    else:
        taken = _taken(config, settings, start_from)
    made = plan(
        config,
        settings,
        options=options,
        max_parallelism=max_parallelism,
        taken=taken,
        here=not remote,
        frames=frames,
    )
    return submit(build(made, remote=remote), made.name)


def _prepare(config: PipelineConfig, settings: KafkaSettings) -> None:
    if why := why_no_flink():
        raise ConfigError(why)
    require(config, settings, engine="flink")
    create_topics(config, settings)
    # The gateway's JVM would write its log beside PyFlink, where others' packages are.
    logs = (STATE_DIR / "log").absolute()
    logs.mkdir(parents=True, exist_ok=True)
    os.environ.setdefault("FLINK_LOG_DIR", str(logs))


def _taken(
    config: PipelineConfig, settings: KafkaSettings, start_from: str
) -> dict[Source, Progress]:
    """Return where the plain job came to, and have Flink begin there; empty: it begins anew."""
    taken = {} if start_from == NONE else left_by_plain(config, settings)
    if taken:
        go_on_from(config, settings, taken)
    elif start_from == PLAIN:
        msg = (
            f"--from plain: the plain job of {config.name} has committed nothing on this cluster; "
            "start without it: --from none"
        )
        raise ConfigError(msg)
    else:
        logger.info("starts at input.start: %s", config.input.start)
    return taken


def _restored(config: PipelineConfig, start_from: str) -> str | None:
    if start_from in (NONE, PLAIN):
        return None
    if start_from == LATEST:
        return latest(checkpoint_dir(config))
    return start_from if "://" in start_from else f"file://{Path(start_from).absolute()}"


def _require_fit(config: PipelineConfig, path: str) -> int:
    """Refuse a savepoint made under other settings before Flink would; return its spread."""
    from streamad.runtime.keyed.flink import savepoint_facts

    facts = savepoint_facts(path)
    wanted = config.state_checksum()
    if facts.checksum != wanted and config.delivery.on_state_mismatch == "refuse":
        msg = (
            f"{path} was made with configuration {facts.checksum}, this pipeline has {wanted}: "
            "settings that state is bound to differ; restore the configuration, start without it "
            "with --from none, or set delivery.on_state_mismatch: fresh"
        )
        raise StateError(msg)
    return facts.max_parallelism


def _require_alive(rest: FlinkRest, job_id: str) -> list[str]:
    """Raise where a job has failed, or fails for a reason no restart mends; return its failures."""
    state = rest.job(job_id)["state"]
    failures = rest.failures(job_id)
    newest = failures[0] if failures else ""
    if newest.partition(":")[0].rpartition(".")[2] in _FATAL:
        _end_quietly(rest, job_id)
        raise StateError(newest.partition(": ")[2])
    if state in ("FAILED", "CANCELED", "FINISHED"):
        msg = f"job {job_id} is {state}: {newest or 'it was stopped from outside'}"
        raise ClusterError(msg)
    return failures


def _hush_workers() -> None:
    """Let workers inside this process end without a word: their channels close because we stop."""
    logging.getLogger("apache_beam").setLevel(logging.CRITICAL + 1)
    told = threading.excepthook

    def tell(given: threading.ExceptHookArgs) -> None:
        if given.thread is None or not given.thread.name.startswith("read_grpc"):
            told(given)

    threading.excepthook = tell


def _end_quietly(rest: FlinkRest, job_id: str) -> None:
    try:
        if rest.job(job_id)["state"] not in ("FINISHED", "CANCELED", "FAILED"):
            rest.cancel(job_id)
    except ClusterError as error:
        logger.debug("could not cancel %s: %s", job_id, error)


def _running(rest: FlinkRest, config: PipelineConfig) -> JobSummary | None:
    return next((job for job in rest.jobs(job_name(config)) if not job.ended), None)


def _with_place(config: PipelineConfig, default: str | None) -> PipelineConfig:
    """Return the pipeline with a place for its checkpoints."""
    if config.flink.checkpoint_dir is not None:
        return config
    if not default:
        msg = (
            "flink.checkpoint_dir: not set, and the cluster has no execution.checkpointing.dir; "
            "name a folder or URL that every task manager reaches"
        )
        raise ConfigError(msg)
    return config.model_copy(
        update={"flink": config.flink.model_copy(update={"checkpoint_dir": default})}
    )
