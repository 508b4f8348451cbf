"""The sections of a pipeline file: every setting with its type, its default and what it does."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    field_validator,
    model_validator,
)

from streamad.config_live import Live, LiveIfGiven
from streamad.config_values import (
    Duration,
    Pages,
    Rarity,
    Size,
    format_duration,
    write_level,
)
from streamad.links import check_templates


class Section(BaseModel):
    """A part of the pipeline file: frozen, and without room for unknown keys."""

    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=())


def changed(section: Section) -> set[str]:
    """Return the names of the settings of a section that differ from their default."""
    return {
        name
        for name, known in type(section).model_fields.items()
        if getattr(section, name) != known.get_default(call_default_factory=True)
    }


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
    where: dict[str, str] = {}
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


class SelectConfig(Section):
    """The series to watch, by shell patterns on the key and on tags."""

    include: tuple[str, ...] = ("*",)
    """Keys to watch, as shell patterns."""
    exclude: tuple[str, ...] = ()
    """Keys not to watch, even if included."""
    tags: dict[str, str] = Field(default_factory=dict)
    """Tags required of a key, as shell patterns."""


class GapsConfig(Section):
    """How missing samples are filled, and when a window is not scored."""

    fill: Literal["none", "previous", "linear", "zero"] | None = None
    """How a missing sample is filled; unset: ``zero`` for ``kind: delta``, else ``previous``. With
    ``zero``, no record in a step means that nothing happened: the sample is not missing."""
    max_share: float = Field(default=0.2, ge=0, le=1)
    """A window with a larger share of missing samples is not scored (``incomplete``)."""


class SeriesConfig(Section):
    """From points to samples: metric kind, grid, lateness, silence, bounds."""

    kind: Literal["auto", "gauge", "counter", "delta"] = "auto"
    """``counter`` becomes a rate per second (resets are handled); ``delta`` is summed. ``auto``:
    each series is what its records declare (OTLP, names in Prometheus, a tag ``kind``), else a
    gauge."""
    step: Duration | None = None
    """The time grid of samples; without it every record is a sample."""
    aggregate: Literal["last", "mean", "max", "sum"] = "mean"
    """How several records in one step are combined."""
    lateness: Duration = 0
    """How long a sample stays open for late records, in the key's event time."""
    late: Literal["drop", "topic"] = "drop"
    """Later records are dropped, or written to the late topic; they are always counted."""
    reorder: int = Field(default=64, ge=1, le=4096)
    """Without ``step``: the most samples per key held open for ``lateness``."""
    gaps: GapsConfig = GapsConfig()
    """Missing samples."""
    silence: Duration | None = None
    """A key without data for this long is a finding (``no_data``); unset: never."""
    silence_by: Literal["key", "group"] = "key"
    """``group``: only once no key of a group (``alerts.group``) sends. ``key``: each key, but not
    one in whose place another of its kind has come: a replaced pod, an autoscaled host."""
    gone_after: Duration = 14_400_000
    """Alerts of a key that sends no data end after so long: it is taken for gone. Its baseline is
    kept."""
    ttl: Duration = 86_400_000
    """A key without data for this long is forgotten, with its baseline."""
    max_keys: int = Field(default=1_000_000, ge=1)
    """Most keys per partition; records of further keys become dead-letter records."""
    max_memory: Size = 4 * 2**30
    """Most memory per partition for all keys (``512MiB``, ``4GiB``); what would start another
    window becomes a dead-letter record. ``streamad validate`` shows how many keys fit. Unset, the
    plain job takes less where the process may take less: see Sizing."""
    max_ahead: Duration = 3_600_000
    """A record further ahead of its Kafka timestamp, or of what other records of its partition
    show, becomes a dead-letter record, until several messages and most keys confirm the jump."""
    select: SelectConfig = SelectConfig()
    """Which keys are watched."""

    @model_validator(mode="after")
    def _sane(self) -> SeriesConfig:
        if self.step is not None and self.step < 1:
            msg = f"step must be at least 1ms, got {self.step}ms"
            raise ValueError(msg)
        if self.silence is not None and self.silence >= self.ttl:
            msg = (
                f"silence ({self.silence}ms) must be less than ttl ({self.ttl}ms); "
                "a forgotten key is never silent"
            )
            raise ValueError(msg)
        if self.step is not None and self.lateness > 4000 * self.step:
            msg = (
                f"lateness ({self.lateness}ms) holds more than 4000 steps of {self.step}ms open; "
                "lower it or raise step"
            )
            raise ValueError(msg)
        return self


