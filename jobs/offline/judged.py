"""Why little or nothing of some input was judged: reasons, samples of them, and what helps."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np

from connectors.codecs.budget import COUNTED
from jobs.offline.readiness import readiness, samples
from streamad.errors import StreamadError
from streamad.operators.call import DetectOutput
from streamad.operators.detect import DetectOperator
from streamad.records import Rejected, SignalBatch
from streamad.training.fit import rows_of
from streamad.wording import duration

MAX_REASONS = 3
MAX_COLUMNS = 5
MAX_SAMPLE_CHARS = 160
MUCH = 0.5
"""A share of rows or windows from which on a report explains why they were lost."""

YEAR_MS = 365 * 86_400_000


class NothingJudgedError(StreamadError):
    """Not one window of the input got a score."""


@dataclass(slots=True, kw_only=True)
class Account:
    """What became of rows and windows.

    rejected, passed : rows by reason: of those that are at fault, and of those that the pipeline
    does not ask for; details : the first detail of each reason; columns : by reason, the rows whose
    field at fault is known, by that field; rows : that could be read; late :
    those of them that came at or before a time their series had shown; undated : those of 1970;
    windows, incomplete, judged : of windows; blind : series most of whose windows were incomplete;
    lengths : rows of each series
    """

    rejected: Counter[str] = field(default_factory=Counter)
    passed: Counter[str] = field(default_factory=Counter)
    details: dict[str, str] = field(default_factory=dict)
    columns: dict[str, Counter[str]] = field(default_factory=dict)
    rows: int = 0
    late: int = 0
    merged: int = 0
    merged_key: str = ""
    undated: int = 0
    windows: int = 0
    incomplete: int = 0
    judged: int = 0
    blind: set[str] = field(default_factory=set)
    lengths: Counter[str] = field(default_factory=Counter)

    def reject(self, rejected: Iterable[Rejected]) -> None:
        """Count rejections, and keep the first detail of each reason."""
        for one in rejected:
            for reason, number in one.by_reason.items():
                where = self.passed if reason in COUNTED else self.rejected
                where[reason] += number
            if one.detail:
                self.details.setdefault(one.reason, one.detail[:MAX_SAMPLE_CHARS])
            if one.column:
                self.columns.setdefault(one.reason, Counter())[one.column] += 1

    def take(self, batch: SignalBatch, out: DetectOutput) -> None:
        """Count the rows of a batch, and what the operator made of them."""
        self.rows += len(batch)
        self.late += len(out.late)
        self.merged += len(out.merged)
        if len(out.merged) and not self.merged_key:
            self.merged_key = str(batch.keys[int(out.merged[0])])
        self.windows += out.counts["windows"]
        self.incomplete += out.counts["incomplete"]
        self.blind.update(out.blind)
        self.judged += sum(int(np.isfinite(scores.score).sum()) for scores in out.scores)
        self.lengths.update(dict(batch.keys.value_counts().rows()))
        self.undated += int((batch.time_ms < YEAR_MS).sum())

    def notes(self, operator: DetectOperator, *, dated: bool = True) -> list[str]:
        """Return what a reader must know of input that was not judged, a line each.

        dated : times are moments, not numbers of rows
        """
        found = [self.rejections()] if self.rejected else []
        if self.passed:
            parts = [f"{number:,} {reason}" for reason, number in self.passed.most_common()]
            found.append(f"rows that the pipeline does not ask for: {', '.join(parts)}")
        if self.merged:
            found.append(
                f"{self.merged:,} of {self.rows:,} rows have the key and time of another in their "
                f"message ({self.merged_key[:MAX_SAMPLE_CHARS]}): several series are taken for "
                "one; add to input.fields.key what separates them"
            )
        if self.late:
            found.append(self._late())
        if self.windows and self.incomplete > MUCH * self.windows:
            found.append(self._incomplete(operator))
        elif self.blind:
            named = ", ".join(sorted(self.blind)[:MAX_REASONS])
            more = ", ..." if len(self.blind) > MAX_REASONS else ""
            found.append(
                f"{len(self.blind):,} of {len(self.lengths):,} series are hardly judged ({named}"
                f"{more}): {_absent(operator)}"
            )
        if dated and self.undated:
            found.append(
                f"{self.undated:,} of {self.rows:,} rows have a time in 1970: check the column of "
                "times and its unit"
            )
        return found

    def require(self, operator: DetectOperator) -> None:
        """Raise NothingJudgedError where no window has a score, with the likely reason."""
        if self.judged:
            return
        msg = f"nothing was judged: {self._why(operator)}"
        raise NothingJudgedError(msg)

    def _why(self, operator: DetectOperator) -> str:
        if not self.rows:
            if self.rejected or not self.passed:
                return self.rejections() if self.rejected else "there are no rows to read"
            return f"the pipeline asks for none of its rows ({', '.join(self.passed)})"
        if self.late > MUCH * self.rows:
            return self._late()
        need, longest = readiness(operator).scored, max(self.lengths.values(), default=0)
        if longest < need:
            return _too_short(operator, need, longest)
        if self.incomplete > MUCH * self.windows:
            return self._incomplete(operator)
        return self.rejections() if self.rejected else "no window was full"

    def rejections(self) -> str:
        """Return the commonest reasons of rejections: the fields at fault, and a detail each."""
        total = sum(self.rejected.values())
        parts = []
        for reason, number in self.rejected.most_common(MAX_REASONS):
            detail = self.details.get(reason)
            where = self._where(reason, number)
            parts.append(f"{number:,} {reason}{where}" + (f" ({detail})" if detail else ""))
        more = len(self.rejected) - MAX_REASONS
        tail = f"; and {more} other reasons" if more > 0 else ""
        return f"{total:,} rows are not used: {'; '.join(parts)}{tail}"

    def _where(self, reason: str, number: int) -> str:
        """Return how many rows are at fault for which field, empty where none is known."""
        known = self.columns.get(reason)
        if not known:
            return ""
        if known.most_common(1)[0][1] == number:
            return f" in {next(iter(known))}"
        shown = [f"{name} {n:,}" for name, n in known.most_common(MAX_COLUMNS)]
        rest = number - sum(n for _, n in known.most_common(MAX_COLUMNS))
        return f" in {', '.join(shown)}" + (f", others {rest:,}" if rest else "")

    def _late(self) -> str:
        return (
            f"{self.late:,} of {self.rows:,} rows come after later ones of their series, or at the "
            "same time, and are left out: are there several series in it (name their column as "
            "the key), or do its times run backwards (sort it)?"
        )

    def _incomplete(self, operator: DetectOperator) -> str:
        return (
            f"{self.incomplete:,} of {self.windows:,} windows are incomplete and not judged: "
            f"{_absent(operator)}"
        )


def _too_short(operator: DetectOperator, need: int, longest: int) -> str:
    unit = operator.modality.unit
    if unit != "sample":
        return (
            f"a key is scored after {samples(need, None, unit)}, and the longest has {longest:,}; "
            "give more rows, or an artifact ('streamad fit')"
        )
    return (
        f"a series is scored after {samples(need, None)}, and the longest has {longest:,}; "
        f"give more rows, smaller windows (now {operator.detector.size}), or a detector "
        "that learns sooner (robust_z)"
    )


def _absent(operator: DetectOperator) -> str:
    series = operator.config.series
    every = f"rows, one every {duration(series.step)} (series.step)," if series.step else "values"
    return f"more than {series.gaps.max_share:.0%} of their {every} are absent (series.gaps)"


def with_dates(batch: SignalBatch) -> SignalBatch:
    """Return the rows of a batch that are not of 1970, or all if all are: a clock that was not set.

    A single such row must not stretch a span or a drawing by half a century.
    """
    known = batch.time_ms >= YEAR_MS
    return batch if known.all() or not known.any() else rows_of(batch, np.flatnonzero(known))
