"""Events and edges in a table: whether it holds some, and which field of a pipeline is what."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import polars as pl

from connectors.codecs.fields import BAD_TIME, FIRST_S
from connectors.files import BY_ROW
from connectors.files.ends import ends_of, kinds_of
from connectors.files.roles import KEY_NAMES, Roles
from connectors.files.sheet import Sheet
from connectors.files.times import tick_column
from jobs.init.columns import Columns, columns_of, words_of
from streamad.errors import ConfigError

MOST_CATEGORIES = 12
"""Pairs of fields are counted: more cost more, and say less each."""
MOST_NUMBERS = 6
EVEN_SHARE = 0.7
"""Of times between rows with the same texts: where so many are about equal, rows are readings."""
LEAST_TEXTS = {False: 2, True: 3}
"""Fields of texts, none of which follows from another, that show events, where fields that measure
something stand beside them (True) and where none does."""
READINGS = frozenset({"value", "val", "reading", "measurement", "gauge"})
"""Names of a number that is the matter of its record."""
LEAST_PER_KEY = 20
"""Rows per key: of a field with fewer, most values would be keys without a history."""

MOST_STAGES = 4
LEAST_STAGED = 0.2
"""Ids per row, of ids that several rows share because each has several stages."""

WHO: Sequence[tuple[str, ...]] = (
    ("user", "username", "login", "account", "principal", "subject", "actor", "identity",
     "employee", "arn", "customer", "member"),
    ("host", "hostname", "computer", "machine", "instance", "node", "device", "agent", "observer",
     "workstation", "server"),
    ("pod", "container", "service", "serviceaccount", "app", "application", "client", "tenant"),
    ("ip", "address", "addr", "src", "source"),
    ("component", "program", "process", "proc", "channel", "logger", "unit"),
)  # fmt: skip
"""Words in names of fields that say whose event it is, the most telling first."""
CALENDAR = frozenset({"date", "day", "month", "year", "weekday", "time"})
"""Words in names of fields that are parts of a moment."""
WHERE = frozenset({
    "tenant", "site", "cluster", "namespace", "org", "organisation", "organization", "customer",
    "environment", "env", "observer", "exporter", "sensor", "region", "zone", "datacenter", "vlan",
    "recording", "network",
})  # fmt: skip
"""Words in names of fields that say which population an edge is of."""
WEIGHTS: Sequence[str] = (
    "calls", "call", "requests", "connections", "flows", "count", "events", "packets", "pkts",
    "bytes", "octets",
)  # fmt: skip
"""Words in names of what an edge counts for, the best first."""
NO_WEIGHT = frozenset({"error", "errors", "failed", "failures", "id", "per", "rate", "in", "out"})
MOST_PAIRS = 10_000
PAIRS_SHARE = 0.5
"""Of rows: where more have a pair of their own, a new pair is no news."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Items:
    """What a table of events or edges holds.

    fields : of a pipeline's ``input.fields``, key and time included; detector : that suits;
    why : reasons, by the field or section that they explain; notes : what is left out
    """

    records: str
    fields: dict[str, Any]
    detector: str
    why: dict[str, str]
    notes: tuple[str, ...]


def look_for_items(sheet: Sheet, roles: Roles, *, file: bool, asked: str | None) -> Items | None:
    """Return what a table holds where it is events or edges; None where it is signals.

    roles : the time, found; file : the table is a file, whose rows may lack times; asked : the
    kind of records that the caller names, None to find it

    Raises
    ------
    ConfigError
        where it cannot be of the kind that is asked for
    """
    tried = [records for records in FINDERS if asked in (None, records)]
    if not tried:
        return None
    if file and _are_clocks(roles):
        roles = replace(roles, time=None, moments=None)
    time = roles.time or tick_column(sheet.frame) or BY_ROW
    columns = columns_of(sheet, taken={time})
    for records in tried:
        found = FINDERS[records](sheet, roles, columns, asked is not None)
        if found is None:
            continue
        if roles.time is None and not file:
            msg = f"{sheet.name}: no field holds times; it has: {', '.join(sheet.frame.columns)}"
            raise ConfigError(msg)
        found.fields["time"] = time
        return found
    return None


def _are_clocks(roles: Roles) -> bool:
    """Say whether times of a file are numbers such as 203615 for 20:36:15, and no moments."""
    if roles.moments is None or roles.moments.unit == "iso":
        return False
    known = roles.moments.ms[roles.moments.ms != BAD_TIME]
    return bool(len(known) and known.max() < FIRST_S * 1000)


# ------------------------------------------------------------------ edges


