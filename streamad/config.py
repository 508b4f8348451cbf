"""The pipeline file as a frozen, validated tree; mistakes are told with line and nearest name.

Durations are written ``300ms``, ``10s``, ``5m``, ``2h``, ``7d``; a bare number is refused, because
nobody remembers which unit it was.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainSerializer,
    ValidationError,
    field_validator,
    model_validator,
)

from streamad.config_text import explain, line_holding, read_yaml
from streamad.errors import ConfigError

_UNITS = {"ms": 1, "s": 1_000, "m": 60_000, "h": 3_600_000, "d": 86_400_000}
_DURATION = re.compile(r"^\s*(\d+(?:\.\d+)?)\s*(ms|s|m|h|d)\s*$")


def parse_duration(value: Any) -> int:
    """Return milliseconds for ``"10s"`` and the like.

    Examples
    --------
    >>> parse_duration("1.5m")
    90000
    """
    if isinstance(value, str) and (match := _DURATION.match(value)):
        return round(float(match[1]) * _UNITS[match[2]])
    if isinstance(value, int) and not isinstance(value, bool) and value == 0:
        return 0
    msg = f"expected a duration such as 500ms, 10s, 5m, 2h or 7d, got {value!r}"
    raise ValueError(msg)


def format_duration(value_ms: int) -> str:
    """Return a duration as it is written in a pipeline file, in its largest whole unit.

    Examples
    --------
    >>> format_duration(90_000), format_duration(300), format_duration(86_400_000)
    ('90s', '300ms', '1d')
    """
    unit, length = next(u for u in reversed(_UNITS.items()) if value_ms % u[1] == 0)
    return f"{value_ms // length}{unit}" if value_ms else "0s"


Duration = Annotated[
    int,
    BeforeValidator(parse_duration),
    PlainSerializer(format_duration, return_type=str, when_used="json"),
]
Probability = Annotated[float, Field(gt=0, lt=1)]


class Section(BaseModel):
    """A part of the pipeline file: frozen, and without room for unknown keys."""

    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=())


class FieldsConfig(Section):
    """Which field of a record is what."""

    key: tuple[str, ...] = ("key",)
    """The fields that name the series (entity); several are joined by ``/``."""
    time: str = "ts"
    """The field with the event time."""
    time_unit: Literal["ms", "s", "ns", "us", "iso"] = "ms"
    """Its unit; ``iso`` is text as in RFC 3339."""
    values: tuple[str, ...] = ("value",)
    """The fields with the measured values, one variate each; ``value`` is read as well."""
    variate: str | None = None
    """Long form: the field that names which variate a record is of."""
    variates: tuple[str, ...] = ()
    """Long form: the names of the variates, in order."""
    tags: tuple[str, ...] = ()
    """Fields kept beside the key, for ``series.select``, ``alerts.group`` and the alert itself."""

    @model_validator(mode="before")
    @classmethod
    def _one_or_many(cls, given: Any) -> Any:
        if not isinstance(given, Mapping):
            return given
        made = {**given}
        if "value" in made and "values" not in made:
            made["values"] = made.pop("value")
        for name in ("key", "values", "variates", "tags"):
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


class InputConfig(Section):
    """Where records come from and how they are read."""

    topics: tuple[str, ...] = ()
    """The topics that are read; one may be written without a list."""
    format: str = "json"
    """How a message is read: a name of the table of formats below."""
    fields: FieldsConfig = FieldsConfig()
    """Which field is what."""
    start: str = "latest"
    """Where a pipeline begins that has read nothing yet: ``latest``, ``earliest``, or a time."""
    on_out_of_range: Literal["fail", "earliest", "latest"] = "fail"
    """What happens when the next record was deleted by retention: stop, or go on there."""
    repartition: bool = False
    """Re-key the topic first; for topics whose records of one key lie in many partitions."""
    max_message_bytes: int = Field(default=4_194_304, ge=1024)
    """A larger message becomes a dead letter."""
    max_rows_per_message: int = Field(default=100_000, ge=1)
    """A message with more rows becomes a dead letter."""

    @model_validator(mode="before")
    @classmethod
    def _one_topic(cls, given: Any) -> Any:
        if isinstance(given, Mapping) and isinstance(given.get("topics"), str):
            return {**given, "topics": (given["topics"],)}
        return given


class SelectConfig(Section):
    """Which series are watched: shell patterns on the key, exact or pattern on tags."""

    include: tuple[str, ...] = ("*",)
    """Keys that are watched, as shell patterns."""
    exclude: tuple[str, ...] = ()
    """Keys that are not, even if included."""
    tags: dict[str, str] = Field(default_factory=dict)
    """Tags a key must have, as shell patterns."""


class GapsConfig(Section):
    """What stands in for missing samples, and when a window is not scored at all."""

    fill: Literal["none", "previous", "linear"] = "previous"
    """What stands in for a missing sample."""
    max_share: float = Field(default=0.2, ge=0, le=1)
    """A window with a larger share of missing samples is not scored (``incomplete``)."""


class SeriesConfig(Section):
    """From points to samples: metric kind, grid, lateness, silence, bounds."""

    kind: Literal["gauge", "counter", "delta"] = "gauge"
    """``counter`` is turned into a rate a second (resets are handled), ``delta`` is summed."""
    step: Duration | None = None
    """The grid samples are put on; without it every record is a sample."""
    aggregate: Literal["last", "mean", "max", "sum"] = "mean"
    """What becomes of several records in one step."""
    lateness: Duration = 0
    """How long a sample stays open for records that come late, in the key's event time."""
    late: Literal["drop", "topic"] = "drop"
    """What becomes of later records: dropped, or written to the late topic; counted always."""
    reorder: int = Field(default=64, ge=1, le=4096)
    """Without ``step``: the most samples of a key that are held open for ``lateness``."""
    gaps: GapsConfig = GapsConfig()
    """Missing samples."""
    silence: Duration | None = None
    """A key without data for so long is a finding (``no_data``); unset: never."""
    ttl: Duration = 86_400_000
    """A key without data for so long is forgotten with all that was learned of it."""
    max_keys: int = Field(default=1_000_000, ge=1)
    """Keys held per partition; records of further keys become dead letters."""
    max_ahead: Duration = 3_600_000
    """A record whose event time is further ahead of the broker's clock becomes a dead letter."""
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
    """Samples a window; ``auto`` takes the artifact's or the detector's own."""
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


