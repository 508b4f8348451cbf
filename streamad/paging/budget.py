"""How strong an episode must be to page: what the budget of its group affords.

Ten thousand series a minute are 10^8 windows a week, and no series can calibrate a probability of
10^-7. So what is tested is *episodes*, and a group of series shares its tests: the strength of an
episode is its evidence in decades (-log10 of its peak p-value, log10 of its breadth: how many
series of the group went wrong with it, and log10 of its asset's weight), and an episode pages if it
is among the strongest that the budget affords, by the group's own past.

Three things together keep the number of pages near what was asked for:

- **base**: the strength that the past four weeks exceeded as often as the budget allows. A burst
  is one event, so each hour of the past gives no more than its share; a series that is always
  strange gives no more than a quarter. Before there is a past, the promise of ``alerts.level``
  stands in for it, and fades.
- **tracker**: each page raises the strength that the next one needs, and time takes that back at
  the rate of the budget. That is integral control: the number of pages in a time differs from the
  budget by no more than the tracker's range, however the episodes depend on each other (conformal
  PID control, Angelopoulos et al. 2023, arXiv 2307.16895).
- **tokens**: a bucket bounds how many pages may come at once. What comes when it is empty is
  withheld: it goes into the digest, and pages later if it lasts.
"""

from __future__ import annotations

import base64
import hashlib
import math
from bisect import bisect_right
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from streamad.alerts.severity import decades

HOUR_MS: Final = 3_600_000
DAY_MS: Final = 24 * HOUR_MS
WEEK_MS: Final = 7 * DAY_MS
PRIOR_PERIOD_MS: Final = 5 * DAY_MS
"""An ordinary series has an episode at the alert level about once in this time: the promise of the
default ``alerts.level``."""
PRIOR_WEIGHT_MS: Final = 2 * DAY_MS
"""How much past the promise counts for."""
KEY_SHARE: Final = 0.25
"""The most of the past's strong episodes that one series may be."""
STEP: Final = 0.35
"""Decades by which a page raises what the next one needs."""
LEAST_TRACKER: Final = -1.5
MOST_TRACKER: Final = 4.0
LEAST_STRENGTH: Final = 0.1
STRONG: Final = 1.0
"""Decades beyond what was needed from which on a page may borrow: see `GroupBudget.affords`."""
RENEW_MS: Final = (60_000, HOUR_MS)
"""The base is found anew once in a hundredth of the past it is made of, within these bounds: it
changes slowly, and a flood must not be slow."""
MAX_BREADTH: Final = 256
"""Series that went wrong together are counted up to this number."""
MAX_PER_HOUR: Final = 64
LEDGER_DAYS: Final = 35
LEDGER_KEYS: Final = 20
SPENT, OVERDRAWN = "spent", "overdrawn"
_SEEN_BYTES: Final = 4_096


def strength(p_value: float, breadth: int = 1) -> float:
    """Return the evidence of an episode in decades; 0 where nothing is known.

    p_value : of its peak; breadth : series of the group that went wrong together

    Examples
    --------
    >>> strength(1e-4), strength(1e-4, breadth=10), strength(float("nan"))
    (4.0, 5.0, 0.0)
    """
    known = decades(p_value)
    return known + math.log10(max(breadth, 1)) if known else 0.0


@dataclass(slots=True)
class Day:
    """What a day left of a group: strong episodes by hour, and the lines of the ledger."""

    past: dict[int, dict[str, tuple[float, str]]] = field(default_factory=dict)
    ledger: Counter[str] = field(default_factory=Counter)


