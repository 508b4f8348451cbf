"""Results as they come, a line of JSON each, so that a run of hours may be stopped at any time."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import orjson

from streamad.errors import ConfigError

RESULTS = "results.jsonl"


class Store:
    """The file of results of a folder, read and appended to.

    A line that was cut by a kill is left out and run again. Only results with a known key are used:
    another version of a detector, other parameters or other data have another one.
    """

    def __init__(self, folder: Path, *, fresh: bool = False) -> None:
        self.path = folder / RESULTS
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except FileExistsError as error:
            msg = f"--out {folder} is a file; name a folder"
            raise ConfigError(msg) from error
        if fresh:
            self.path.unlink(missing_ok=True)

    def read(self, keys: Iterable[str]) -> dict[str, dict[str, Any]]:
        """Return the results of these keys that there are; those that failed are not."""
        wanted, found = set(keys), {}
        if not self.path.exists():
            return {}
        with self.path.open("rb") as lines:
            for line in lines:
                try:
                    record = orjson.loads(line)
                except orjson.JSONDecodeError:
                    continue
                if isinstance(record, dict) and record.get("key") in wanted:
                    found[str(record["key"])] = record
        return {key: one for key, one in found.items() if "failed" not in one}

    def add(self, record: dict[str, Any]) -> None:
        """Append a result; what a kill cut off before stays a line of its own."""
        with self.path.open("ab+") as lines:
            if lines.tell():
                lines.seek(-1, 2)
                if lines.read(1) != b"\n":
                    lines.write(b"\n")
            lines.write(orjson.dumps(record, option=orjson.OPT_APPEND_NEWLINE))
