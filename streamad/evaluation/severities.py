"""Fit what people call an incident: from answers with a severity to a scale of evidence."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import orjson
from numpy.typing import NDArray

from streamad.alerting.levels import LEVELS, level_of
from streamad.alerts.scale import WORDS, Scale, rank_of
from streamad.errors import ConfigError
from streamad.evaluation.concordance import concordance

LEAST_ANSWERS: Final = 10
MAX_ANSWERS: Final = 100_000
PRIOR_WEIGHT: Final = 0.5
"""Answers that each quarter of a step of the default scale counts for, at the boundary that was
usual: where nobody has answered, it holds."""
FOLDS: Final = 5
NOT_REAL: Final = "false_positive"


@dataclass(frozen=True, slots=True, kw_only=True)
class Graded:
    """What was answered to one incident or alert, and what the desk knew of it.

    severity : its peak; decades : its evidence; boundary : what its group needed, in decades;
    rank : of the word, -1 where it was a false positive and has none
    """

    severity: float
    decades: float
    boundary: float
    rank: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Fitted:
    """A scale, and how well evidence, severity and words follow the answers.

    within : C-index of evidence among answers with a word; overall : with false positives below
        all of them (NaN: there are none); by_severity : as ``within``, of severity
    right, right_default : share of answers whose word the scale has (fitted without their fold),
        and the default steps have
    """

    scale: Scale
    within: float
    overall: float
    by_severity: float
    right: float
    right_default: float
    n_false: int


def graded(rows: Sequence[Mapping[str, Any]]) -> list[Graded]:
    """Return what was answered to each subject, once, of rows of ``streamad alerts answers``.

    Rows without a word and those of files that do not say how severe it was are passed over.
    """
    found: dict[str, Graded] = {}
    for row in rows:
        numbers = [_number(row.get(name)) for name in ("severity", "strength", "boundary")]
        word = row.get("graded") or ""
        if min(numbers) < 0:
            continue
        if not word and row.get("verdict") != NOT_REAL:
            continue
        rank = rank_of(str(word)) if word else -1
        severity, decades, boundary = numbers
        found[str(row.get("subject", len(found)))] = Graded(
            severity=severity, decades=decades, boundary=boundary, rank=rank
        )
    return list(found.values())


def _number(value: Any) -> float:
    """Return a finite number as it is, -1 for anything else."""
    known = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    return float(value) if known else -1.0


def read_graded(lines: Sequence[bytes], *, name: str) -> list[Graded]:
    """Read JSON lines of ``streamad alerts answers``; raises ConfigError that names the line."""
    rows: list[Mapping[str, Any]] = []
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        if len(rows) >= MAX_ANSWERS:
            msg = f"{name}:{number}: more than {MAX_ANSWERS:,} answers; give a newer part of them"
            raise ConfigError(msg)
        try:
            given = orjson.loads(line)
        except orjson.JSONDecodeError as error:
            msg = f"{name}:{number}: not JSON: {error}"
            raise ConfigError(msg) from None
        if not isinstance(given, dict):
            msg = f"{name}:{number}: expected a JSON object a line, got {type(given).__name__}"
            raise ConfigError(msg)
        rows.append(given)
    return graded(rows)


def fit_scale(answers: Sequence[Graded]) -> Fitted:
    """Fit a scale to answers; raises ConfigError where there are too few to say anything."""
    words = [one for one in answers if one.rank >= 0]
    if len(words) < LEAST_ANSWERS or len({one.rank for one in words}) < 2:
        msg = (
            f"expected at least {LEAST_ANSWERS} answers with a severity, of two different words, "
            f"got {len(words)}; answer with 'streamad alerts ack ... --severity error'"
        )
        raise ConfigError(msg)
    x = np.array([one.decades for one in words])
    y = np.array([one.rank for one in words])
    severity = np.array([one.severity for one in words])
    usual = float(np.median([one.boundary for one in words]))
    false = np.array([one.decades for one in answers if one.rank < 0])
    overall = concordance(np.r_[x, false], np.r_[y, np.full(len(false), -1)])
    return Fitted(
        scale=_curve(x, y, usual),
        within=concordance(x, y),
        overall=overall if len(false) else float("nan"),
        by_severity=concordance(severity, y),
        right=_right_without_own_fold(x, y, usual),
        right_default=float(
            np.mean([level_of(s) == WORDS[r] for s, r in zip(severity, y, strict=True)])
        ),
        n_false=len(false),
    )


def _right_without_own_fold(x: NDArray[np.float64], y: NDArray[np.int64], usual: float) -> float:
    """Return the share of words that scales fitted to the other answers have right."""
    # In the order of evidence every fold has some of each part of the scale.
    place = np.empty(len(x), np.int64)
    place[np.argsort(x, kind="stable")] = np.arange(len(x))
    right = 0
    for fold in range(FOLDS):
        own = place % FOLDS == fold
        scale = _curve(x[~own], y[~own], usual)
        right += sum(scale.word(s) == WORDS[r] for s, r in zip(x[own], y[own], strict=True))
    return right / len(x)


def _curve(x: NDArray[np.float64], y: NDArray[np.int64], usual: float) -> Scale:
    # It takes a second to import, which only this one command needs.
    from sklearn.isotonic import IsotonicRegression  # noqa: PLC0415

    prior = np.arange(0.125, LEVELS[0][0] + 1.0, 0.25)
    known = np.array([WORDS.index(level_of(s)) for s in prior])
    model = IsotonicRegression(y_min=0, y_max=len(WORDS) - 1, out_of_bounds="clip")
    model.fit(
        np.r_[x, prior * usual],
        np.r_[y, known],
        sample_weight=np.r_[np.ones(len(x)), np.full(len(prior), PRIOR_WEIGHT)],
    )
    # Equal severities are one knot, or the curve would have two values there.
    places, first = np.unique(model.X_thresholds_, return_index=True)
    ranks = np.maximum.accumulate(model.y_thresholds_[first])
    return Scale(decades=tuple(places.tolist()), rank=tuple(ranks.tolist()), answers=len(x))
