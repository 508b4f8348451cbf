"""The pipeline file as a frozen, validated tree; mistakes are told with line and nearest name.

Durations are written ``300ms``, ``10s``, ``5m``, ``2h``, ``7d``; a bare number is refused, because
nobody remembers which unit it was.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, cast

import yaml
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator

from streamad.errors import ConfigError, nearest

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


Duration = Annotated[int, BeforeValidator(parse_duration)]
Probability = Annotated[float, Field(gt=0, lt=1)]


class Section(BaseModel):
    """A part of the pipeline file: frozen, and without room for unknown keys."""

    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=())


class FieldsConfig(Section):
    """Which field of a record is what."""

    key: tuple[str, ...] = ("key",)
    time: str = "ts"
    time_unit: Literal["ms", "s", "ns", "us", "iso"] = "ms"
    values: tuple[str, ...] = ("value",)
    variate: str | None = None
    variates: tuple[str, ...] = ()
    tags: tuple[str, ...] = ()

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
    format: str = "json"
    fields: FieldsConfig = FieldsConfig()
    start: str = "latest"
    on_out_of_range: Literal["fail", "earliest", "latest"] = "fail"
    repartition: bool = False
    max_message_bytes: int = Field(default=4_194_304, ge=1024)
    max_rows_per_message: int = Field(default=100_000, ge=1)

    @model_validator(mode="before")
    @classmethod
    def _one_topic(cls, given: Any) -> Any:
        if isinstance(given, Mapping) and isinstance(given.get("topics"), str):
            return {**given, "topics": (given["topics"],)}
        return given


class SelectConfig(Section):
    """Which series are watched: shell patterns on the key, exact or pattern on tags."""

    include: tuple[str, ...] = ("*",)
    exclude: tuple[str, ...] = ()
    tags: dict[str, str] = Field(default_factory=dict)


class GapsConfig(Section):
    """What stands in for missing samples, and when a window is not scored at all."""

    fill: Literal["none", "previous", "linear"] = "previous"
    max_share: float = Field(default=0.2, ge=0, le=1)


class SeriesConfig(Section):
    """From points to samples: metric kind, grid, lateness, silence, bounds."""

    kind: Literal["gauge", "counter", "delta"] = "gauge"
    step: Duration | None = None
    aggregate: Literal["last", "mean", "max", "sum"] = "mean"
    lateness: Duration = 0
    late: Literal["drop", "topic"] = "drop"
    reorder: int = Field(default=64, ge=1, le=4096)
    gaps: GapsConfig = GapsConfig()
    silence: Duration | None = None
    ttl: Duration = 86_400_000
    max_keys: int = Field(default=1_000_000, ge=1)
    max_ahead: Duration = 3_600_000
    select: SelectConfig = SelectConfig()

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


class WindowsConfig(Section):
    """How samples become windows."""

    size: int | Literal["auto"] = "auto"
    stride: int = Field(default=1, ge=1)

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
    artifact: str | None = None
    params: dict[str, Any] = Field(default_factory=dict)

    @model_validator(mode="before")
    @classmethod
    def _name_alone(cls, given: Any) -> Any:
        return {"name": given} if isinstance(given, str) else given


class MinEffectConfig(Section):
    """What is strange but smaller than this does not matter."""

    absolute: float = Field(default=0.0, ge=0)
    relative: float = Field(default=0.0, ge=0)


class ScoringConfig(Section):
    """From score to episode, per key."""

    candidate: Probability = 1e-3
    exit: Probability = 1e-2
    min_windows: int = Field(default=32, ge=0)
    min_duration: int = Field(default=1, ge=1, le=10_000)
    cool_down: int = Field(default=5, ge=1, le=10_000)
    adopt_after: int = Field(default=2_000, ge=10)
    epoch: int = Field(default=1_024, ge=64, le=1_000_000)
    update_every: int = Field(default=60, ge=1)
    direction: Literal["above", "below", "both"] = "both"
    min_effect: MinEffectConfig = MinEffectConfig()

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
    max_age: Duration = 3_600_000
    update_every: Duration = 60_000
    tenant: str = "default"
    group: str | None = None
    runbook: str | None = None


class DeliveryConfig(Section):
    """How often outputs are committed and state is saved."""

    commit_interval: Duration = 500
    snapshot_interval: Duration = 60_000
    snapshot_store: str = "topic"
    on_state_mismatch: Literal["refuse", "fresh"] = "refuse"
    max_poll_records: int = Field(default=20_000, ge=1)
    transaction_timeout: Duration = 10_000


class OutputConfig(Section):
    """Names of the output topics; by default they derive from the pipeline's name."""

    findings: str | None = None
    alerts: str | None = None
    scores: str | None = None
    state: str | None = None
    dead_letters: str = "{topic}.dlq"
    late: str = "{topic}.late"


