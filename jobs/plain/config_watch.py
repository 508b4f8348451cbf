"""The file of settings in a running job: polled, staged, tried, and taken over; or refused.

What is polled is content, so a ConfigMap's symbolic links, a file renamed into place and one that
is written over are seen alike. A change is taken over by all roles of the process or by none.
"""

from __future__ import annotations

import hashlib
import logging
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Protocol

from jobs.plain.topics import Config
from streamad.alerting.config import AlertingConfig
from streamad.config import PipelineConfig, parse_config, read_config
from streamad.config.live import changes
from streamad.errors import ConfigError, StreamadError
from streamad.ports import NullTelemetry, Telemetry

logger = logging.getLogger(__name__)

EVERY_S: Final = 2.0
RETRY_S: Final = 30.0
"""What was refused is tried again so often: a file that it names may be there by now."""
MAX_NAMED: Final = 8

Swap = Callable[[], None]


class Stages(Protocol):
    """A loop that takes settings over between two commits."""

    def stage(self, swap: Swap) -> None:
        """Have it called once, in the loop's own thread."""
        ...


Prepare = Callable[[Config, Config], Swap]
"""Makes of the settings of before and the new ones what a loop needs, and tries it; returns what
puts it to work, which cannot fail. Raises StreamadError, OSError or ValueError."""


@dataclass(frozen=True, slots=True)
class _Seen:
    """A state of the files. text : of the first of them; failure : why it cannot be read."""

    text: str
    failure: str
    beside: tuple[str, ...]


class ConfigWatch:
    """Look at the file of a running job now and then; have its roles take over what changed.

    Parameters
    ----------
    path, alerting
        The file, and whether it is an alerting file.
    environment : Mapping
        What ``${NAME}`` in it stands for: that of the process, which does not change.
    """

    def __init__(
        self,
        path: Path,
        *,
        alerting: bool = False,
        environment: Mapping[str, str],
        telemetry: Telemetry | None = None,
    ) -> None:
        self._path, self._environment = path, environment
        self._model: type[AlertingConfig | PipelineConfig] = (
            AlertingConfig if alerting else PipelineConfig
        )
        self._telemetry = telemetry or NullTelemetry()
        text = read_config(path)
        self._config = self._parsed(text)
        # Before anything is made of them: what changes in between is seen.
        self._settled = self._seen = _Seen(text, "", _beside(self._config))
        self._clients: list[tuple[Stages, Prepare]] = []
        self._lock = threading.RLock()
        self._failure, self._retry_s, self._verdict = "", 0.0, 0
        self._say(1)

    @property
    def config(self) -> Config:
        """Return the settings that hold."""
        return self._config

    def add(self, loop: Stages, prepare: Prepare, made_of: Config) -> None:
        """Have a loop take over settings from now on.

        made_of : the settings it was made of; where others hold by now, it gets them at once
        """
        with self._lock:
            self._clients.append((loop, prepare))
            if made_of is not self._config:
                loop.stage(prepare(made_of, self._config))

    def run(self, stop: threading.Event) -> None:
        """Look until ``stop``; never raises."""
        while not stop.wait(EVERY_S):
            try:
                self.look()
            except Exception:
                logger.exception("%s: looking at the settings failed", self._path)

    def look(self) -> None:
        """Look once; take over what is there for the second time in a row."""
        seen = self._look()
        before, self._seen = self._seen, seen
        retry = bool(self._failure) and time.monotonic() >= self._retry_s
        if seen == self._settled and not retry:
            return
        if seen != before:
            # It may be half written.
            return
        self._settled = seen
        with self._lock:
            self._take(seen)

    # ------------------------------------------------------------------ one change

    def _take(self, seen: _Seen) -> None:
        try:
            if seen.failure:
                raise ConfigError(seen.failure)
            config = self._parsed(seen.text)
            named = self._changed(config)
            beside = _beside(config)
            swaps = [(loop, prepare(self._config, config)) for loop, prepare in self._clients]
        except (StreamadError, OSError, ValueError) as error:
            self._refuse(" ".join(str(error).split()))
            return
        self._config, self._failure = config, ""
        self._settled = self._seen = _Seen(seen.text, "", beside)
        self._verdict += 1
        done = _Countdown(len(swaps), self._taken(named, self._verdict))
        for loop, swap in swaps:
            loop.stage(done.after(swap))
        if not swaps:
            done.end()

    def _parsed(self, text: str) -> Config:
        return parse_config(text, self._model, name=str(self._path), environment=self._environment)

    def _changed(self, config: Config) -> str:
        """Return which settings differ; raises ConfigError where one of them needs a restart."""
        found = changes(self._config, config)
        if outside := [one.path for one in found if not one.live]:
            msg = (
                f"{self._path}: got another value of {_listed(outside)}, expected changes of "
                "settings that a running job takes over; restart the job, or take the change back"
            )
            raise ConfigError(msg)
        return _listed([one.path for one in found]) or "no setting differs"

    def _taken(self, named: str, verdict: int) -> Callable[[], None]:
        def tell() -> None:
            self._telemetry.count("config_reloads_total", result="done")
            logger.info("%s is taken over: %s", self._path, named)
            # Another file may have been refused while a loop was busy.
            if verdict == self._verdict:
                self._say(1)

        return tell

    def _refuse(self, why: str) -> None:
        self._verdict += 1
        self._retry_s = time.monotonic() + RETRY_S
        self._say(0)
        if why != self._failure:
            self._failure = why
            self._telemetry.count("config_reloads_total", result="refused")
            logger.warning("settings are not taken over, and those of before hold: %s", why)

    def _say(self, value: int) -> None:
        name = self._config.name
        self._telemetry.gauge("config_last_reload_successful", value, pipeline=name)
        if value:
            self._telemetry.gauge(
                "config_last_reload_success_timestamp_seconds", time.time(), pipeline=name
            )

    def _look(self) -> _Seen:
        beside = _beside(self._config)
        try:
            return _Seen(read_config(self._path), "", beside)
        except ConfigError as error:
            return _Seen("", str(error), beside)


class _Countdown:
    """Call something once a number of swaps are done, in whatever threads."""

    def __init__(self, left: int, end: Callable[[], None]) -> None:
        self._left, self.end = left, end
        self._lock = threading.Lock()

    def after(self, swap: Swap) -> Swap:
        """Return a swap that counts."""

        def counted() -> None:
            swap()
            with self._lock:
                self._left -= 1
                last = not self._left
            if last:
                self.end()

        return counted


def _listed(paths: Sequence[str]) -> str:
    more = len(paths) - MAX_NAMED
    return ", ".join(paths[:MAX_NAMED]) + (f" and {more} more" if more > 0 else "")


def _beside(config: Config) -> tuple[str, ...]:
    """Return what tells states of the files apart that settings name, and that are read whole."""
    if not isinstance(config, AlertingConfig) or config.severities is None:
        return ()
    try:
        return (hashlib.sha256(Path(config.severities).read_bytes()).hexdigest(),)
    except OSError as error:
        return (str(error),)
