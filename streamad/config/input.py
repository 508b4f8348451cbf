"""Settings of the input: where records come from, and which field is what."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import Field, model_validator

from streamad.config.section import Section, changed


class FieldsConfig(Section):
    """The names of the fields of a record."""

    key: tuple[str, ...] = ("key",)
    """The fields that name the series (entity); several are joined by ``/``."""
    time: str = "ts"
    """The field with the event time."""
    time_unit: Literal["ms", "s", "ns", "us", "iso"] = "ms"
    """Its unit; ``iso`` is text as in RFC 3339."""
    values: tuple[str, ...] = ("value",)
    """The fields with the measured values, one variate each; ``value`` is read as well."""
    variate: str | None = None
    """Long form: the field that names the variate of a record."""
    variates: tuple[str, ...] = ()
    """Long form: the names of the variates, in order."""
    categories: tuple[str, ...] = ()
    """Events: the categorical fields (user, process, host); empty text counts as missing."""
    numbers: tuple[str, ...] = ()
    """Events: the numeric fields; ``fit`` cuts them into bins."""
    source: str | None = None
    """Edges: the field with the name of the node an edge starts from."""
    target: str | None = None
    """Edges: the field with the name of the node it leads to."""
    source_type: str | None = None
    """Edges: the field with the type of the source (``host``, ``user``)."""
    target_type: str | None = None
    """Edges: the field with the type of the target."""
    weight: str | None = None
    """Edges: the field with the number of times, or bytes, a row stands for; unset: once."""
    tags: tuple[str, ...] = ()
    """Fields kept beside the key, for ``series.select``, ``alerts.group`` and the alert."""
    where: dict[str, str] = Field(default={})
    """Only rows whose fields have these values are read (shell patterns): ``{name: cpu*}``, where
    one topic carries several measurements. Others are counted."""
    rows: str | None = None
    """The array of a message that holds its rows, as Telegraf's batches do: ``metrics``. Fields
    beside it belong to every row that has none of that name."""

    @model_validator(mode="before")
    @classmethod
    def _one_or_many(cls, given: Any) -> Any:
        if not isinstance(given, Mapping):
            return given
        made = {**given}
        if isinstance(made.get("where"), Mapping):
            # YAML reads ``status: 200`` as a number.
            made["where"] = {
                name: str(value) if type(value) is int else value
                for name, value in made["where"].items()
            }
        if "value" in made and "values" not in made:
            made["values"] = made.pop("value")
        for name in ("key", "values", "variates", "categories", "numbers", "tags"):
            if isinstance(made.get(name), str):
                made[name] = (made[name],)
        return made

    @model_validator(mode="after")
    def _long_form(self) -> FieldsConfig:
        if (self.variate is None) != (not self.variates):
            msg = "variate (a field) and variates (its names) go together; give both or neither"
            raise ValueError(msg)
        if self.variate is not None and len(self.values) != 1:
            msg = f"with variate, one value field is expected, got {list(self.values)}"
            raise ValueError(msg)
        return self

    @property
    def variate_names(self) -> tuple[str, ...]:
        """Return the names of the variates, in the order of the columns of a window."""
        return self.variates or self.values


OWN_FIELDS: Mapping[str, tuple[str, ...]] = {
    "signals": ("values", "variate", "variates"),
    "events": ("categories", "numbers"),
    "edges": ("source", "target", "source_type", "target_type", "weight"),
}
"""The fields that only records of one kind have."""
BY_ROLE = ("edges",)
"""Records whose fields play roles, so that what they are called says nothing to a detector."""
SERIES_FORMATS = ("otlp_json", "otlp_proto", "prometheus")
"""Formats that hold nothing but series."""


class InputConfig(Section):
    """Where records come from and how they are read."""

    topics: tuple[str, ...] = ()
    """The topics to read; a single one may be written without a list."""
    records: Literal["signals", "events", "edges"] = "signals"
    """What a record holds: measured values, an event of categorical fields, or an edge of a graph.
    """
    format: str = "json"
    """The format of messages, one of the table of formats below."""
    fields: FieldsConfig = FieldsConfig()
    """Which field is what."""
    start: str = "latest"
    """Where a new pipeline starts to read: ``latest``, ``earliest``, or a time."""
    on_out_of_range: Literal["fail", "earliest", "latest"] = "fail"
    """When retention has deleted the next record: fail, or continue at that end of the topic."""
    repartition: bool = False
    """Re-key the topic first; for topics that spread the records of a key over partitions."""
    max_message_bytes: int = Field(default=4_194_304, ge=1024)
    """A larger message becomes a dead-letter record."""
    max_rows_per_message: int = Field(default=100_000, ge=1)
    """A message with more rows becomes a dead-letter record."""

    @property
    def columns(self) -> tuple[str, ...]:
        """Return the names of what a record holds, in order."""
        if self.records == "signals":
            return self.fields.variate_names
        given = (getattr(self.fields, name) for name in OWN_FIELDS[self.records])
        return tuple(
            name for one in given if one for name in ((one,) if isinstance(one, str) else one)
        )

    @model_validator(mode="after")
    def _own_fields(self) -> InputConfig:
        kind, given = self.records, changed(self.fields)
        for other, names in OWN_FIELDS.items():
            strange = [name for name in names if name in given and other != kind]
            if strange:
                msg = (
                    f"fields.{strange[0]} is for records: {other}, and this pipeline has records: "
                    f"{kind}; it has {', '.join(OWN_FIELDS[kind])}"
                )
                raise ValueError(msg)
        if kind == "events" and not (self.fields.categories or self.fields.numbers):
            msg = "records: events needs fields.categories: the fields that describe an event"
            raise ValueError(msg)
        if kind == "edges" and None in (self.fields.source, self.fields.target):
            msg = "records: edges needs fields.source and fields.target: the two ends of an edge"
            raise ValueError(msg)
        if kind != "signals" and self.format in SERIES_FORMATS:
            msg = f"format: {self.format} holds series; records: {kind} come in other formats"
            raise ValueError(msg)
        return self

    @model_validator(mode="before")
    @classmethod
    def _one_topic(cls, given: Any) -> Any:
        if isinstance(given, Mapping) and isinstance(given.get("topics"), str):
            return {**given, "topics": (given["topics"],)}
        return given
