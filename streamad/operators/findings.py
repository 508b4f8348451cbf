"""Findings: the records detect writes for the alert stage, in the units of the input."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from streamad.config import PipelineConfig
from streamad.names import split_key
from streamad.operators.call import Call
from streamad.records import (
    UNKNOWN_MS,
    Explanation,
    Finding,
    FindingKind,
    FindingState,
    stable_id,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """The numbers of a finding; all zero where no score stands behind it."""

    score: float = 0.0
    p_value: float = 0.0
    peak_score: float = 0.0
    peak_p_value: float = 0.0
    level: float = 0.0
    alert_p: float = 1e-4
    calm: bool = False
    n_windows: int = 0


NOT_MEASURED = Measured()


@dataclass(frozen=True, slots=True, kw_only=True)
class Episode:
    """Which episode a finding is of, and how far it has come.

    opened_ms, opened_ordinal : end and ordinal of the window that opened it, part of its id;
    began_ms, until_ms : times of the event's first anomalous sample and of the last one known so
    far; sequence : count of the episode's findings, from 0.
    """

    kind: FindingKind
    state: FindingState
    opened_ms: int
    opened_ordinal: int
    began_ms: int
    sequence: int
    window_start_ms: int
    window_end_ms: int
    until_ms: int
    offset: int = -1


@dataclass(frozen=True, slots=True, kw_only=True)
class FindingMaker:
    """Put what a pipeline's findings have in common around what each is about."""

    config: PipelineConfig
    detector: str
    artifact: str = ""
    degraded: str = ""

    def make(
        self,
        call: Call,
        code: int,
        *,
        episode: Episode,
        measured: Measured = NOT_MEASURED,
        explanation: Explanation | None = None,
        reason: str = "",
    ) -> Finding:
        """Return a finding on the key behind ``code``."""
        config, key = self.config, call.key(code)
        entity = self.entity(key, call.state.tags_of(code))
        group = config.alerts.group
        return Finding(
            id=stable_id(
                config.name,
                config.detector.name,
                episode.kind,
                key,
                episode.opened_ms,
                episode.opened_ordinal,
            ),
            sequence=episode.sequence,
            state=episode.state,
            kind=episode.kind,
            pipeline=config.name,
            detector=self.detector,
            artifact=self.artifact,
            tenant=config.alerts.tenant,
            group=entity.get(group, group) if group else config.name,
            key=key,
            entity=entity,
            window_start_ms=episode.window_start_ms,
            window_end_ms=episode.window_end_ms,
            began_ms=episode.began_ms,
            until_ms=episode.until_ms,
            score=measured.score,
            p_value=measured.p_value,
            peak_score=measured.peak_score,
            peak_p_value=measured.peak_p_value,
            level=measured.level,
            alert_p=measured.alert_p,
            born_ms=self._born_ms(call, code),
            calm=measured.calm,
            n_windows=measured.n_windows,
            explanation=explanation,
            input={
                "topic": call.at.topic,
                "partition": call.at.partition,
                "offset": episode.offset,
            },
            degraded=self.degraded,
            reason=reason,
        )

    def _born_ms(self, call: Call, code: int) -> int:
        """Return when a key was first seen; unknown where training or another key stands for it."""
        flags = call.state.flags
        if code < 0 or flags["seeded"][code] or flags["stands_in"][code]:
            return UNKNOWN_MS
        return int(flags["born_ms"][code])

    def end(self, call: Call, code: int, *, at_ms: int, until_ms: int, reason: str) -> None:
        """End a key's open episode without a window that ends it: an alert must not stay open.

        at_ms : when that was decided; until_ms : the last time the event is known of
        """
        left = call.state.episodes.open_episode(code)
        episode = Episode(
            kind="anomaly",
            state="ended",
            opened_ms=left.opened_ms,
            opened_ordinal=int(call.state.flags["opened_ordinal"][code]),
            began_ms=int(call.state.flags["event_ms"][code, 0]),
            until_ms=until_ms,
            sequence=left.sequence + 1,
            window_start_ms=at_ms,
            window_end_ms=at_ms,
        )
        measured = Measured(
            peak_score=left.peak, peak_p_value=left.peak_p, n_windows=left.n_windows, p_value=1.0
        )
        call.out.findings.append(
            self.make(call, code, episode=episode, measured=measured, reason=reason)
        )
        call.out.counts["findings_ended"] += 1

    def plain(  # noqa: PLR0913 - all by keyword
        self,
        call: Call,
        code: int,
        *,
        kind: FindingKind,
        state: FindingState,
        since_ms: int,
        since_ordinal: int,
        now_ms: int,
        reason: str,
        n_windows: int = 0,
    ) -> Finding:
        """Return a finding that no score stands behind: silence, or a failure.

        since_ordinal : of the key when it began; n_windows : windows that failed so far
        """
        episode = Episode(
            kind=kind,
            state=state,
            opened_ms=since_ms,
            opened_ordinal=since_ordinal,
            began_ms=since_ms,
            until_ms=now_ms,
            sequence=0 if state == "began" else 1,
            window_start_ms=since_ms,
            window_end_ms=now_ms,
        )
        measured = Measured(n_windows=n_windows)
        return self.make(call, code, episode=episode, measured=measured, reason=reason)

    def off_clock(self, call: Call, key: str, *, at_ms: int, offset: int, reason: str) -> Finding:
        """Return the finding that a key's event times cannot be used; it may be new.

        at_ms : partition time, which the key's own time says nothing of
        """
        entity, group = self.entity(key, {}), self.config.alerts.group
        return replace(
            quarantine(
                self.config,
                at=(call.at.topic, call.at.partition, offset),
                now_ms=at_ms,
                reason=reason,
            ),
            id=stable_id(self.config.name, self.config.detector.name, "clock", key, offset),
            kind="clock",
            detector=self.detector,
            group=entity.get(group, group) if group else self.config.name,
            key=key,
            entity=entity,
        )

    def entity(self, key: str, tags: Mapping[str, str]) -> dict[str, str]:
        """Return the key taken apart into its fields, with its tags."""
        fields = self.config.input.fields.key
        parts = split_key(key, len(fields))
        named = {} if parts is None else dict(zip(fields, parts, strict=True))
        return {**(named or {fields[0]: key}), **tags}