def _parse_size(value: Any) -> Any:
    whole = isinstance(value, int) and not isinstance(value, bool)
    if not whole and value != "auto" and not str(value).strip().isdigit():
        msg = f"expected a number of samples, or auto, got {value!r}"
        raise ValueError(msg)
    return value


class WindowsConfig(Section):
    """How samples become windows."""

    size: Annotated[int | Literal["auto"], BeforeValidator(_parse_size)] = "auto"
    """Samples per window; ``auto`` takes the size of the artifact or the detector's default."""
    stride: int = Field(default=1, ge=1)
    """Samples between the ends of two windows."""

    @model_validator(mode="after")
    def _possible(self) -> WindowsConfig:
        if isinstance(self.size, int):
            if not 2 <= self.size <= 8192:
                msg = f"size must lie in 2..8192 samples, got {self.size}"
                raise ValueError(msg)
            if self.stride > self.size:
                msg = (
                    f"stride ({self.stride}) must not exceed size ({self.size}), "
                    "or samples would never be seen"
                )
                raise ValueError(msg)
        return self


class GraphsConfig(Section):
    """How edges become graphs, for detectors that judge graphs."""

    span: Duration = 60_000
    """Length of a window, in the key's event time: its edges are one graph."""
    slide: Duration | None = None
    """From the start of a window to that of the next; unset: ``span``, windows do not overlap."""
    max_nodes: int = Field(default=10_000, ge=2, le=1_000_000)
    """Most nodes per graph; edges of further nodes are counted and left out."""
    max_edges: int = Field(default=100_000, ge=1, le=10_000_000)
    """Most different edges per graph; further ones are counted and left out."""

    @model_validator(mode="after")
    def _whole_panes(self) -> GraphsConfig:
        slide = self.slide or self.span
        if self.span < 1 or self.span % slide:
            msg = (
                f"slide ({format_duration(slide)}) must divide span "
                f"({format_duration(self.span)}); a window is made of whole slides"
            )
            raise ValueError(msg)
        if self.span // slide > 1_000:
            msg = f"a window has {self.span // slide} slides, at most 1000 are held; raise slide"
            raise ValueError(msg)
        return self


class DetectorConfig(Section):
    """The detector, and the artifact it starts from."""

    name: str = "knn_fused"
    """A detector of docs/detectors.md."""
    artifact: LiveIfGiven[str | None] = None
    """The output of ``streamad fit``: a folder, or a URL of a store that fsspec reads (``s3://``,
    ``gs://``, ``abfs://``, ``hdfs://``, ``https://``)."""
    params: dict[str, Any] = Field(default_factory=dict)
    """Parameters of the detector."""
    reload: Live[Duration] = 10_000
    """How often ``streamad run`` looks for a new artifact in the place of the old one, which then
    takes over without a restart (docs/operations.md); ``0s``: never."""

    @model_validator(mode="before")
    @classmethod
    def _name_alone(cls, given: Any) -> Any:
        return {"name": given} if isinstance(given, str) else given


class MinEffectConfig(Section):
    """Ignore anomalies smaller than this."""

    absolute: float = Field(default=0.0, ge=0)
    """The least difference from the expected value, in the unit of the input."""
    relative: float = Field(default=0.0, ge=0)
    """The least difference as a share of the expected value."""