def _edges(sheet: Sheet, roles: Roles, columns: Columns, asked: bool) -> Items | None:  # noqa: FBT001
    frame = sheet.frame
    usable = [name for name in frame.columns if _names_nodes(name, columns)]
    ends = ends_of(usable)
    if ends is None:
        if asked:
            msg = (
                f"{sheet.name}: no two fields are the ends of an edge (source and target, src and "
                f"dst, client and server); it has: {', '.join(frame.columns)}"
            )
            raise ConfigError(msg)
        return None
    if not asked and columns.fractions and _is_even(frame, roles, ends):
        return None  # a series of readings per pair
    others = [name for name in columns.categories if name not in ends]
    fields: dict[str, Any] = {"source": ends[0], "target": ends[1]}
    kinds = kinds_of(frame.columns) or ()
    fields |= dict(zip(("source_type", "target_type"), kinds, strict=False))
    single = next((n for n in frame.columns if words_of(n) == ("connection", "type")), None)
    if not kinds and single is not None:
        fields["target_type"] = single
    weight = _weight(frame, roles)
    if weight is not None:
        fields["weight"] = weight
    places = [n for n in (*others, *columns.constant) if WHERE & {*words_of(n)}]
    places = [n for n in places if n not in fields.values() and columns.held[n] == 1]
    key = [*places[:1], *(n for n in others if n.lower() in KEY_NAMES)][:1] or [ends[0]]
    fields["key"] = (key[0],)
    pairs, rows = frame.select(ends).n_unique(), frame.height
    few = pairs <= min(MOST_PAIRS, PAIRS_SHARE * rows)
    why = {
        "key": "What an alert is about; all edges of a partition are one population.",
        "detector": (
            f"{pairs:,} different edges in {rows:,} rows: a new or a vanished one is news."
            if few
            else f"{pairs:,} different edges in {rows:,} rows: new ones are usual, bursts are not."
        ),
    }
    left = [n for n in frame.columns if n not in (*fields.values(), key[0], roles.time)]
    notes = (f"fields of no edge are left out: {', '.join(left)}",) if left else ()
    return Items(
        records="edges",
        fields=fields,
        detector="edge_changes" if few else "edge_stream",
        why=why,
        notes=notes,
    )


def _names_nodes(name: str, columns: Columns) -> bool:
    """Say whether a field may hold names of nodes: in nearly every row, and no measurement."""
    if name in columns.fractions or columns.held.get(name, 0.0) < 0.95:
        return False
    return columns.why.get(name) not in ("holds times", "holds lists")


def _weight(frame: pl.DataFrame, roles: Roles) -> str | None:
    """Return the field that says how often an edge was there, or how much went over it."""
    for wanted in WEIGHTS:
        for name in frame.columns:
            words = words_of(name)
            if name == roles.time or not {wanted, f"{wanted}s"} & {*words} or NO_WEIGHT & {*words}:
                continue
            numbers = frame[name].cast(pl.Float64, strict=False)
            if not numbers.null_count() and bool((numbers > 0).all()):
                return name
    return None


# ------------------------------------------------------------------ events


def _events(sheet: Sheet, roles: Roles, columns: Columns, asked: bool) -> Items | None:  # noqa: FBT001
    frame = sheet.frame
    if not asked and not _looks_like_events(frame, roles, columns):
        return None
    if not columns.categories:
        msg = f"{sheet.name}: no field shows what kind of event a row is; " + "; ".join(
            f"{name} {why}" for name, why in columns.why.items()
        )
        raise ConfigError(msg)
    where = _one_of_each(frame, columns)
    key, why = _whose(frame, columns)
    taken = {key, *where}
    rest = [name for name in columns.categories if name not in taken]
    rest.sort(key=lambda name: round(1 - columns.held[name], 1))
    chosen = [name for name in columns.categories if name in rest[:MOST_CATEGORIES]]
    numbers = columns.numbers[:MOST_NUMBERS]
    notes = [f"{name} is left out: {reason}" for name, reason in columns.why.items()]
    same = [name for name in columns.constant if name != key]
    if same:
        notes.append(f"left out, with one value in all rows: {', '.join(same)}")
    more = [*rest[MOST_CATEGORIES:], *columns.numbers[MOST_NUMBERS:]]
    if more:
        notes.append(f"left out, as more fields cost more and say less each: {', '.join(more)}")
    if not chosen and not numbers:
        msg = f"{sheet.name}: beside {key} no field describes an event; {'; '.join(notes)}"
        raise ConfigError(msg)
    per_key = frame.height // max(columns.kinds[key], 1)
    return Items(
        records="events",
        fields={
            "key": (key,),
            "where": where,
            "categories": tuple(chosen),
            "numbers": tuple(numbers),
        },
        detector="rare_events",
        why={
            "key": why,
            "where": "Several records are of one event; one of them is enough.",
            "detector": _history(per_key),
        },
        notes=tuple(notes),
    )