class DetectorConfig(Section):
    """Which detector, and from which artifact it starts."""

    name: str = "knn_fused"
    """A detector of docs/detectors.md."""
    artifact: str | None = None
    """What ``streamad fit`` made: a folder, or any URL that fsspec reads."""
    params: dict[str, Any] = Field(default_factory=dict)
    """Parameters of the detector."""

    @model_validator(mode="before")
    @classmethod
    def _name_alone(cls, given: Any) -> Any:
        return {"name": given} if isinstance(given, str) else given


class MinEffectConfig(Section):
    """What is strange but smaller than this does not matter."""

    absolute: float = Field(default=0.0, ge=0)
    """The least difference from what is expected, in the unit of the input."""
    relative: float = Field(default=0.0, ge=0)
    """The least difference as a share of what is expected."""


class ScoringConfig(Section):
    """From score to episode, per key."""

    candidate: Probability = 1e-3
    """A window whose score is this improbable for its key opens an episode."""
    exit: Probability = 1e-2
    """An episode ends once windows are no more improbable than this."""
    min_windows: int = Field(default=32, ge=0)
    """Windows of a key that are judged before one may open an episode."""
    min_duration: int = Field(default=1, ge=1, le=10_000)
    """Candidates in a row it takes to open an episode."""
    cool_down: int = Field(default=5, ge=1, le=10_000)
    """Windows in a row below the exit level it takes to end one."""
    adopt_after: int = Field(default=2_000, ge=10)
    """An episode of so many windows is the new normal: it ends, and is said to be adopted."""
    epoch: int = Field(default=1_024, ge=64, le=1_000_000)
    """Windows of a key its normal is made of: the current epoch and the one before."""
    update_every: int = Field(default=60, ge=1)
    """Windows between two updates of an open episode."""
    direction: Literal["above", "below", "both"] = "both"
    """Which side of what is expected matters."""
    min_effect: MinEffectConfig = MinEffectConfig()
    """How far from what is expected matters."""

    @model_validator(mode="after")
    def _hysteresis(self) -> ScoringConfig:
        if self.exit < self.candidate:
            msg = (
                f"exit ({self.exit}) must not be rarer than candidate ({self.candidate}), "
                "or episodes would flap"
            )
            raise ValueError(msg)
        return self


