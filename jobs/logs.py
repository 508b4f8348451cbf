"""Logs: one JSON line an event, no secrets, no raw values, no floods.

A log line tells a change of state; what happens a thousand times a second is counted
(`connectors.telemetry`), not logged.
"""

from __future__ import annotations

import json
import logging
import re
import sys
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal, TextIO

import orjson

from streamad.ports import Source
from streamad.shown import (
    HIDDEN,
    is_secret_name,
    safe_json,
    safe_lines,
    safe_text,
    without_credentials,
)

LogFormat = Literal["json", "text"]

MIN_SECRET_CHARS = 4
"""Shorter values are not searched for: they would blank out half of every line."""

MAX_SECRET_CHARS = 65_536

RAW_FIELDS = frozenset({"body", "expected", "observed", "payload", "raw", "value", "values"})
"""Fields that may hold what customers sent; they are shown at DEBUG only."""

REPEATS, REPEAT_WINDOW_S, MAX_REMEMBERED = 5, 60.0, 1_024
MAX_TEXT_CHARS = 8_192
MAX_LINE_CHARS = 2 * MAX_TEXT_CHARS

_STANDARD = frozenset(
    {*logging.LogRecord("", 0, "", 0, "", None, None).__dict__, "message", "asctime", "taskName"}
)


def secrets_of(environment: Mapping[str, str]) -> list[str]:
    """Return the secret values of an environment, so that no line may repeat them.

    Those that stand in the file a ``NAME_FILE`` names are among them.
    """
    found: set[str] = set()
    for name, value in environment.items():
        if not is_secret_name(name):
            continue
        text = _content(value) if name.endswith("_FILE") else value
        # A key of several lines is shown line by line, if at all.
        found.update(part.strip() for part in (text, *text.splitlines()))
    return sorted(one for one in found if len(one) >= MIN_SECRET_CHARS)


def _content(path: str) -> str:
    """Return what a file of a secret holds; nothing where it cannot be read: others report that."""
    try:
        with Path(path).open(encoding="utf-8", errors="replace") as file:
            return file.read(MAX_SECRET_CHARS)
    except (OSError, ValueError):
        return ""


class Redactor:
    """Replace secrets, known by their value, their field or their shape."""

    def __init__(self, secrets: Iterable[str] = ()) -> None:
        # The longest first: one secret may begin with another.
        known = sorted({s for s in secrets if len(s) >= MIN_SECRET_CHARS}, key=len, reverse=True)
        self._known = re.compile("|".join(map(re.escape, known))) if known else None

    def text(self, text: str) -> str:
        """Return ``text`` without secrets."""
        if self._known is not None:
            text = self._known.sub(HIDDEN, text)
        return without_credentials(text)

    def value(self, name: str, value: Any) -> Any:
        """Return the value of a field without secrets, whatever it is made of."""
        if is_secret_name(name):
            return HIDDEN
        if isinstance(value, str):
            return self.text(value)
        if isinstance(value, Mapping):
            return {str(key): self.value(str(key), inner) for key, inner in value.items()}
        if isinstance(value, list | tuple | set | frozenset):
            return [self.value("", inner) for inner in value]
        if value is None or isinstance(value, bool | int | float):
            return value
        return self.text(str(value))


def redacted(tree: Mapping[str, Any], secrets: Iterable[str] = ()) -> dict[str, Any]:
    """Return a tree of settings that may be shown."""
    redactor = Redactor(secrets)
    return {name: redactor.value(name, value) for name, value in tree.items()}


class RepeatLimit(logging.Filter):
    """Let a message through a few times a minute; a later one says how many were left out.

    Of messages about partitions each partition's are counted alone: all of them start at once.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__()
        self._clock = clock
        self._seen: OrderedDict[tuple[str, int, str, str], list[float]] = OrderedDict()

    def filter(self, record: logging.LogRecord) -> bool:
        """Say whether the record is written."""
        given = record.args if isinstance(record.args, tuple) else ()
        source = next((str(one) for one in given if isinstance(one, Source)), "")
        event = (record.name, record.levelno, str(record.msg), source)
        now_s = self._clock()
        # begin of the window, how many in it
        window = self._seen.get(event)
        if window is None or now_s - window[0] >= REPEAT_WINDOW_S:
            if window is not None and window[1] > REPEATS:
                record.left_out = int(window[1] - REPEATS)
            self._seen[event] = [now_s, 1.0]
            self._seen.move_to_end(event)
            if len(self._seen) > MAX_REMEMBERED:
                self._seen.popitem(last=False)
            return True
        window[1] += 1
        return window[1] <= REPEATS


class _Formatter(logging.Formatter):
    def __init__(self, redactor: Redactor, *, raw: frozenset[str]) -> None:
        super().__init__()
        self._redactor, self._raw = redactor, raw

    def parts(self, record: logging.LogRecord) -> tuple[str, str, dict[str, Any]]:
        """Return time, message and fields, safe to be shown."""
        moment = datetime.fromtimestamp(record.created, UTC)
        fields = {
            name: self._redactor.value(name, value)
            for name, value in record.__dict__.items()
            if name not in _STANDARD and name not in self._raw
        }
        if record.exc_info and record.exc_info[0] is not None:
            fields["error"] = self._redactor.text(
                f"{record.exc_info[0].__name__}: {record.exc_info[1]}"
            )
            fields["trace"] = self._redactor.text(self.formatException(record.exc_info))
        text = self._redactor.text(record.getMessage())[:MAX_TEXT_CHARS]
        return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z"), text, fields


class JsonFormatter(_Formatter):
    """One JSON object a line: ts, level, logger, msg, then the fields of the event."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line."""
        ts, text, fields = self.parts(record)
        head = {"ts": ts, "level": record.levelname.lower(), "logger": record.name, "msg": text}
        try:
            line = orjson.dumps(fields | head, default=str, option=orjson.OPT_SORT_KEYS).decode()
        except TypeError:
            # Half a surrogate pair is no text to orjson; the event must not be lost for it.
            return json.dumps(fields | head, default=str, sort_keys=True)
        return safe_json(line)


class TextFormatter(_Formatter):
    """A line for eyes: time, level, message, then ``name=value``."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line."""
        ts, text, fields = self.parts(record)
        trace = fields.pop("trace", None)
        said = "".join(f" {name}={value}" for name, value in fields.items())
        line = safe_text(f"{ts} {record.levelname.lower():7} {text}{said}", MAX_LINE_CHARS)
        return f"{line}\n{safe_lines(trace)}" if trace else line


def setup_logs(
    log_format: LogFormat = "text",
    *,
    level: str = "INFO",
    secrets: Iterable[str] = (),
    stream: TextIO | None = None,
) -> logging.Handler:
    """Send all logs of the process to ``stream`` (standard error by default); return the handler.

    The logs of other packages are let through from WARNING on.
    """
    shown = logging.getLevelNamesMapping()[level.upper()]
    raw = frozenset[str]() if shown <= logging.DEBUG else RAW_FIELDS
    kind = JsonFormatter if log_format == "json" else TextFormatter
    handler = logging.StreamHandler(stream or sys.stderr)
    handler.setFormatter(kind(Redactor(secrets), raw=raw))
    handler.addFilter(RepeatLimit())
    root = logging.getLogger()
    for old in list(root.handlers):
        root.removeHandler(old)
    root.addHandler(handler)
    root.setLevel(max(shown, logging.WARNING))
    for package in ("streamad", "connectors", "jobs"):
        logging.getLogger(package).setLevel(shown)
    return handler
