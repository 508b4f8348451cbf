"""Findings as detect writes them, for tests of the desk."""

from __future__ import annotations

from typing import Any

from streamad.records import Finding, stable_id

MINUTE_MS = 60_000
HOUR_MS = 60 * MINUTE_MS
DAY_MS = 24 * HOUR_MS
WEEK_MS = 7 * DAY_MS
BEGIN_MS = 1_700_000_000_000 // WEEK_MS * WEEK_MS


def finding(key: str, at_ms: int, decades: float = 6.0, **given: Any) -> Finding:
    """Return a finding on a key at a time whose peak p-value has so many decades."""
    p = 10.0**-decades
    known = {
        "id": stable_id("finding", key, given.pop("opened_ms", at_ms), given.get("kind", "")),
        "sequence": 0, "state": "began", "kind": "anomaly", "pipeline": "hosts",
        "detector": "robust_z", "artifact": "", "tenant": "default", "group": "hosts", "key": key,
        "entity": dict(zip(("host", "metric"), key.split("/"), strict=False)),
        "window_start_ms": at_ms - 10 * MINUTE_MS, "window_end_ms": at_ms, "began_ms": at_ms,
        "until_ms": at_ms, "score": decades, "p_value": p, "peak_score": decades,
        "peak_p_value": p, "level": 3.0, "n_windows": 1, "explanation": None,
        "input": {"topic": "metrics", "partition": 0, "offset": 1},
    }  # fmt: skip
    return Finding(**{**known, **given})


def episode(key: str, at_ms: int, decades: float = 6.0, *, length_ms: int = 10 * MINUTE_MS,
            **given: Any) -> list[Finding]:  # fmt: skip
    """Return the two findings of an episode: it begins, and it ends."""
    return [
        finding(key, at_ms, decades, **given),
        finding(
            key, at_ms + length_ms, decades, opened_ms=at_ms, state="ended", sequence=1,
            began_ms=at_ms, until_ms=at_ms + length_ms, **given,
        ),
    ]  # fmt: skip


def in_order(*findings: Finding) -> list[tuple[Finding, int]]:
    """Return findings in event time, each written when its window closed."""
    ordered = sorted(findings, key=lambda f: (f.window_end_ms, f.key, f.kind, f.sequence))
    return [(one, one.window_end_ms) for one in ordered]