class AlertsConfig(Section):
    """From finding to alert: the boundary and the life-cycle."""

    level: Probability = 1e-4
    """The p-value that has severity 1.0: from there on a finding is an alert."""
    max_age: Duration = 3_600_000
    """Alerts found later than this after the event are marked ``past``; they page nobody."""
    update_every: Duration = 60_000
    """The least time between two updates of an alert, unless it got much worse."""
    tenant: str = "default"
    """The record key of findings: one member sees all findings of a tenant."""
    group: str | None = None
    """A key field or tag whose value groups alerts (a service, a team)."""
    runbook: str | None = None
    """A link every alert carries."""


class DeliveryConfig(Section):
    """How often outputs are committed and state is saved."""

    commit_interval: Duration = 500
    """The longest time between two transactions while there is something to commit."""
    snapshot_interval: Duration = 60_000
    """Time between two snapshots of a partition: more is cheaper, less recovers sooner."""
    snapshot_store: str = "topic"
    """``topic``, or a folder or URL that fsspec writes."""
    on_state_mismatch: Literal["refuse", "fresh"] = "refuse"
    """What happens to state that was made under other settings: stop, or begin afresh."""
    max_poll_records: int = Field(default=20_000, ge=1)
    """Messages taken from the broker at once."""
    transaction_timeout: Duration = 10_000
    """The broker aborts a transaction nobody ended after this; readers wait as long."""


class FlinkConfig(Section):
    """How the job runs on Flink; ``streamad run`` does not look at it, and no decision changes."""

    parallelism: int = Field(default=1, ge=1, le=32_768)
    """Slots that detect in parallel; more than the input has partitions would lie idle."""
    max_parallelism: int | None = Field(default=None, ge=1, le=32_768)
    """The most slots the state can ever be spread over; default: the partitions at the first start.
    It is part of the state: a savepoint keeps it."""
    checkpoint_interval: Duration = 5_000
    """Time between checkpoints; what is written becomes visible with one."""
    checkpoint_dir: str | None = None
    """Where checkpoints and savepoints are kept: a folder or URL that every task manager reaches.
    Default: the cluster's own, and ``.streamad/flink`` where Flink runs in this process."""
    state_backend: Literal["rocksdb", "hashmap"] = "rocksdb"
    """``hashmap`` keeps state in the memory of the JVM: quicker while it fits."""
    execution_mode: Literal["process"] = "process"
    """How Flink runs Python. ``thread`` is refused: see docs/flink.md."""
    bundle_size: int = Field(default=10_000, ge=1, le=1_000_000)
    """Messages that Flink hands to Python at once, at the most."""
    bundle_time: Duration = 100
    """The longest time a bundle waits to be full."""
    linger: Duration = 100
    """The longest time a message waits for others to be judged with it."""
    journal_bytes: int = Field(default=8_388_608, ge=4096)
    """A shard's journal is replaced by a snapshot once it is larger than this and the snapshot."""
    transaction_timeout: Duration = 900_000
    """How long the broker keeps what a checkpoint has not confirmed: longer than any outage of the
    job, and no longer than the broker's ``transaction.max.timeout.ms``."""
    connector_jar: str | None = None
    """The jar of Flink's Kafka connector; default: what ``make setup-flink`` fetched, else the
    cluster's own ``lib`` folder."""
    options: dict[str, str] = Field(default_factory=dict)
    """Any option of Flink, such as ``taskmanager.memory.managed.size``; wins over all above."""

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
    """Names of the output topics; by default they derive from the pipeline's name."""

    findings: str | None = None
    """Default ``streamad.<name>.findings``."""
    alerts: str | None = None
    """Default ``streamad.<name>.alerts``."""
    scores: str | None = None
    """Default ``streamad.<name>.scores``."""
    state: str | None = None
    """Default ``streamad.<name>.state``."""
    dead_letters: str = "{topic}.dlq"
    """What could not be used, with the reason; one topic an input."""
    late: str = "{topic}.late"
    """Late records, where ``series.late`` is ``topic``; one topic an input."""


