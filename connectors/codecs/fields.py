"""Which fields of a record are the key, the time and the values: the map every codec works from."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache
from itertools import product, zip_longest
from typing import Any, Literal

import numpy as np
import polars as pl
from numpy.typing import NDArray

from connectors.codecs.payloads import PAYLOADS, Payload
from streamad.errors import ConfigError

TimeUnit = Literal["ms", "s", "ns", "us", "iso"]

BAD_TIME = np.iinfo(np.int64).min
"""Stands for a time that could not be read; it never leaves a codec."""

END_OF_TIME_MS = 7_258_118_400_000
"""The year 2200. A time from 1970 up to here is plausible; others are a wrong unit or a bug."""


FIRST_S, END_S = 900_000_000, END_OF_TIME_MS // 1000
"""1998 to 2200 in seconds: taken for milliseconds, these are days from January to March 1970."""

PER_SECOND: Mapping[TimeUnit, int] = {"s": 1, "ms": 1_000, "us": 1_000_000, "ns": 1_000_000_000}

MAX_DOTS = 3
"""Dots of a name that may each be part of it or a step into an object."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FieldMap:
    """Names of the fields that matter; a dot steps into an object or is part of a name.

    key : several fields are joined with ``/``
    values : one field a variate (wide form), or the one field that holds the value (long form)
    variate : long form: the field that names the variate of a row; ``variates`` lists the names
        wanted, in order, and rows that name another are not used
    records : what rows hold, a name of `PAYLOADS`; roles : pairs of a role and the field with the
        text that plays it, for rows that hold texts; named : what rows call their numbers, by
        default as the fields of values
    tags : fields that travel with a row as text
    where : fields and shell patterns; rows that do not match all of them are not used
    rows : the array inside a message that holds its rows, where they do not stand by themselves
    """

    key: tuple[str, ...] = ("key",)
    time: str = "ts"
    time_unit: TimeUnit = "ms"
    values: tuple[str, ...] = ("value",)
    variate: str | None = None
    variates: tuple[str, ...] = ()
    records: str = "signals"
    roles: tuple[tuple[str, str], ...] = ()
    named: tuple[str, ...] = ()
    tags: tuple[str, ...] = ()
    where: tuple[tuple[str, str], ...] = ()
    rows: str | None = None

    def __post_init__(self) -> None:
        if not self.key or not (self.values or self.roles):
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
        asked = (name for name, _ in self.where)
        return tuple(dict.fromkeys((*self.key, *variate, *self.carried, *asked)))

    @property
    def payload(self) -> Payload:
        """Return what rows hold."""
        return PAYLOADS[self.records]

    @property
    def carried(self) -> tuple[str, ...]:
        """Return the fields whose texts travel with a row: what it holds, and its tags."""
        return tuple(dict.fromkeys((*(name for _, name in self.roles), *self.tags)))

    @property
    def only_held(self) -> frozenset[str]:
        """Return the fields whose texts a row holds and that are no tags."""
        return frozenset(name for _, name in self.roles) - {*self.tags}

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
    units are rounded down, so that a point stays inside the millisecond it was taken in. Times of
    these years in a coarser unit (seconds under ``ms``) would be hours or days of early 1970: they
    are no plausible times.
    """
    if unit == "s":
        # Judged before it is multiplied: a wrapped integer could look plausible.
        fine = plausible(time) & (time < END_OF_TIME_MS / 1000)
        scaled: NDArray[Any] = np.rint(np.where(fine, time, 0) * 1000.0)
    else:
        per_ms = PER_SECOND[unit] // 1000
        scaled = time if per_ms == 1 else np.floor_divide(time, per_ms)
        fine = plausible(scaled)
        if time.dtype.kind == "f":
            fine &= time == np.floor(time)
        smaller = 1
        while smaller <= per_ms:
            fine &= ~((scaled >= FIRST_S // smaller) & (scaled < END_S // smaller))
            smaller *= 1000
    if fine.all():
        return scaled.astype(np.int64)
    return np.where(fine, np.where(fine, scaled, 0).astype(np.int64), BAD_TIME)


def unit_of(number: float) -> TimeUnit | None:
    """Return the unit in which a number is a time from 1998 to 2200, None where there is none.

    Examples
    --------
    >>> unit_of(1_772_409_600), unit_of(1_772_409_600_000), unit_of(51.17)
    ('s', 'ms', None)
    """
    for unit, per_second in PER_SECOND.items():
        if FIRST_S * per_second <= number < END_S * per_second:
            return unit
    return None


def times_to_ms(time: pl.Series, unit: TimeUnit) -> NDArray[np.int64]:
    """Turn a column of times into milliseconds; nulls and nonsense become ``BAD_TIME``."""
    if unit == "iso":
        return texts_to_ms(time)
    if time.dtype.is_integer():
        return numbers_to_ms(time.fill_null(-1).to_numpy(), unit)
    return numbers_to_ms(time.to_numpy(), unit)


def numbers_of(texts: pl.Series) -> pl.Series:
    """Read a column of texts as numbers; null where a text is none.

    Examples
    --------
    >>> numbers_of(pl.Series([" 51.17", "1e3", "NaN", "12 ms", ""])).to_list()
    [51.17, 1000.0, nan, None, None]
    """
    return texts.str.strip_chars().cast(pl.Float64, strict=False)


def text_times_to_ms(texts: pl.Series, unit: TimeUnit) -> NDArray[np.int64]:
    """Turn a column of epoch times that stand as texts into milliseconds."""
    # Of 19 digits a double would keep 16.
    whole = texts.str.strip_chars().cast(pl.Int64, strict=False)
    numbers = numbers_of(texts)
    if whole.null_count() == numbers.null_count():
        return times_to_ms(whole, unit)
    return np.where(
        whole.is_null().to_numpy(), times_to_ms(numbers, unit), times_to_ms(whole, unit)
    )


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
    """Return the value at a dotted ``path``, None where there is none.

    A dot steps into an object or belongs to a name (``{"host.name": "a"}``), as it is found: the
    step comes first.

    Examples
    --------
    >>> look_up({"host": {"name": "a"}}, "host.name"), look_up({"host.name": "b"}, "host.name")
    ('a', 'b')
    """
    for names in spellings(path):
        found = record
        for name in names:
            found = found.get(name) if isinstance(found, dict) else None
        if found is not None:
            return found
    return None


@lru_cache(maxsize=1024)
def spellings(path: str) -> tuple[tuple[str, ...], ...]:
    """Return the ways a dotted path may be spelled in objects, the most nested first.

    Examples
    --------
    >>> spellings("a.b")
    (('a', 'b'), ('a.b',))
    """
    parts = path.split(".")
    ways = []
    # Of names with very many dots only those ways are tried that cut at the first few.
    for joins in product((False, True), repeat=min(len(parts) - 1, MAX_DOTS)):
        names = [parts[0]]
        for part, join in zip_longest(parts[1:], joins, fillvalue=False):
            if join:
                names[-1] += f".{part}"
            else:
                names.append(str(part))
        ways.append(tuple(names))
    return tuple(sorted(ways, key=len, reverse=True))


def nested_schema(
    leaves: Sequence[tuple[str, Any]], ways: Callable[[str], Sequence[tuple[str, ...]]] = spellings
) -> dict[str, Any]:
    """Turn dotted names and their types into a polars schema of the given ways to spell them."""
    tree: dict[str, Any] = {}
    for path, dtype in leaves:
        for *parents, last in ways(path):
            node = tree
            for parent in parents:
                node = node.setdefault(parent, {})
            node[last] = dtype
    return {name: _as_dtype(node) for name, node in tree.items()}


def _as_dtype(node: Any) -> Any:
    if isinstance(node, dict):
        return pl.Struct({name: _as_dtype(child) for name, child in node.items()})
    return node


def column(path: str, ways: Callable[[str], Sequence[tuple[str, ...]]] = spellings) -> pl.Expr:
    """Return the polars expression for a dotted field name, named by the whole path."""
    found = []
    for first, *rest in ways(path):
        expression = pl.col(first)
        for part in rest:
            expression = expression.struct.field(part)
        found.append(expression)
    return pl.coalesce(found).alias(path)


def nested(path: str) -> tuple[tuple[str, ...]]:
    """Return the one way in which every dot steps into an object."""
    return (tuple(path.split(".")),)
