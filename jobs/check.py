"""``streamad check``: whether an installed job works, from a place beside it."""

from __future__ import annotations

import http.client
import re
import time
from collections.abc import Callable
from pathlib import Path
from urllib.parse import urlsplit

from connectors.kafka.round_trip import round_trip
from jobs.console import say
from jobs.plain.frames import registry_preflight
from jobs.plain.preflight import preflight
from jobs.plain.topics import Config
from jobs.settings import environment, kafka_settings
from jobs.validate import is_alerting
from streamad.alerting.config import load_alerting
from streamad.config import load_pipeline
from streamad.errors import ConfigError, SourceUnavailableError
from streamad.shown import safe_text, without_credentials

ASK_S = 5.0
MAX_ANSWER_BYTES, MAX_METRICS_BYTES = 4_096, 4 * 2**20
REFUSED = re.compile(
    r"^streamad_(config|artifact)_last_reload_successful(?:\{[^}]*\})? 0(?:\.0)?$", re.MULTILINE
)


def check_job(path: Path, *, url: str | None, wait_s: float, trip: bool) -> None:
    """Check file, cluster, way to Kafka and, with a URL, the running job; print what was found.

    Raises StreamadError for the first thing that does not work.
    """
    given = environment()
    load: Callable[..., Config] = load_alerting if is_alerting(path) else load_pipeline
    config = load(path, environment=given)
    say(f"{path}: valid")
    settings = kafka_settings(given)
    problems = preflight(config, settings) + registry_preflight(config, given)
    for problem in problems:
        if problem.level == "warning":
            say(f"streamad: warning: {problem.text}")
    if errors := [problem.text for problem in problems if problem.level == "error"]:
        raise ConfigError("\n".join(errors))
    say(f"Kafka at {settings.bootstrap}: topics and their settings fit")
    if trip:
        name = f"streamad.{config.name}.check"
        say(f"a record to {name} came back in {round_trip(settings, name=name):.2f} s")
    if url is not None:
        say(f"{url}: {await_ready(url, wait_s=wait_s)}")
        require_reloaded(url)
        say(f"{url}: the job runs by its file")


def await_ready(url: str, *, wait_s: float) -> str:
    """Return what ``/readyz`` of a job answers once it is ready.

    Raises SourceUnavailableError with the last answer where it is not within ``wait_s`` seconds.
    """
    host, port = _place(url)
    until = time.monotonic() + wait_s
    while True:
        status, answer = _ask(host, port, "/readyz")
        if status == http.HTTPStatus.OK:
            return safe_text(answer)
        if time.monotonic() >= until:
            msg = f"{url} is not ready after {wait_s:g} s: {safe_text(answer)}"
            raise SourceUnavailableError(msg)
        time.sleep(min(1.0, wait_s))


def require_reloaded(url: str) -> None:
    """Raise ConfigError where a job runs by other settings, or another artifact, than it was given.

    Its metrics show it: a change that cannot be taken over while it runs is refused.
    """
    status, text = _ask(*_place(url), "/metrics", MAX_METRICS_BYTES)
    if status != http.HTTPStatus.OK:
        msg = f"{url}/metrics: expected status 200, got {status}: {safe_text(text, 200)}"
        raise SourceUnavailableError(msg)
    if found := REFUSED.search(text):
        what = {"config": "the changed file", "artifact": "the new artifact"}[found[1]]
        msg = (
            f"{url}: expected a job that runs by what it was given, got one that refused {what}; "
            "its log names the reason: restart it, or take the change back"
        )
        raise ConfigError(msg)


def _place(url: str) -> tuple[str, int]:
    parts = urlsplit(url)
    if parts.scheme != "http" or not parts.hostname:
        msg = f"--url is {without_credentials(url)!r}; expected http://host:port"
        raise ConfigError(msg)
    return parts.hostname, parts.port or 80


def _ask(host: str, port: int, path: str, max_bytes: int = MAX_ANSWER_BYTES) -> tuple[int, str]:
    connection = http.client.HTTPConnection(host, port, timeout=ASK_S)
    try:
        connection.request("GET", path)
        response = connection.getresponse()
        text = response.read(max_bytes).decode("utf-8", "replace").strip()
    except (OSError, http.client.HTTPException) as error:
        return 0, f"no answer ({error})"
    finally:
        connection.close()
    return response.status, text
