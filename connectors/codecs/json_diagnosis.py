"""Say in words what is wrong with one JSON row; only rejected rows come here."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import orjson

from connectors.codecs.fields import FieldMap, look_up
from connectors.codecs.rows import shorten
from streamad.errors import nearest


def diagnose(text: bytes, reason: str, fields: FieldMap) -> tuple[str, str]:
    """Return the exact reason and the detail of a row that was found wanting for ``reason``."""
    if reason not in ("missing_field", "wrong_type", "bad_time"):
        return reason, ""
    record = orjson.loads(text)
    if not isinstance(record, dict):
        return "wrong_type", f"expected an object, got {_kind(record)} {_show(record)}"
    for name in (*fields.key, fields.variate):
        if name is not None and (found := _not_text(record, name)):
            return found
    return _not_time(record, fields, reason) or _not_values(record, fields) or (reason, "")


def _not_text(record: dict[str, Any], name: str) -> tuple[str, str] | None:
    value = look_up(record, name)
    if value is None:
        return "missing_field", _absent(record, name)
    if isinstance(value, (dict, list)):
        return "wrong_type", f"{name}: expected a text, got {_kind(value)} {_show(value)}"
    return None


def _not_time(record: dict[str, Any], fields: FieldMap, reason: str) -> tuple[str, str] | None:
    value, name = look_up(record, fields.time), fields.time
    if value is None:
        return "missing_field", _absent(record, name)
    iso = fields.time_unit == "iso"
    if not (isinstance(value, str) if iso else _is_number(value)):
        wanted = "an ISO 8601 text" if iso else f"a number ({fields.time_unit})"
        return "wrong_type", f"{name}: expected {wanted}, got {_kind(value)} {_show(value)}"
    if reason == "bad_time":
        wanted = "a time" if iso else f"whole {fields.time_unit}"
        return "bad_time", f"{name}: expected {wanted} from 1970 to 2200, got {_show(value)}"
    return None


def _not_values(record: dict[str, Any], fields: FieldMap) -> tuple[str, str] | None:
    found = [(name, look_up(record, name)) for name in fields.values]
    for name, value in found:
        if value is not None and not _is_number(value):
            return "wrong_type", f"{name}: expected a number, got {_kind(value)} {_show(value)}"
    if all(value is None for _, value in found):
        return "missing_field", _absent(record, fields.values[0])
    return None


def _absent(record: dict[str, Any], name: str) -> str:
    return f"{name} is null" if name in record else _among(name, tuple(record))


@lru_cache(maxsize=64)
def _among(name: str, fields: tuple[str, ...]) -> str:
    # Kept: where the map names a wrong field, every row of the topic comes here.
    near = nearest(name, fields)
    hint = f"; did you mean {near!r}?" if near else ""
    return shorten(f"no field {name!r} among {sorted(fields)}{hint}")


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _kind(value: object) -> str:
    kinds = {dict: "an object", list: "an array", str: "a text", bool: "a boolean"}
    return kinds.get(type(value), "null" if value is None else "a number")


def _show(value: object) -> str:
    return shorten(repr(value), 80)
