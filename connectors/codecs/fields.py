"""Which fields of a record are the key, the time and the values: the map every codec works from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Literal

import numpy as np
import polars as pl
from numpy.typing import NDArray

from streamad.errors import ConfigError

TimeUnit = Literal["ms", "s", "ns", "us", "iso"]

BAD_TIME = np.iinfo(np.int64).min
"""Stands for a time that could not be read; it never leaves a codec."""

END_OF_TIME_MS = 7_258_118_400_000
"""The year 2200. A time from 1970 up to here is plausible; others are a wrong unit or a bug."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FieldMap:
    """Names of the fields that matter; a dot steps into an object (``labels.host``).

    key : several fields are joined with ``/``
    values : one field a variate (wide form), or the one field that holds the value (long form)
    variate : long form: the field that names the variate of a row; ``variates`` lists the names
        wanted, in order, and rows that name another are not used
    tags : fields that travel with a row as text
    """

    key: tuple[str, ...] = ("key",)
    time: str = "ts"
    time_unit: TimeUnit = "ms"
    values: tuple[str, ...] = ("value",)
    variate: str | None = None
    variates: tuple[str, ...] = ()
    tags: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not self.key or not self.values:
            msg = "fields: key and values must each name at least one field"
            raise ConfigError(msg)
        if self.time_unit not in ("ms", "s", "ns", "us", "iso"):
            msg = f"fields.time_unit is {self.time_unit!r}; it must be ms, s, ns, us or iso"
            raise ConfigError(msg)
        self._check_form()
        self._check_names()

    def _check_form(self) -> None:
        if self.variate is None and self.variates:
            msg = "fields.variates needs fields.variate (long form); wide forms use fields.values"
            raise ConfigError(msg)
        if self.variate is not None and (not self.variates or len(self.values) != 1):
            msg = "fields.variate needs fields.variates, and exactly one field in fields.values"
            raise ConfigError(msg)

    def _check_names(self) -> None:
        measured = [self.time, *self.values]
        if len(set(measured)) < len(measured) or len(set(self.variates)) < len(self.variates):
            msg = f"fields: time and values must be different fields, got {measured}"
            raise ConfigError(msg)
        if shared := set(measured) & set(self.texts):
            msg = f"fields: {sorted(shared)} cannot be both a number and a key, variate or tag"
            raise ConfigError(msg)
        for name in self.names:
            if not all(name.split(".")):
                msg = f"fields: {name!r} is no field name"
                raise ConfigError(msg)
            if any(other.startswith(name + ".") for other in self.names):
                msg = f"fields: {name!r} cannot be both a value and an object with fields"
                raise ConfigError(msg)

    @property
    def texts(self) -> tuple[str, ...]:
        """Return the fields read as text, each once."""
        variate = () if self.variate is None else (self.variate,)
        return tuple(dict.fromkeys((*self.key, *variate, *self.tags)))

    @property
    def names(self) -> tuple[str, ...]:
        """Return every field, each once."""
        return (*self.texts, self.time, *self.values)

    @property
    def variate_names(self) -> tuple[str, ...]:
        """Return the names of the columns of ``SignalBatch.values``."""
        return self.values if self.variate is None else self.variates


def plausible(time_ms: NDArray[Any]) -> NDArray[np.bool_]:
    """Say which times lie between 1970 and 2200; NaN and ``BAD_TIME`` do not."""
    return np.asarray((time_ms >= 0) & (time_ms < END_OF_TIME_MS))


def numbers_to_ms(time: NDArray[Any], unit: TimeUnit) -> NDArray[np.int64]:
    """Turn numeric times into milliseconds; what is no plausible time becomes ``BAD_TIME``.

    Milliseconds, micro- and nanoseconds must be whole numbers; seconds may have a fraction. Finer
    units are rounded down, so that a point stays inside the millisecond it was taken in.
    """
    if unit == "s":
        # Judged before it is multiplied: a wrapped integer could look plausible.
        fine = plausible(time) & (time < END_OF_TIME_MS / 1000)
        scaled: NDArray[Any] = np.rint(np.where(fine, time, 0) * 1000.0)
    else:
        per_ms = {"ms": 1, "us": 1_000, "ns": 1_000_000}[unit]
        scaled = time if per_ms == 1 else np.floor_divide(time, per_ms)
        fine = plausible(scaled)
        if time.dtype.kind == "f":
            fine &= time == np.floor(time)
    if fine.all():
        return scaled.astype(np.int64)
    return np.where(fine, np.where(fine, scaled, 0).astype(np.int64), BAD_TIME)


def times_to_ms(time: pl.Series, unit: TimeUnit) -> NDArray[np.int64]:
    """Turn a column of times into milliseconds; nulls and nonsense become ``BAD_TIME``."""
    if unit == "iso":
        return texts_to_ms(time)
    if time.dtype.is_integer():
        return numbers_to_ms(time.fill_null(-1).to_numpy(), unit)
    return numbers_to_ms(time.to_numpy(), unit)


def texts_to_ms(time: pl.Series) -> NDArray[np.int64]:
    """Turn ISO 8601 texts into milliseconds (no zone means UTC), ``BAD_TIME`` where it is none."""
    parsed = _rfc3339(time)
    if parsed.null_count():
        # No zone, and often a space for the T: made RFC 3339, so that one quick parser serves both.
        zoned = _rfc3339(time.str.replace(" ", "T", literal=True) + "Z")
        parsed = parsed.zip_with(parsed.is_not_null(), zoned)
    result = parsed.to_physical().fill_null(BAD_TIME).to_numpy().copy()
    for index in np.flatnonzero(result == BAD_TIME).tolist():
        result[index] = _iso_ms(time[index])
    return np.where(plausible(result), result, BAD_TIME)


def _rfc3339(time: pl.Series) -> pl.Series:
    return time.str.to_datetime("%+", time_unit="ms", time_zone="UTC", strict=False)


def _iso_ms(text: str | None) -> int:
    try:
        moment = datetime.fromisoformat(text or "")
        if moment.tzinfo is None:
            moment = moment.replace(tzinfo=UTC)
        since = moment - datetime(1970, 1, 1, tzinfo=UTC)
    except (ValueError, OverflowError):
        return int(BAD_TIME)
    return (since.days * 86_400 + since.seconds) * 1000 + since.microseconds // 1000


def look_up(record: object, path: str) -> object:
    """Return the value at a dotted ``path``, None where there is none."""
    for part in path.split("."):
        if not isinstance(record, dict):
            return None
        record = record.get(part)
    return record


def nested_schema(leaves: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    """Turn dotted names and their types into a polars schema of nested structs."""
    tree: dict[str, Any] = {}
    for path, dtype in leaves:
        *parents, last = path.split(".")
        node = tree
        for parent in parents:
            node = node.setdefault(parent, {})
        node[last] = dtype
    return {name: _as_dtype(node) for name, node in tree.items()}


def _as_dtype(node: Any) -> Any:
    if isinstance(node, dict):
        return pl.Struct({name: _as_dtype(child) for name, child in node.items()})
    return node


def column(path: str) -> pl.Expr:
    """Return the polars expression for a dotted field name, named by the whole path."""
    first, *rest = path.split(".")
    expression = pl.col(first)
    for part in rest:
        expression = expression.struct.field(part)
    return expression.alias(path)