class PipelineConfig(Section):
    """One pipeline: what is read, how it is judged, where the verdicts go."""

    name: str = Field(pattern=r"^[a-z0-9]([a-z0-9._-]{0,61}[a-z0-9])?$")
    """Part of topic names, consumer groups and ids: another name is another pipeline."""
    input: InputConfig = InputConfig()
    """What is read."""
    series: SeriesConfig = SeriesConfig()
    """How records become samples."""
    windows: WindowsConfig = WindowsConfig()
    """How samples become windows."""
    detector: DetectorConfig = DetectorConfig()
    """What judges windows."""
    scoring: ScoringConfig = ScoringConfig()
    """When a score is a finding."""
    alerts: AlertsConfig = AlertsConfig()
    """When a finding is an alert."""
    delivery: DeliveryConfig = DeliveryConfig()
    """Commits and state."""
    flink: FlinkConfig = FlinkConfig()
    """How it runs on Flink."""
    output: OutputConfig = OutputConfig()
    """Topics that are written."""

    @model_validator(mode="after")
    def _counter_needs_no_mean(self) -> PipelineConfig:
        long_form = self.input.fields.variate is not None
        if long_form and self.series.step is None and self.series.lateness == 0:
            msg = (
                "variates that come in separate records must be lined up: "
                "set series.step (a grid), or series.lateness"
            )
            raise ValueError(msg)
        return self

    def topic(self, role: Literal["findings", "alerts", "scores", "state"]) -> str:
        """Return the name of an output topic."""
        given: str | None = getattr(self.output, role)
        return given or f"streamad.{self.name}.{role}"

    def decision_settings(self) -> dict[str, Any]:
        """Return the settings that change decisions: dotted path to JSON value."""
        every = _flat(self, self.model_dump(mode="json"))
        return {path: value for path, value in every if changes_decisions(path)}

    def decision_checksum(self) -> str:
        """Return a checksum over the settings that change decisions; state is bound to it."""
        text = json.dumps(self.decision_settings(), sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()[:16]


DECISION_SETTINGS = (
    "name",
    "input.fields",
    "series",
    "windows",
    "detector.name",
    "detector.params",
    "scoring",
    "alerts.level",
    "alerts.tenant",
    "alerts.group",
)
"""Settings and sections that change scores, episodes or findings: all that the detect operator and
its detector read. State is bound to them, and the docs mark them. ``detector.artifact`` is not
among them: state is bound to the artifact's id, wherever it lies."""


def changes_decisions(path: str) -> bool:
    """Return whether a setting is one of `DECISION_SETTINGS`, or lies in one of its sections.

    Examples
    --------
    >>> changes_decisions("series.gaps.fill"), changes_decisions("alerts.runbook")
    (True, False)
    """
    return any(path == one or path.startswith(f"{one}.") for one in DECISION_SETTINGS)


def _flat(section: Section, tree: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield each setting with its dotted path; a mapping is one setting, a section is not."""
    for name in type(section).model_fields:
        inner = getattr(section, name)
        if isinstance(inner, Section):
            yield from _flat(inner, tree[name], f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", tree[name]


_ENV = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)(?::-([^}]*))?\}")


def load_pipeline(path: str | Path, *, environment: Mapping[str, str]) -> PipelineConfig:
    """Read a pipeline file; every mistake is a ConfigError with line, expectation and nearest name.

    ``${NAME}`` and ``${NAME:-default}`` are replaced from ``environment`` in values.
    """
    file = Path(path)
    try:
        text = file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        msg = f"{file}: cannot be read ({error}); give the path of a pipeline file in YAML"
        raise ConfigError(msg) from error
    return parse_pipeline(text, name=str(file), environment=environment)


def parse_pipeline(
    text: str, *, name: str = "<pipeline>", environment: Mapping[str, str] | None = None
) -> PipelineConfig:
    """Validate the text of a pipeline file; see `load_pipeline`."""
    node, tree = read_yaml(text, name=name)
    tree = _substitute(tree, environment or {}, name=name, text=text)
    try:
        return PipelineConfig.model_validate(tree)
    except ValidationError as error:
        lines = [
            explain(problem, node, name=name, model=PipelineConfig) for problem in error.errors()
        ]
        raise ConfigError("\n".join(lines)) from error


def _substitute(value: Any, environment: Mapping[str, str], *, name: str, text: str) -> Any:
    if isinstance(value, dict):
        return {
            key: _substitute(inner, environment, name=name, text=text)
            for key, inner in value.items()
        }
    if isinstance(value, list):
        return [_substitute(inner, environment, name=name, text=text) for inner in value]
    if not isinstance(value, str):
        return value

    def replace(match: re.Match[str]) -> str:
        default: str | None = match[2]
        found = environment.get(match[1]) or default
        if found is None:
            line = line_holding(text, f"${{{match[1]}}}")
            msg = (
                f"{name}:{line}: ${{{match[1]}}} is not set; set it in the environment, or write "
                f"${{{match[1]}:-default}}"
            )
            raise ConfigError(msg)
        return found

    return _ENV.sub(replace, value)
