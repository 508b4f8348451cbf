"""Findings and alerts as JSON values and back, checked by the types of their dataclasses."""

from __future__ import annotations

import math
import reprlib
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import MISSING, fields, is_dataclass
from functools import cache, partial
from types import NoneType, UnionType
from typing import (
    Any,
    Literal,
    NoReturn,
    TypeVar,
    Union,
    cast,
    get_args,
    get_origin,
    get_type_hints,
)

from connectors.codecs.fields import END_OF_TIME_MS
from streamad.records import UNKNOWN_MS

T = TypeVar("T")
Reader = Callable[[object], Any]

WRONG_TYPE = "wrong_type"
MISSING_FIELD = "missing_field"
MAX_WHOLE = 2**53
"""The largest whole number that JSON readers of all languages take alike."""
EARLIEST_MS = -86_400_000
LATEST_MS = END_OF_TIME_MS + 86_400_000
"""Times of events: 1970 to 2200 as for input, and a day more for windows around them."""


class ShapeError(ValueError):
    """A JSON value does not fit a type; it carries a reason and never leaves ``connectors``."""

    def __init__(self, reason: str, detail: str) -> None:
        self.reason = reason
        super().__init__(detail)


def hints_of(kind: type) -> dict[str, Any]:
    """Return the resolved types of a dataclass's fields."""
    hints = get_type_hints(kind)
    return {field.name: hints[field.name] for field in fields(kind)}


def required_of(kind: type) -> frozenset[str]:
    """Return the fields of a dataclass that have no default."""
    return frozenset(
        field.name
        for field in fields(kind)
        if field.default is MISSING and field.default_factory is MISSING
    )


def to_record(kind: type[T], body: object) -> T:
    """Build a frozen record from a JSON object; fields this version does not know are left out.

    Raises ``ShapeError`` where a field is absent or of another type. Null for a number is NaN.
    """
    if not isinstance(body, dict):
        msg = f"expected an object, got {type(body).__name__}"
        raise ShapeError(WRONG_TYPE, msg)
    readers, required = _readers_of(cast(Any, kind))
    if absent := required - body.keys():
        msg = f"{kind.__name__} needs {sorted(absent)}"
        raise ShapeError(MISSING_FIELD, msg)
    read: dict[str, Any] = {}
    for name in readers.keys() & body.keys():
        try:
            read[name] = readers[name](body[name])
        except ShapeError as error:
            msg = f"{name}: {error}"
            raise ShapeError(error.reason, msg) from None
    return kind(**read)


@cache
def _readers_of(kind: Any) -> tuple[dict[str, Reader], frozenset[str]]:
    # Composed once a type: an alert stage reads its whole findings topic again when it starts.
    readers = {name: _bounded(name, _reader(hint)) for name, hint in hints_of(kind).items()}
    return readers, required_of(kind)


def _bounded(name: str, reader: Reader) -> Reader:
    """Return a reader that refuses whole numbers nobody can mean: sums of them would overflow."""
    low, high = (EARLIEST_MS, LATEST_MS) if name.endswith("_ms") else (-MAX_WHOLE, MAX_WHOLE)

    def read(value: object) -> Any:
        got = reader(value)
        if type(got) is int and not low <= got <= high and got != UNKNOWN_MS:
            _refuse(value, f"a whole number from {low} to {high}")
        return got

    return read


def _reader(hint: Any) -> Reader:
    origin = get_origin(hint)
    if origin in (Union, UnionType):
        return _union_reader([(choice, _reader(choice)) for choice in get_args(hint)])
    if origin is Literal:
        return _choice_reader(get_args(hint))
    if origin is dict:
        return _dict_reader(_reader(get_args(hint)[1]))
    if origin is tuple:
        return _tuple_reader(_reader(get_args(hint)[0]))
    if isinstance(hint, type) and is_dataclass(hint):
        return partial(to_record, hint)
    return _read_float if hint is float else _exact_reader(hint)


def _union_reader(choices: Sequence[tuple[Any, Reader]]) -> Reader:
    nullable = any(choice is NoneType for choice, _ in choices)
    readers = [reader for choice, reader in choices if choice is not NoneType]

    def read(value: object) -> Any:
        if value is None and nullable:
            return None
        for reader in readers[:-1]:
            with suppress(ShapeError):
                return reader(value)
        return readers[-1](value)

    return read


def _choice_reader(choices: tuple[Any, ...]) -> Reader:
    def read(value: object) -> Any:
        return value if isinstance(value, str) and value in choices else _refuse(value, choices)

    return read


def _tuple_reader(reader: Reader) -> Reader:
    def read(value: object) -> Any:
        if not isinstance(value, list):
            _refuse(value, "an array")
        return tuple(reader(one) for one in value)

    return read


def _dict_reader(reader: Reader) -> Reader:
    def read(value: object) -> Any:
        if not isinstance(value, dict):
            _refuse(value, "an object")
        return {name: reader(item) for name, item in value.items()}

    return read


def _exact_reader(wanted: type) -> Reader:
    def read(value: object) -> Any:
        # A bool is an int to Python; a reader in another language would not agree.
        return value if type(value) is wanted else _refuse(value, wanted.__name__)

    return read


def _read_float(value: object) -> float:
    if value is None:
        return math.nan
    if type(value) is float or type(value) is int:
        return float(value)
    return _refuse(value, "a number")


def _refuse(value: object, wanted: object) -> NoReturn:
    # Not its whole repr: what is nested deeply has none.
    msg = f"expected {wanted}, got {reprlib.repr(value):.80}"
    raise ShapeError(WRONG_TYPE, msg)


def schema_of(kind: type) -> dict[str, Any]:
    """Return the JSON Schema of a record as it is written: a number that is no number is null."""
    return {
        "type": "object",
        "properties": {name: _schema(hint) for name, hint in hints_of(kind).items()},
        "required": [name for name in hints_of(kind) if name in required_of(kind)],
    }


SCALARS: dict[Any, dict[str, Any]] = {
    str: {"type": "string"},
    int: {"type": "integer"},
    bool: {"type": "boolean"},
    float: {"type": ["number", "null"]},
    NoneType: {"type": "null"},
}


def _schema(hint: Any) -> dict[str, Any]:
    origin = get_origin(hint)
    if origin in (Union, UnionType):
        return {"anyOf": [_schema(choice) for choice in get_args(hint)]}
    if origin is Literal:
        return {"enum": list(get_args(hint))}
    if origin is dict:
        return {"type": "object", "additionalProperties": _schema(get_args(hint)[1])}
    if origin is tuple:
        return {"type": "array", "items": _schema(get_args(hint)[0])}
    return SCALARS[hint] if hint in SCALARS else schema_of(hint)