class ScoringConfig(Section):
    """From score to episode, per key."""

    candidate: Rarity | None = None
    """A window so rare for its key opens an episode: a return period (``2d``: an ordinary series
    shows one about once in two days), or the probability of a window. Default: somewhat less rare
    than ``alerts.level``."""
    exit: Rarity | None = None
    """An episode ends once windows are less rare than this. Default: somewhat less than
    ``candidate``."""
    min_windows: int = Field(default=32, ge=0)
    """Windows of a key that are scored before one may open an episode."""
    min_duration: int = Field(default=1, ge=1, le=10_000)
    """Consecutive candidates required to open an episode."""
    cool_down: int = Field(default=5, ge=1, le=10_000)
    """Consecutive windows below the exit level required to end one; doubles each time a series
    flaps."""
    adopt_after: Duration = 86_400_000
    """An episode that lasts so long (and four windows' lengths) is the new normal: it ends, and the
    new level is what is expected. It takes four messages at least, however many rows one has."""
    memory: Duration = 14 * 86_400_000
    """History that a key's normal is made of: the maxima of up to 336 blocks. Blocks are an hour
    long for the default, longer where a window is."""
    timezone: str = "UTC"
    """Where hours of the day and days of the week are those of people: a name such as
    ``Europe/Berlin``. What recurs at its hour is normal there, summer time included."""
    first_day: Duration = 86_400_000
    """How long the centred look of a key without training only learns: a daily rhythm that has not
    been seen whole is no anomaly. The look at the newest samples counts sudden changes."""
    update_every: int = Field(default=60, ge=1)
    """Windows between two updates of an open episode."""
    direction: Literal["above", "below", "both"] = "both"
    """Alert above, below, or on both sides of the expected value."""
    min_effect: MinEffectConfig = MinEffectConfig()
    """The least effect that is reported."""

    @field_validator("timezone")
    @classmethod
    def _known_zone(cls, given: str) -> str:
        try:
            ZoneInfo(given)
        except (ZoneInfoNotFoundError, ValueError, OSError) as error:
            msg = f"expected the name of a time zone such as UTC or Europe/Berlin, got {given!r}"
            raise ValueError(msg) from error
        return given

    @model_validator(mode="after")
    def _hysteresis(self) -> ScoringConfig:
        one, other = self.candidate, self.exit
        if one is None or other is None or isinstance(one, int) != isinstance(other, int):
            return self
        # A probability is rarer where it is smaller, a return period where it is longer.
        rarer = other > one if isinstance(one, int) else other < one
        if rarer:
            msg = (
                f"exit ({write_level(other)}) must not be rarer than candidate "
                f"({write_level(one)}), or episodes would flap"
            )
            raise ValueError(msg)
        return self


class LimitConfig(Section):
    """How many alerts may open in a time; one alert of kind ``flood`` counts the others."""

    per_key: int = Field(default=10, ge=1)
    """Most alerts of a key that open in this time."""
    per_group: int = Field(default=100, ge=1)
    """Most alerts of a group (``alerts.group``) that open in this time."""
    within: Duration = 3_600_000
    """The time, counted from the full hour (or other multiples of it) as findings are written; a
    back-test counts in event time."""

    @field_validator("within")
    @classmethod
    def _some_time(cls, given: int) -> int:
        if given < 1_000:
            msg = f"expected at least 1s, got {format_duration(given)}"
            raise ValueError(msg)
        return given


class AlertsConfig(Section):
    """From finding to alert: the boundary and the life-cycle."""

    level: Rarity = 5 * 86_400_000
    """What has severity 1.0, from where on a finding is an alert: a return period (``5d``: an
    ordinary series shows one as rare about once in five days), or the probability of a window."""
    max_age: Duration = 3_600_000
    """Alerts found later than this after the event are marked ``past``; they page nobody."""
    update_every: Duration = 60_000
    """The least time between two updates of an alert, unless it becomes much worse."""
    tenant: str = "default"
    """The record key of findings: one member reads all findings of a tenant."""
    group: str | None = None
    """A key field or tag whose value groups alerts (a service, a team)."""
    runbook: Live[str | None] = None
    """A link in every alert."""
    links: Live[dict[str, str]] = Field(default_factory=dict)
    """Further links, with the entity filled in: ``{dashboard: https://grafana/d/x?host={host}}``.
    Fields of the key and tags are known, and ``{key}``, ``{group}``, ``{pipeline}``, ``{from_ms}``,
    ``{to_ms}``, ``{from_iso}``, ``{to_iso}``; a brace of the link itself is written twice."""
    budget: Pages | None = None
    """``10 per week``: pages that a group is ready to take. It sets how strong an episode must be
    to be an alert, in place of ``level``; unset: ``level`` decides, and every incident pages."""
    limit: LimitConfig = LimitConfig()
    """Bounds on alerts."""

    @field_validator("links")
    @classmethod
    def _templates(cls, given: dict[str, str]) -> dict[str, str]:
        check_templates(given)
        return given


