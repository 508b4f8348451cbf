"""Findings of made incidents."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from streamad.alerting.config import AlertingConfig
from streamad.incidents import Incident
from streamad.paging.desk import Desk, DeskOutput
from streamad.paging.incidents.topology import Topology
from streamad.paging.state import DeskState
from streamad.records import Explanation, Finding

NOON = 1_700_049_600_000
SECOND = 1_000
MINUTE = 60 * SECOND
HOUR = 60 * MINUTE

Logged = tuple[Finding, int]


def finding(
    key: str, at_ms: int = 0, *, p: float = 1e-6, name: str = "", **changes: Any
) -> Finding:
    """A finding of ``host/metric``, at a time after noon."""
    host, _, metric = key.partition("/")
    entities = changes.pop("entities", ())
    at_ms += NOON
    made: dict[str, Any] = {
        "id": name or f"{key}@{at_ms}", "sequence": 0, "state": "began", "kind": "anomaly",
        "pipeline": "hosts", "detector": "robust_z", "artifact": "", "tenant": "default",
        "group": "hosts", "key": key, "entity": {"host": host, "metric": metric or "cpu"},
        "window_start_ms": at_ms - 10 * SECOND, "window_end_ms": at_ms, "began_ms": at_ms,
        "score": 9.0, "p_value": p, "peak_score": 9.0, "peak_p_value": p, "level": 5.0,
        "n_windows": 1, "input": {"topic": "m", "partition": 0, "offset": 7},
        "explanation": Explanation(
            observed={"value": 97.0}, expected={"value": 12.0}, variates={"value": 1.0},
            time_ms=at_ms, entities=tuple(entities),
        ),
    }  # fmt: skip
    return Finding(**made | changes)


def ended(of: Finding, after_ms: int) -> Finding:
    """The end of an episode."""
    last = of.window_end_ms + after_ms
    return Finding(**{
        **{name: getattr(of, name) for name in of.__dataclass_fields__},
        "sequence": of.sequence + 1, "state": "ended", "p_value": 0.4,
        "window_start_ms": last - 10 * SECOND, "window_end_ms": last, "until_ms": last,
    })  # fmt: skip


def logged(findings: Iterable[Finding]) -> list[Logged]:
    """Findings as written to the log when their window closes, in that order."""
    made = [(one, one.window_end_ms) for one in findings]
    return sorted(made, key=lambda one: one[1])


class Stage:
    """A desk with its state, and every incident record so far."""

    def __init__(
        self, *, edges: Sequence[tuple[str, str]] = (), limit: int = 100_000, **incidents: Any
    ) -> None:
        self.config = AlertingConfig.model_validate(
            {
                "name": "all",
                "findings": ["streamad.hosts.findings"],
                "incidents": incidents,
                "alerts": {"limit": {"per_group": limit, "per_key": limit}},
            }
        )
        distance = self.config.incidents.distance
        self.desk = Desk(self.config, Topology(edges, distance=distance))
        self.state = self.desk.new_state()
        self.sent: list[Incident] = []

    def take(self, *findings: Finding) -> list[Incident]:
        """Take findings, each written when its window closed; return the incident records."""
        return self.keep(self.desk.process(self.state, logged(findings)))

    def wait(self, at_ms: int) -> list[Incident]:
        """Let time pass to a time after noon."""
        return self.keep(self.desk.tick(self.state, NOON + at_ms))

    def keep(self, out: DeskOutput) -> list[Incident]:
        self.sent += out.incidents
        return out.incidents

    def restart(self, records: dict[str, Any]) -> None:
        """Continue from what was written: the newest record of each name."""
        for name, record in self.state.drain_changes().items():
            if record is None:
                records.pop(name, None)
            else:
                records[name] = record
        clock_ms = self.state.clock_ms
        self.state = self.desk.new_state()
        assert self.state.load(records) == {}
        self.state.clock_ms = max(self.state.clock_ms, clock_ms)

    @property
    def last(self) -> dict[str, Incident]:
        """The newest record of each incident, by id."""
        return {one.id: one for one in self.sent}

    @property
    def pages(self) -> int:
        """How many incidents paged."""
        return sum(one.paged_ms is not None for one in self.last.values())


def open_incidents(state: DeskState) -> list[set[str]]:
    """The keys of each open incident."""
    return [{m.key for m in life.members.values()} for life in state.incidents.values()]
