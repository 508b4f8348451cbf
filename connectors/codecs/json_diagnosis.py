"""Say in words what is wrong with one JSON row; only rejected rows come here."""

from __future__ import annotations

import reprlib
from functools import lru_cache
from itertools import islice
from typing import Any

import polars as pl

from connectors.codecs.fields import (
    BAD_TIME,
    FieldMap,
    TimeUnit,
    look_up,
    numbers_of,
    texts_to_ms,
    unit_of,
)
from connectors.codecs.rows import Fault, shorten
from streamad.errors import nearest

MAX_FIELDS_SHOWN = 50
MAX_NAME_CHARS = 60


def diagnose(record: object, reason: str, fields: FieldMap) -> Fault:
    """Return the exact reason, the detail and the field of a row found wanting for ``reason``.

    record : the row as JSON values
    """
    if reason not in ("missing_field", "wrong_type", "bad_time"):
        return Fault(reason)
    if not isinstance(record, dict):
        return Fault("wrong_type", f"expected an object, got {_kind(record)} {_show(record)}")
    for name in (*fields.key, fields.variate):
        if name is not None and (found := _not_text(record, name)):
            return found
    return _not_time(record, fields, reason) or _not_values(record, fields) or Fault(reason)


def is_other(record: object, fields: FieldMap) -> bool:
    """Say whether a row is whole but for its values, and has others where ours would stand.

    So are records of another measurement on the same topic: Telegraf's ``fields`` of ``mem``, where
    ``fields.usage_idle`` of ``cpu`` is asked for.
    """
    if not isinstance(record, dict):
        return False
    needed = [*fields.key, fields.time] + [name for name in (fields.variate,) if name]
    if any(look_up(record, name) is None for name in needed):
        return False
    return all(_has_siblings(record, name) for name in fields.values)


def _has_siblings(record: dict[str, Any], path: str) -> bool:
    """Say whether a path leads into an object, or a family of dotted names, that lacks its end."""
    node: Any = record
    parts = path.split(".")
    for depth, part in enumerate(parts):
        if part in node:
            if node[part] is None or not isinstance(node[part], dict):
                return False
            node = node[part]
            continue
        rest = ".".join(parts[depth:])
        if rest in node:
            return False
        family = (
            any(name.startswith(f"{part}.") for name in node) if depth + 1 < len(parts) else False
        )
        return family or (depth > 0 and bool(node))
    return False


def _not_text(record: dict[str, Any], name: str) -> Fault | None:
    value = look_up(record, name)
    if value is None:
        return Fault("missing_field", _absent(record, name), column=name)
    if isinstance(value, (dict, list)):
        detail = f"{name}: expected a text, got {_kind(value)} {_show(value)}"
        return Fault("wrong_type", detail, column=name)
    return None


def _not_time(record: dict[str, Any], fields: FieldMap, reason: str) -> Fault | None:
    value, name = look_up(record, fields.time), fields.time
    if value is None:
        return Fault("missing_field", _absent(record, name), column=name)
    iso = fields.time_unit == "iso"
    number = _number(value)
    if not isinstance(value, str) if iso else number is None:
        wanted = "an ISO 8601 text" if iso else f"a number ({fields.time_unit})"
        detail = f"{name}: expected {wanted}, got {_kind(value)} {_show(value)}"
        return Fault("wrong_type", detail + unit_hint(value, fields.time_unit), column=name)
    if reason == "bad_time":
        wanted = "a time" if iso else f"whole {fields.time_unit}"
        detail = f"{name}: expected {wanted} from 1970 to 2200, got {_show(value)}"
        return Fault("bad_time", detail + unit_hint(value, fields.time_unit), column=name)
    return None


def unit_hint(value: object, unit: TimeUnit) -> str:
    """Name the unit that a time is plausible in, where it is another; else nothing."""
    number = _number(value)
    if number is not None:
        fits: TimeUnit | None = unit_of(number)
    else:
        readable = isinstance(value, str) and texts_to_ms(pl.Series([value]))[0] != BAD_TIME
        fits = "iso" if readable else None
    return "" if fits in (None, unit) else f"; time_unit: {fits} reads it"


def _not_values(record: dict[str, Any], fields: FieldMap) -> Fault | None:
    found = [(name, look_up(record, name)) for name in fields.values]
    for name, value in found:
        if value is not None and _number(value) is None:
            detail = f"{name}: expected a number, got {_kind(value)} {_show(value)}"
            return Fault("wrong_type", detail, column=name)
    if fields.roles:
        return _not_held(record, fields)
    if all(value is None for _, value in found):
        first = fields.values[0]
        return Fault("missing_field", _absent(record, first), column=first)
    return None


def _not_held(record: dict[str, Any], fields: FieldMap) -> Fault | None:
    """Name the text that is missing where a row holds texts."""
    needed = fields.payload.needed
    for role, name in fields.roles:
        value = look_up(record, name)
        if value in (None, "") and (role in needed or not needed):
            detail = _absent(record, name) if value is None else f"{name} is empty"
            return Fault("missing_field", detail, column=name)
    return None


def _absent(record: dict[str, Any], name: str) -> str:
    if name in record:
        return f"{name} is null"
    node, inside = _innermost(record, name)
    shown = tuple(field[:MAX_NAME_CHARS] for field in islice(node, MAX_FIELDS_SHOWN))
    held = next((field for field, value in record.items() if _holds_rows(value, name)), None)
    rows = "" if held is None else f"; the rows stand in it: input.fields.rows: {held}"
    return shorten(_among(name, inside, shown) + rows)


def _innermost(record: dict[str, Any], path: str) -> tuple[dict[str, Any], str]:
    """Return the object in which a dotted path ends, and the name it has; "" for the record."""
    node, inside = record, ""
    for part in path.split(".")[:-1]:
        if not isinstance(node.get(part), dict):
            break
        node, inside = node[part], f"{inside}.{part}".removeprefix(".")
    return node, inside


def _holds_rows(value: object, name: str) -> bool:
    return isinstance(value, list) and any(
        isinstance(row, dict) and look_up(row, name) is not None for row in value[:3]
    )


@lru_cache(maxsize=64)
def _among(name: str, inside: str, fields: tuple[str, ...]) -> str:
    # Kept: where the map names a wrong field, every row of the topic comes here.
    near = nearest(name.removeprefix(f"{inside}."), fields)
    hint = f"; did you mean {near!r}?" if near else ""
    where = f" of {inside!r}" if inside else ""
    return shorten(f"no field {name!r} among those{where}: {', '.join(sorted(fields))}{hint}")


def _number(value: object) -> float | None:
    """Return the number that a value is or that its text is, None where it is none."""
    if isinstance(value, str):
        read = numbers_of(pl.Series([value]))[0]
        return None if read is None else float(read)
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return float(value)
    return None


def _kind(value: object) -> str:
    kinds = {dict: "an object", list: "an array", str: "a text", bool: "a boolean"}
    return kinds.get(type(value), "null" if value is None else "a number")


_SHORT = reprlib.Repr()
"""Of what is nested deeply, or is large, only the beginning is written."""
_SHORT.maxlevel = 4
_SHORT.maxlist = _SHORT.maxdict = 20
_SHORT.maxstring = _SHORT.maxlong = _SHORT.maxother = 200


def _show(value: object) -> str:
    return shorten(_SHORT.repr(value), 80)