class PipelineConfig(Section):
    """One pipeline: what is read, how it is judged, where the verdicts go."""

    name: str = Field(pattern=r"^[a-z0-9]([a-z0-9._-]{0,61}[a-z0-9])?$")
    input: InputConfig = InputConfig()
    series: SeriesConfig = SeriesConfig()
    windows: WindowsConfig = WindowsConfig()
    detector: DetectorConfig = DetectorConfig()
    scoring: ScoringConfig = ScoringConfig()
    alerts: AlertsConfig = AlertsConfig()
    delivery: DeliveryConfig = DeliveryConfig()
    output: OutputConfig = OutputConfig()

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

    def decision_checksum(self) -> str:
        """Return a checksum over the settings that change decisions; state is bound to it."""
        tree = self.model_dump(mode="json")
        kept = {name: tree[name] for name in ("name", "series", "windows", "detector", "scoring")}
        kept["fields"] = tree["input"]["fields"]
        text = json.dumps(kept, sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()[:16]


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
    try:
        node = yaml.compose(text, Loader=yaml.SafeLoader)
        tree = yaml.safe_load(text)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f"{name}:{mark.line + 1}" if mark else name
        msg = f"{where}: not YAML: {getattr(error, 'problem', None) or error}"
        raise ConfigError(msg) from error
    if not isinstance(tree, dict):
        msg = f"{name}:1: expected a mapping with at least 'name', got {type(tree).__name__}"
        raise ConfigError(msg)
    tree = _substitute(tree, environment or {}, name)
    try:
        return PipelineConfig.model_validate(tree)
    except ValidationError as error:
        lines = [_explain(problem, node, name) for problem in error.errors()]
        raise ConfigError("\n".join(lines)) from error


def _substitute(value: Any, environment: Mapping[str, str], name: str) -> Any:
    if isinstance(value, dict):
        return {k: _substitute(v, environment, name) for k, v in value.items()}
    if isinstance(value, list):
        return [_substitute(v, environment, name) for v in value]
    if not isinstance(value, str):
        return value

    def replace(match: re.Match[str]) -> str:
        default: str | None = match[2]
        found = environment.get(match[1]) or default
        if found is None:
            msg = f"{name}: ${{{match[1]}}} is not set; set it, or write ${{{match[1]}:-default}}"
            raise ConfigError(msg)
        return found

    return _ENV.sub(replace, value)


def _explain(problem: Any, root: Any, name: str) -> str:
    path = [part for part in problem["loc"] if isinstance(part, str | int)]
    line = _line_of(root, path)
    dotted = ".".join(str(part) for part in path)
    if problem["type"] == "extra_forbidden":
        known = _known_names(path[:-1])
        near = nearest(str(path[-1]), known)
        hint = f"did you mean {near!r}?" if near else f"known here: {', '.join(sorted(known))}"
        return f"{name}:{line}: unknown setting {dotted!r}; {hint}"
    said = str(problem["msg"]).removeprefix("Value error, ")
    got = problem.get("input")
    shown = f", got {got!r}" if isinstance(got, str | int | float) and "got" not in said else ""
    return f"{name}:{line}: {dotted or 'pipeline'}: {said[:1].lower()}{said[1:]}{shown}"


def _known_names(path: list[str | int]) -> list[str]:
    section: Any = PipelineConfig
    for part in path:
        fields = getattr(section, "model_fields", {})
        if part not in fields:
            return []
        section = fields[part].annotation
    return list(getattr(section, "model_fields", {}))


def _line_of(node: Any, path: list[str | int]) -> int:
    """Return the 1-based line of the deepest part of ``path`` that the file really has."""
    line = 1
    for part in path:
        if isinstance(node, yaml.MappingNode):
            pairs = {cast("yaml.ScalarNode", k).value: (k, v) for k, v in node.value}
            if str(part) not in pairs:
                break
            key, node = pairs[str(part)]
            line = key.start_mark.line + 1
        elif (
            isinstance(node, yaml.SequenceNode) and isinstance(part, int) and part < len(node.value)
        ):
            node = node.value[part]
            line = node.start_mark.line + 1
        else:
            break
    return line
