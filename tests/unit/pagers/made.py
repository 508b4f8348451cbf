"""Incidents and digests for the tests of pagers."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from streamad.incidents import Affected, Cause, Digest, Incident

T0 = 1_772_367_900_000

MEMBER = Affected(
    alert="a1", pipeline="hosts", detector="knn", kind="anomaly", group="payments",
    key="web-1/cpu", entity={"host": "web-1"}, began_ms=T0, until_ms=T0 + 60_000,
    peak_severity=2.4, strength=9.0, summary="web-1/cpu is 70.9, expected about 10.5",
)  # fmt: skip

INCIDENT = Incident(
    id="0123456789abcdef0123456789abcdef", sequence=0, state="opened", name="shop",
    tenant="default", group="payments", groups=("payments",), pipelines=("hosts",),
    detectors=("knn",), entity={"host": "web-1"}, began_ms=T0, until_ms=T0 + 60_000,
    opened_ms=T0 + 60_000, time_ms=T0 + 60_000, resolved_ms=None, severity=2.4, strength=9.0,
    threshold=4.0, paged_ms=T0 + 60_000, withheld="", leader="a1",
    members=(MEMBER, replace(MEMBER, alert="a2", key="web-2/cpu", summary="web-2/cpu is 71")),
    n_members=2, n_open=2, causes=(Cause(entity="db-1/io", reason="began first", score=1.0),),
    summary="web-1/cpu is 70.9, expected about 10.5 [with 1 other alert]",
    links={"runbook": "https://wiki.example.org/hosts?host=web-1"},
)  # fmt: skip

DIGEST = Digest(
    id="d1", name="shop", tenant="default", group="payments", from_ms=T0, to_ms=T0 + 86_400_000,
    asked=10.0, spent=2, overdrawn=0, withheld={"budget": 3}, threshold=4.5,
    incidents=("web-1/cpu",), summary="payments: 3 incidents did not page (budget 3)",
)  # fmt: skip


def step(incident: Incident, **changes: Any) -> Incident:
    """Return the next record of an incident."""
    return replace(
        incident,
        sequence=incident.sequence + 1,
        **{"state": "updated", "time_ms": incident.time_ms + 60_000, **changes},
    )


def over(incident: Incident) -> Incident:
    """Return the record that resolves it."""
    return step(incident, state="resolved", resolved_ms=incident.time_ms + 60_000, n_open=0)
