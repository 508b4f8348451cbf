"""Settings of what records become: samples, windows, graphs."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, model_validator

from streamad.config.section import Section
from streamad.config.values import Duration, Size, format_duration


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
