"""How many alerts may open for a key and for a group in a period of the log's time.

One message with the rows of a week, or one producer with many keys, must not fill the alerts topic
and the pagers behind it. What is over the limit is counted, and one alert of kind ``flood`` for the
group reports how much that is.
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from streamad.config.decisions import LimitConfig
from streamad.config.values import format_duration
from streamad.records import Finding, stable_id

MAX_COUNT = 2**53
EXEMPT = ("quarantine", "flood")
"""Kinds that are not limited: they are few, and are about the pipeline itself."""


@dataclass(slots=True)
class Opened:
    """The alerts of one group that opened in one period; keys by a hash, which is shorter."""

    period: int
    total: int = 0
    keys: dict[str, int] = field(default_factory=dict)

    def admits(self, key: str, limit: LimitConfig) -> bool:
        """Return whether one more alert of a key may open."""
        return self.total < limit.per_group and self.keys.get(_short(key), 0) < limit.per_key

    def add(self, key: str) -> None:
        """Count an alert of a key."""
        self.total += 1
        self.keys[_short(key)] = self.keys.get(_short(key), 0) + 1


def opened_of(record: Mapping[str, Any]) -> Opened:
    """Build it from its record; raises TypeError or ValueError where that is damaged."""
    keys = {str(key): int(n) for key, n in dict(record["keys"]).items()}
    period, total = int(record["period"]), int(record["total"])
    if max(map(abs, (period, total, *keys.values()))) > MAX_COUNT:
        msg = "a count of alerts is beyond 2^53"
        raise ValueError(msg)
    return Opened(period, total, keys)


def flood(finding: Finding, *, limit: LimitConfig, at_ms: int, of: str | None, n: int) -> Finding:
    """Return what reports that alerts of a group were not sent.

    finding : the last one that would have opened an alert; of : id of the group's flood alert that
    is open, if there is one; n : alerts not sent so far, with this one
    """
    allowed = (
        f"alerts.limit allows {limit.per_key} per key and {limit.per_group} per group in "
        f"{format_duration(limit.within)}"
    )
    return Finding(
        id=of or stable_id(finding.pipeline, "flood", finding.tenant, finding.group, at_ms),
        sequence=n - 1,
        state="continues" if of else "began",
        kind="flood",
        pipeline=finding.pipeline,
        detector=finding.detector,
        artifact=finding.artifact,
        tenant=finding.tenant,
        group=finding.group,
        key=finding.group,
        entity={},
        window_start_ms=at_ms,
        window_end_ms=at_ms,
        began_ms=at_ms,
        until_ms=at_ms,
        score=0.0,
        p_value=0.0,
        peak_score=0.0,
        peak_p_value=0.0,
        level=0.0,
        n_windows=n,
        explanation=None,
        input=finding.input,
        reason=f"the last one on {finding.key}; {allowed}",
    )


def _short(key: str) -> str:
    return f"{zlib.crc32(key.encode()):08x}{zlib.adler32(key.encode()):08x}"
