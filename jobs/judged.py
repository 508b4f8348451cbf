"""Why little or nothing of some input was judged: reasons, samples of them, and what helps."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np

from jobs.readiness import readiness, samples
from streamad.errors import StreamadError
from streamad.operators.call import DetectOutput
from streamad.operators.detect import DetectOperator
from streamad.operators.wording import clock
from streamad.records import Rejected, SignalBatch

MAX_REASONS = 3
MAX_SAMPLE_CHARS = 160
MUCH = 0.5
"""A share of rows or windows from which on a report explains why they were lost."""

YEAR_MS = 365 * 86_400_000


class NothingJudgedError(StreamadError):
    """Not one window of the input got a score."""


@dataclass(slots=True, kw_only=True)
class Account:
    """What became of rows and windows.

    rejected : rows by reason; details : the first detail of each reason; rows : that could be read;
    late : of these, those that came at or before a time their series had shown; windows,
    incomplete, judged : of windows; lengths : rows of each series
    """

    rejected: Counter[str] = field(default_factory=Counter)
    details: dict[str, str] = field(default_factory=dict)
    rows: int = 0
    late: int = 0
    windows: int = 0
    incomplete: int = 0
    judged: int = 0
    lengths: Counter[str] = field(default_factory=Counter)
    first_ms: int | None = None
    last_ms: int | None = None

    def reject(self, rejected: Iterable[Rejected]) -> None:
        """Count rejections, and keep the first detail of each reason."""
        for one in rejected:
            self.rejected.update(one.by_reason)
            if one.detail:
                self.details.setdefault(one.reason, one.detail[:MAX_SAMPLE_CHARS])

    def take(self, batch: SignalBatch, out: DetectOutput) -> None:
        """Count the rows of a batch, and what the operator made of them."""
        self.rows += len(batch)
        self.late += len(out.late)
        self.windows += out.counts["windows"]
        self.incomplete += out.counts["incomplete"]
        self.judged += sum(int(np.isfinite(scores.score).sum()) for scores in out.scores)
        self.lengths.update(dict(batch.keys.value_counts().rows()))
        if len(batch):
            first, last = int(batch.time_ms.min()), int(batch.time_ms.max())
            self.first_ms = first if self.first_ms is None else min(self.first_ms, first)
            self.last_ms = last if self.last_ms is None else max(self.last_ms, last)

    def notes(self, operator: DetectOperator) -> list[str]:
        """Return what a reader must know of input that was not judged, a line each."""
        found = [self.rejections()] if self.rejected else []
        if self.late:
            found.append(self._late())
        if self.windows and self.incomplete > MUCH * self.windows:
            found.append(self._incomplete(operator))
        if self.last_ms is not None and self.last_ms < YEAR_MS:
            begin = clock(self.first_ms or 0, dated=True)
            found.append(f"all times lie in 1970 (from {begin}): check the column and its unit")
        return found

    def require(self, operator: DetectOperator) -> None:
        """Raise NothingJudgedError where no window has a score, with the likely reason."""
        if self.judged:
            return
        msg = f"nothing was judged: {self._why(operator)}"
        raise NothingJudgedError(msg)

    def _why(self, operator: DetectOperator) -> str:
        if not self.rows:
            return self.rejections() if self.rejected else "there are no rows to read"
        if self.late > MUCH * self.rows:
            return self._late()
        need, longest = readiness(operator).scored, max(self.lengths.values(), default=0)
        if longest < need:
            return (
                f"a series is scored after {samples(need, None)}, and the longest has {longest:,}; "
                f"give more rows, smaller windows (now {operator.detector.size}), or a detector "
                "that learns sooner (robust_z)"
            )
        if self.incomplete > MUCH * self.windows:
            return self._incomplete(operator)
        return self.rejections() if self.rejected else "no window was full"

    def rejections(self) -> str:
        """Return the commonest reasons of rejections, with a detail each."""
        total = sum(self.rejected.values())
        parts = []
        for reason, number in self.rejected.most_common(MAX_REASONS):
            detail = self.details.get(reason)
            parts.append(f"{number:,} {reason}" + (f" ({detail})" if detail else ""))
        more = len(self.rejected) - MAX_REASONS
        tail = f"; and {more} other reasons" if more > 0 else ""
        return f"{total:,} rows are not used: {'; '.join(parts)}{tail}"

    def _late(self) -> str:
        return (
            f"{self.late:,} of {self.rows:,} rows come after later ones of their series, or at the "
            "same time, and are left out: are there several series in it (name their column as "
            "the key), or do its times run backwards (sort it)?"
        )

    def _incomplete(self, operator: DetectOperator) -> str:
        share = operator.config.series.gaps.max_share
        step = operator.config.series.step
        every = f"a row every {step // 1000} s (series.step)" if step else "a row in every step"
        return (
            f"{self.incomplete:,} of {self.windows:,} windows are incomplete and not judged: more "
            f"than {share:.0%} of {every} is absent (series.gaps)"
        )
