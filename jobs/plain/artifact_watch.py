"""A new artifact in the place of the old one: seen by its content, loaded beside the job."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Iterator
from pathlib import Path

from jobs.build import build_detect
from streamad.artifacts import load_manifest
from streamad.config import PipelineConfig
from streamad.errors import StreamadError
from streamad.operators.detect import DetectOperator
from streamad.ports import NullTelemetry, Telemetry

logger = logging.getLogger(__name__)

IDLE_S = 2.0
"""How often it is asked whether it is time to look."""
MOST_PLACES = 4
"""Places that had the artifact, of which is known while the process lives."""
MOST_BESIDE = 256
"""Folders beside an artifact that are looked into for one of before."""


class ArtifactWatch:
    """Look for a new artifact of a pipeline now and then, and load it; see `Staged`.

    What counts is the id in the manifest, which is a checksum of all of the artifact: a folder that
    was renamed into place, one behind a symbolic link and one on a store are seen alike, and what
    is only half there is refused and looked at again.

    Parameters
    ----------
    config : PipelineConfig
        The pipeline; its ``detector.artifact`` is looked at every ``detector.reload``; 0: never.
    current : str
        The id of the artifact that judges.
    """

    def __init__(
        self, config: PipelineConfig, current: str, telemetry: Telemetry | None = None
    ) -> None:
        self._config, self._telemetry = config, telemetry or NullTelemetry()
        self._places = [config]
        self._known, self._failure = current, ""
        self._lock = threading.Lock()
        self._loaded: DetectOperator | None = None
        self._looked_s = time.monotonic()
        self._say_successful(1)

    def use(self, config: PipelineConfig, operator: DetectOperator | None = None) -> None:
        """Look where other settings have the artifact from now on, and as often as they do.

        operator : of what stands there, where it was loaded already
        """
        with self._lock:
            self._config = config
            self._places = [config, *self._places][:MOST_PLACES]
            if operator is not None:
                self._loaded, self._known, self._failure = operator, operator.artifact, ""

    def start(self) -> None:
        """Look from a thread of its own, for as long as the process lives."""
        threading.Thread(target=self._run, name="streamad-artifact", daemon=True).start()

    def _run(self) -> None:
        while True:
            # Never for longer than this: how often may change meanwhile.
            time.sleep(min(self._config.detector.reload / 1000 or IDLE_S, IDLE_S))
            try:
                if self._is_due():
                    self.look()
            except Exception:
                logger.exception("looking for a new artifact failed; it is looked for again")

    def _is_due(self) -> bool:
        every_s, now_s = self._config.detector.reload / 1000, time.monotonic()
        if not every_s or now_s - self._looked_s < every_s:
            return False
        self._looked_s = now_s
        return True

    def look(self) -> None:
        """Load what stands there, where it is neither the current one nor one that was refused."""
        config = self._config
        url = config.detector.artifact
        if url is None:
            return
        try:
            found = load_manifest(url).id
            if found == self._known:
                return
            operator = build_detect(config, strict=True)
        except (StreamadError, OSError) as error:
            self._fail(str(error))
            return
        with self._lock:
            if config is self._config:
                self._loaded, self._known, self._failure = operator, operator.artifact, ""

    def take(self) -> DetectOperator | None:
        """Return an operator that was loaded and not taken yet; at once."""
        if self._loaded is None:
            return None
        with self._lock:
            found, self._loaded = self._loaded, None
        return found

    def kept(self, artifact: str) -> DetectOperator | None:
        """Return the operator of an artifact of before, beside any place that had one; else None.

        artifact : its id
        """
        found = (kept_artifact(config, artifact) for config in list(self._places))
        return next((operator for operator in found if operator is not None), None)

    def done(self, operator: DetectOperator, refused: str) -> None:
        """Note that an operator took over, or why it did not: it is not offered again."""
        del operator
        self._telemetry.count("artifact_reloads_total", result="refused" if refused else "done")
        self._say_successful(0 if refused else 1)
        if not refused:
            self._telemetry.gauge(
                "artifact_last_reload_success_timestamp_seconds",
                time.time(),
                pipeline=self._config.name,
            )

    def _fail(self, why: str) -> None:
        self._say_successful(0)
        if why != self._failure:
            self._failure = why
            self._telemetry.count("artifact_reloads_total", result="failed")
            logger.warning(
                "the artifact cannot be loaded, and the one of before judges on: %s", why
            )

    def _say_successful(self, value: int) -> None:
        self._telemetry.gauge("artifact_last_reload_successful", value, pipeline=self._config.name)


def kept_artifact(config: PipelineConfig, artifact: str) -> DetectOperator | None:
    """Return the operator of an artifact of before that lies beside the pipeline's; else None.

    artifact : its id. `streamad fit` leaves the one it replaces there; other ways of putting an
    artifact into place may do the same, under any name.
    """
    for folder in _beside(config.detector.artifact or ""):
        try:
            if load_manifest(folder).id == artifact:
                where = config.detector.model_copy(update={"artifact": str(folder)})
                return build_detect(config.model_copy(update={"detector": where}), strict=True)
        except (StreamadError, OSError):
            continue
    return None


def _beside(url: str) -> Iterator[Path]:
    """Yield the folders beside a local artifact, and beside what a link of it leads to."""
    if not url or "://" in url:
        return
    parents = dict.fromkeys((Path(url).absolute().parent, Path(url).resolve().parent))
    for parent in parents:
        if parent.is_dir():
            folders = sorted(entry for entry in parent.iterdir() if entry.is_dir())
            yield from folders[:MOST_BESIDE]
