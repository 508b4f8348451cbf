"""Write the JSON Schemas of what streamad publishes: ``python -m connectors.records.schemas``."""

from __future__ import annotations

from collections.abc import Iterator
from importlib.resources import files
from pathlib import Path
from typing import Any

import orjson

from connectors.records.cloudevents import KINDS, VERSION
from connectors.records.typed_json import schema_of

DIALECT = "https://json-schema.org/draft/2020-12/schema"


def schema_of_kind(name: str) -> dict[str, Any]:
    """Return the schema of a kind of record."""
    kind = KINDS[name]
    return {
        "title": kind.__name__,
        "description": (kind.__doc__ or "").strip().split("\n\n")[0],
        **schema_of(kind),
    }


def schemas() -> Iterator[tuple[str, bytes]]:
    """Yield the file name and the text of every schema."""
    for name in KINDS:
        schema = {
            "$schema": DIALECT,
            "$id": f"urn:streamad:{name}:{VERSION}",
            **schema_of_kind(name),
        }
        text = orjson.dumps(schema, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE)
        yield f"{name}.{VERSION}.schema.json", text


def folder() -> Path:
    """Return where the schemas live in the package."""
    return Path(str(files("streamad"))) / "schemas"


def write() -> None:
    """Write every schema to its file."""
    folder().mkdir(exist_ok=True)
    for name, text in schemas():
        (folder() / name).write_bytes(text)


if __name__ == "__main__":
    write()