def quarantine(
    config: PipelineConfig, *, at: tuple[str, int, int], now_ms: int, reason: str
) -> Finding:
    """Return the finding that a message was set aside; its key is the partition.

    at : topic, partition and offset of the message
    """
    return set_aside(
        config.name,
        at=at,
        now_ms=now_ms,
        reason=reason,
        detector=config.detector.name,
        tenant=config.alerts.tenant,
    )


def set_aside(
    name: str,
    *,
    at: tuple[str, int, int],
    now_ms: int,
    reason: str,
    detector: str = "",
    tenant: str = "default",
) -> Finding:
    """Return the finding that a message was set aside; see `quarantine`.

    name : of the pipeline, or of the alerting file
    """
    topic, partition, offset = at
    key = f"{topic}/{partition}"
    return Finding(
        id=stable_id(name, "quarantine", key, offset),
        sequence=0,
        state="began",
        kind="quarantine",
        pipeline=name,
        detector=detector,
        artifact="",
        tenant=tenant,
        group=name,
        key=key,
        entity={"topic": topic, "partition": str(partition)},
        window_start_ms=now_ms,
        window_end_ms=now_ms,
        began_ms=now_ms,
        until_ms=now_ms,
        score=0.0,
        p_value=0.0,
        peak_score=0.0,
        peak_p_value=0.0,
        level=0.0,
        n_windows=0,
        explanation=None,
        input={"topic": topic, "partition": partition, "offset": offset},
        reason=reason,
    )