def _one_of_each(frame: pl.DataFrame, columns: Columns) -> dict[str, str]:
    """Return which record of an event to read, where each has several: of its stages.

    An id whose rows differ in a field of few values shows that; the value whose rows hold most is
    read.
    """
    for name in columns.why:
        ids = frame[name].drop_nulls()
        if (
            not LEAST_STAGED * len(ids) < ids.n_unique() <= 0.9 * len(ids)
            or len(ids) < frame.height
        ):
            continue
        for stage in columns.categories:
            few = stage in columns.texts and columns.kinds[stage] <= MOST_STAGES
            if (
                few
                and columns.held[stage] == 1
                and frame.select(name, stage).n_unique() == len(ids)
            ):
                counts = frame.group_by(stage).agg(
                    pl.len().cast(pl.Int64).alias("rows of it"),
                    pl.all().exclude(stage).null_count(),
                )
                lacking = counts.select(
                    pl.col(stage),
                    pl.sum_horizontal(pl.exclude(stage, "rows of it")) / pl.col("rows of it"),
                    pl.col("rows of it"),
                )
                best = lacking.sort(lacking.columns[1], -pl.col("rows of it"), stage)
                return {stage: str(best[stage][0])}
    return {}


def _history(per_key: int) -> str:
    return (
        f"It needs no training; a key is known after 512 events, and has about {per_key:,} here. "
        "`streamad fit` learns from all keys."
    )


def _looks_like_events(frame: pl.DataFrame, roles: Roles, columns: Columns) -> bool:
    """Say whether rows tell what happened rather than what was measured."""
    texts = [name for name in columns.categories if name in columns.texts]
    codes = [name for name in columns.categories if name not in columns.texts]
    if any(READINGS & {name.strip().lower()} for name in (*columns.numbers, *codes)):
        return False
    apart = _independent(frame, texts)
    if not columns.numbers and not codes:
        return bool(texts)
    if len(apart) < LEAST_TEXTS[bool(columns.numbers)]:
        return False
    return not _is_even(frame, roles, texts)


def _independent(frame: pl.DataFrame, names: Sequence[str]) -> list[str]:
    """Return fields of which none follows from another: the region of a host says nothing new."""
    kinds = {name: frame[name].n_unique() for name in names}
    kept: list[str] = []
    for name in sorted(names, key=lambda n: -kinds[n]):
        if all(frame.select(other, name).n_unique() > kinds[other] for other in kept):
            kept.append(name)
    return kept


def _is_even(frame: pl.DataFrame, roles: Roles, names: Sequence[str]) -> bool:
    """Say whether rows with the same texts come at even steps, as readings of a series do."""
    if roles.moments is None or len(roles.moments.ms) != frame.height:
        return False
    times = pl.Series("time in ms", roles.moments.ms)
    table = (
        frame.select(pl.struct(names).rank("dense").alias("series"))
        if names
        else frame.select(pl.lit(0).alias("series"))
    )
    table = table.with_columns(times).filter(pl.col("time in ms") != BAD_TIME)
    steps = (
        table.sort("series", "time in ms")
        .select(pl.col("time in ms").diff().over("series"))
        .to_series()
        .drop_nulls()
        .to_numpy()
    )
    steps = steps[steps > 0]
    if len(steps) < table["series"].n_unique():
        return False  # most series have one reading: they are none
    usual = float(np.median(steps))
    return bool((np.abs(steps - usual) <= 0.2 * usual).mean() > EVEN_SHARE)


def _whose(frame: pl.DataFrame, columns: Columns) -> tuple[str, str]:
    """Return the field that says whose event it is, in every row, and why it was chosen."""
    able = [
        name
        for name in (*columns.categories, *columns.constant)
        if columns.held[name] == 1 and words_of(name) and not CALENDAR & {*words_of(name)}
    ]
    usual = [name for name in able if name.strip().lower() in KEY_NAMES[:-1]]
    if usual:
        return usual[0], "The field that names the entity."
    for least, most in ((2, frame.height / LEAST_PER_KEY), (2, frame.height / 2), (1, 1)):
        for words in WHO:
            for name in able:
                n = columns.kinds[name]
                if {*words} & {words_of(name)[-1], *_of_name(name)} and least <= n <= most:
                    return name, f"Whose event it is ({n:,} in all); alerts name it."
    chosen = min(able or columns.categories, key=lambda name: columns.kinds[name])
    n = columns.kinds[chosen]
    return chosen, (
        f"No field is known to name a user or a host; this one has {n:,} value"
        f"{'s' if n != 1 else ''}. Name a better one, if there is."
    )


def _of_name(name: str) -> set[str]:
    """Return the words of a name before a last `name` or `id`: of `user.name`, user."""
    words = words_of(name)
    return {words[-2]} if len(words) > 1 and words[-1] in ("name", "id", "ip", "arn") else set()


Finder = Callable[[Sheet, Roles, Columns, bool], "Items | None"]
FINDERS: Mapping[str, Finder] = {"edges": _edges, "events": _events}
"""By ``input.records``, in the order in which a table is tried; what is none of them is signals."""