@dataclass(slots=True)
class GroupBudget:
    """The budget of one group at work; times are those of the findings' log.

    pages : asked, a week; 0: there is no budget, and only the ledger is kept
    days : the past, by day: strongest episodes of each hour (episode to strength and series)
    tracker : decades that the pages of late add to what the next one needs
    tokens : pages that may come at once; below 0: borrowed; NaN: not known yet
    recent : series that went wrong lately, and when
    tenant : of the last finding or incident of the group
    """

    pages: float
    since_ms: int
    at_ms: int
    days: dict[int, Day] = field(default_factory=dict)
    tracker: float = 0.0
    tokens: float = math.nan
    alert_p: float = 1e-4
    recent: dict[str, int] = field(default_factory=dict)
    base: float = math.nan
    base_ms: int = -(2**62)
    digest_ms: int = 0
    tenant: str = "default"
    _seen: bytearray = field(default_factory=lambda: bytearray(_SEEN_BYTES), repr=False)

    def __post_init__(self) -> None:
        if math.isnan(self.tokens):
            self.tokens = self.burst

    @property
    def burst(self) -> float:
        """Return how many pages may come at once."""
        return max(2.0, self.pages / 3)

    @property
    def per_hour(self) -> int:
        """Return how many episodes of an hour are part of the past."""
        return min(MAX_PER_HOUR, max(1, math.ceil(self.pages / 24)))

    @property
    def n_keys(self) -> int:
        """Return about how many series had an episode (linear counting, Whang et al. 1990)."""
        empty = 8 * _SEEN_BYTES - int.from_bytes(self._seen, "big").bit_count()
        return max(1, round(-8 * _SEEN_BYTES * math.log(max(empty, 1) / (8 * _SEEN_BYTES))))

    def affords(self, excess: float) -> bool:
        """Say whether a page may come now.

        excess : decades beyond what was needed; much of it may borrow from the days to come, so
            that weak pages of yesterday do not stand in the way of what is strong today
        """
        if self.pages == 0 or self.tokens >= 1.0:
            return True
        return excess >= STRONG and self.tokens >= 1.0 - self.burst

    def advance(self, now_ms: int, *, memory_ms: int) -> list[int]:
        """Let time pass: tokens come back, the tracker falls; return days that were forgotten."""
        passed = now_ms - self.at_ms
        if passed <= 0:
            return []
        weeks, before = passed / WEEK_MS, self.at_ms // DAY_MS
        self.at_ms = now_ms
        self.tokens = min(self.burst, self.tokens + self.pages * weeks)
        self.tracker = max(LEAST_TRACKER, self.tracker - STEP * self.pages * weeks)
        if now_ms // DAY_MS == before:
            return []
        keep = max(LEDGER_DAYS, memory_ms // DAY_MS + 1)
        gone = [day for day in self.days if day < now_ms // DAY_MS - keep]
        for day in gone:
            del self.days[day]
        return gone

    def breadth(self, key: str, *, began_ms: int, gap_ms: int) -> int:
        """Return how many series of the group went wrong at about this time, with this one."""
        if self.recent and began_ms - gap_ms > min(self.recent.values()):
            self.recent = {k: ms for k, ms in self.recent.items() if ms >= began_ms - gap_ms}
        if len(self.recent) < MAX_BREADTH or key in self.recent:
            self.recent[key] = max(began_ms, self.recent.get(key, began_ms))
        return sum(abs(ms - began_ms) <= gap_ms for ms in self.recent.values()) or 1

    def note(self, episode: str, key: str, *, began_ms: int, value: float, alert_p: float) -> int:
        """Enter an episode, or what it has become, into the past; return the day it is of.

        value : its strength; alert_p : the p-value that its series promises at the alert level
        """
        if 0 < alert_p < 1:
            self.alert_p = alert_p
        bit = int.from_bytes(hashlib.blake2b(key.encode(), digest_size=4).digest(), "big")
        self._seen[bit // 8 % _SEEN_BYTES] |= 1 << bit % 8
        began_ms = min(began_ms, self.at_ms)
        day = began_ms // DAY_MS
        hour = self._day(day).past.setdefault(began_ms // HOUR_MS, {})
        known = hour.get(episode)
        if known is None and len(hour) >= self.per_hour:
            weakest = min(hour, key=lambda name: hour[name][0])
            if hour[weakest][0] >= value:
                return day
            del hour[weakest]
        if known is None or known[0] < value:
            hour[episode] = (value, key)
        return day

    def threshold(self, memory_ms: int) -> float:
        """Return the strength an episode needs now."""
        age_ms = (self.at_ms - self.since_ms) // 100
        if (
            not self.base_ms
            <= self.at_ms
            < self.base_ms + min(max(age_ms, RENEW_MS[0]), RENEW_MS[1])
        ):
            self.base, self.base_ms = self._find_base(memory_ms), self.at_ms
        return max(LEAST_STRENGTH, self.base + self.tracker)

    def _find_base(self, memory_ms: int) -> float:
        """Return the strength that the past exceeded as often as the budget allows."""
        seen_ms = min(max(self.at_ms - self.since_ms, 0), memory_ms)
        affords = self.pages * (seen_ms + PRIOR_WEIGHT_MS) / WEEK_MS
        strong = self._strong(affords, memory_ms)
        level = -math.log10(self.alert_p)
        rate = self.n_keys * PRIOR_WEIGHT_MS / PRIOR_PERIOD_MS
        low, high = 0.0, 40.0
        for _ in range(40):
            middle = (low + high) / 2
            above = len(strong) - bisect_right(strong, middle)
            if above + rate * 10.0 ** min(level - middle, 12.0) > affords:
                low = middle
            else:
                high = middle
        return high

    def _strong(self, affords: float, memory_ms: int) -> list[float]:
        """Return the strengths of the past, ascending, no series with more than its share."""
        first = (self.at_ms - memory_ms) // HOUR_MS
        every = sorted(
            (one for day in self.days.values() for hour, past in day.past.items()
             if hour >= first for one in past.values()),
            reverse=True,
        )  # fmt: skip
        most = max(1, math.floor(KEY_SHARE * affords)) if self.n_keys > 1 else len(every)
        taken: Counter[str] = Counter()
        kept = []
        for value, key in every:
            taken[key] += 1
            if taken[key] <= most:
                kept.append(value)
        return kept[::-1]

    def spend(self, key: str, *, overdrawn: bool) -> None:
        """Pay for a page; overdrawn: it came although `affords` said no."""
        if self.pages:
            self.tokens = max(-self.burst, self.tokens - 1.0)
            self.tracker = min(MOST_TRACKER, self.tracker + STEP)
        self.enter(OVERDRAWN if overdrawn else SPENT, key)

    def enter(self, what: str, key: str, n: int = 1) -> None:
        """Write a line of the ledger: of what became of an incident, led by a series."""
        ledger = self._day(self.at_ms // DAY_MS).ledger
        ledger[what] += n
        by = f"{what}/{key}"
        if by in ledger or sum("/" in name for name in ledger) < LEDGER_KEYS:
            ledger[by] += n

    def _day(self, day: int) -> Day:
        return self.days.setdefault(day, Day())

    def record(self) -> dict[str, Any]:
        """Return it as JSON-ready values, without its days."""
        return {
            "pages": self.pages,
            "since_ms": self.since_ms,
            "at_ms": self.at_ms,
            "tracker": self.tracker,
            "tokens": self.tokens,
            "alert_p": self.alert_p,
            "recent": dict(self.recent),
            "base": None if math.isnan(self.base) else self.base,
            "base_ms": self.base_ms,
            "digest_ms": self.digest_ms,
            "tenant": self.tenant,
            "seen": base64.b85encode(self._seen).decode(),
        }

    def record_of_day(self, day: int) -> dict[str, Any] | None:
        """Return one of its days as JSON-ready values; None where it is forgotten."""
        one = self.days.get(day)
        if one is None:
            return None
        past = {str(hour): dict(strong) for hour, strong in one.past.items()}
        return {"past": past, "ledger": dict(one.ledger)}

    def load_day(self, day: int, record: Mapping[str, Any]) -> None:
        """Take a day back; raises KeyError, TypeError or ValueError where it is damaged."""
        self.days[day] = Day(
            past={
                int(hour): {str(name): (_number(one[0]), str(one[1])) for name, one in past.items()}
                for hour, past in record["past"].items()
            },
            ledger=Counter({str(name): int(n) for name, n in record["ledger"].items()}),
        )

    @classmethod
    def of_record(cls, record: Mapping[str, Any]) -> GroupBudget:
        """Build it from its record; raises KeyError, TypeError or ValueError where damaged."""
        seen = bytearray(base64.b85decode(record["seen"]))
        if len(seen) != _SEEN_BYTES:
            msg = f"expected {_SEEN_BYTES} bytes of series seen, got {len(seen)}"
            raise ValueError(msg)
        return cls(
            pages=_number(record["pages"]),
            since_ms=int(record["since_ms"]),
            at_ms=int(record["at_ms"]),
            tracker=_number(record["tracker"]),
            tokens=_number(record["tokens"]),
            alert_p=_number(record["alert_p"]),
            recent={str(key): int(ms) for key, ms in record["recent"].items()},
            base=math.nan if record["base"] is None else _number(record["base"]),
            base_ms=int(record["base_ms"]),
            digest_ms=int(record["digest_ms"]),
            tenant=str(record.get("tenant", "default")),
            _seen=seen,
        )


def _number(value: Any) -> float:
    number = float(value)
    if not math.isfinite(number):
        msg = f"expected a finite number, got {value!r:.40}"
        raise ValueError(msg)
    return number