class DeliveryConfig(Section):
    """How often outputs are committed and state is saved."""

    commit_interval: Live[Duration] = 500
    """The longest time between two transactions while there is something to commit."""
    snapshot_interval: Live[Duration] = 60_000
    """Time between two snapshots of a partition: longer is cheaper, shorter recovers sooner."""
    snapshot_store: str = "topic"
    """``topic``, or a folder or URL that fsspec writes."""
    on_state_mismatch: Literal["refuse", "fresh"] = "refuse"
    """When the state was made with other settings: refuse to start, or discard it."""
    max_poll_records: int = Field(default=20_000, ge=1)
    """Messages per poll of the broker."""
    transaction_timeout: Duration = 10_000
    """The broker aborts an unfinished transaction after this time; readers wait that long."""


class FlinkConfig(Section):
    """How the job runs on Flink; ``streamad run`` ignores it, and no decision depends on it."""

    parallelism: int = Field(default=1, ge=1, le=32_768)
    """Slots that run detect in parallel; more slots than partitions of the input would be idle."""
    max_parallelism: int | None = Field(default=None, ge=1, le=32_768)
    """The most slots the state can ever be spread over; default: the partitions at the first start.
    It is part of the state: a savepoint keeps it."""
    checkpoint_interval: Duration = 5_000
    """Time between checkpoints; output becomes visible with a checkpoint."""
    checkpoint_dir: str | None = None
    """Where checkpoints and savepoints are kept: a folder or URL that every task manager reaches.
    Default: the cluster's own, and ``.streamad/flink`` where Flink runs in this process."""
    state_backend: Literal["rocksdb", "hashmap"] = "rocksdb"
    """``hashmap`` keeps state in the memory of the JVM: quicker while it fits."""
    execution_mode: Literal["process"] = "process"
    """How Flink runs Python. ``thread`` is refused: see docs/flink.md."""
    bundle_size: int = Field(default=10_000, ge=1, le=1_000_000)
    """Most messages that Flink passes to Python at once."""
    bundle_time: Duration = 100
    """The longest time before a bundle that is not full is passed on."""
    linger: Duration = 100
    """The longest time a message waits to be scored in one batch with others."""
    journal_bytes: int = Field(default=8_388_608, ge=4096)
    """A shard's journal is replaced by a snapshot once it is larger than this and the snapshot."""
    transaction_timeout: Duration = 900_000
    """How long the broker keeps output that no checkpoint has confirmed: longer than any outage of
    the job, and at most the broker's ``transaction.max.timeout.ms``."""
    connector_jar: str | None = None
    """The jar of Flink's Kafka connector, with the jars of Kafka's codecs in its folder; default:
    what ``make setup-flink`` fetched, else what the cluster's ``lib`` folder holds."""
    options: dict[str, str] = Field(default_factory=dict)
    """Any option of Flink, such as ``taskmanager.memory.managed.size``; overrides all above."""

    @field_validator("execution_mode", mode="before")
    @classmethod
    def _no_threads(cls, given: Any) -> Any:
        if given == "thread":
            msg = (
                "thread is refused: PyFlink 2.2 hands byte arrays of keyed state over as arrays of "
                "objects there, and all slots of a task manager share one interpreter lock; "
                "use process"
            )
            raise ValueError(msg)
        return given

    @field_validator("linger", "bundle_time", "checkpoint_interval")
    @classmethod
    def _some_time(cls, given: int) -> int:
        if given < 1:
            msg = f"expected at least 1ms, got {given}ms"
            raise ValueError(msg)
        return given


class OutputConfig(Section):
    """Names of the output topics, by default derived from the pipeline's name, and their format."""

    findings: str | None = None
    """Default ``streamad.<name>.findings``."""
    alerts: str | None = None
    """Default ``streamad.<name>.alerts``."""
    scores: str | None = None
    """Default ``streamad.<name>.scores``."""
    state: str | None = None
    """Default ``streamad.<name>.state``."""
    dead_letters: str = "{topic}.dlq"
    """Unusable input, with the reason; one topic per input."""
    late: str = "{topic}.late"
    """Late records, where ``series.late`` is ``topic``; one topic per input."""
    format: Literal["json", "confluent"] = "json"
    """Of findings, alerts and incidents. ``confluent``: JSON behind five bytes that name its schema
    in a schema registry (``SCHEMA_REGISTRY_URL``), for clients that expect them. All of streamad
    reads both."""
    register_schemas: bool = True
    """Register schemas at the start where they are not yet. ``false``: they must be there, see
    ``streamad topics schemas``."""
