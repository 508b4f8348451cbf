"""When a key's alerts can come: what it must have shown before, in samples and in time."""

from __future__ import annotations

from dataclasses import dataclass

from streamad.operators.detect import DetectOperator
from streamad.scoring.block_kernels import block_length
from streamad.scoring.episodes import ROOM
from streamad.scoring.kernels import FEWEST_BLOCKS
from streamad.wording import duration


@dataclass(frozen=True, slots=True, kw_only=True)
class Readiness:
    """What a new key goes through before it is watched in full.

    scored, watched : samples after which its windows are scored, and may open an alert
    learning_ms : time during which only the newest samples can alert, and only well beyond the
        level (``scoring.first_day``, and a few blocks of history); 0 where the detector looks at
        them alone
    step_ms : time between samples, None where it is not known
    seeded : keys of the artifact's groups skip the warm-up and the learning
    unit : what is counted
    """

    scored: int
    watched: int
    learning_ms: int
    step_ms: int | None
    seeded: bool
    unit: str = "sample"

    def lines(self) -> dict[str, str]:
        """Return it as lines of a report."""
        known = " (at once where the artifact covers the key)" if self.seeded else ""
        later = " (ordinary levels where the artifact covers the key)" if self.seeded else ""
        return {
            "scored_after": samples(self.scored, self.step_ms, self.unit) + known,
            "alerts_after": samples(self.watched, self.step_ms, self.unit),
            "all_alerts_after": "the same"
            if not self.learning_ms
            else f"{duration(self.learning_ms)}; until then only sudden changes alert{later}",
        }


def readiness(operator: DetectOperator, *, step_ms: int | None = None) -> Readiness:
    """Return when keys of an operator are watched; step_ms : where ``series.step`` says nothing."""
    config, info = operator.config, operator.detector.info
    stride, size = config.windows.stride, operator.detector.size
    warm = operator.plan.begins + operator.detector.warm_up * stride
    step_ms = config.series.step or step_ms
    learning_ms = config.scoring.first_day if info.n_looks > 1 else 0
    if learning_ms and step_ms:
        span_ms, least_ms = (size - 1) * step_ms, config.scoring.memory // ROOM
        learning_ms = max(learning_ms, FEWEST_BLOCKS * int(block_length(span_ms, least_ms)))
    return Readiness(
        scored=warm,
        watched=warm + config.scoring.min_windows * stride,
        learning_ms=learning_ms,
        step_ms=step_ms,
        seeded=bool(operator.artifact),
        unit=operator.modality.unit,
    )


def samples(n: int, step_ms: int | None, unit: str = "sample") -> str:
    """Return a number of samples (of units), and the time they take where that is known.

    Examples
    --------
    >>> samples(32, 10_000), samples(1, None)
    ('32 samples (5 min 20 s)', '1 sample')
    """
    text = f"{n:,} {unit}{'' if n == 1 else 's'}"
    return f"{text} ({duration(n * step_ms)})" if step_ms and n else text


def beyond_memory(operator: DetectOperator) -> str | None:
    """Say so where the alert level is rarer than the history it is measured on is long."""
    level, memory = operator.config.alerts.level, operator.config.scoring.memory
    if not isinstance(level, int) or level <= memory:
        return None
    return (
        f"alerts.level asks for once in {duration(level)}, but scoring.memory holds "
        f"{duration(memory)} of history: the level is extrapolated from that"
    )


def still_learning(
    spans_ms: list[int], operator: DetectOperator, *, step_ms: int | None = None
) -> str | None:
    """Say how many keys were in their first day throughout.

    spans_ms : of each key that no artifact covers, the time between its first and last sample;
    step_ms : as for `readiness`
    """
    learning_ms = readiness(operator, step_ms=step_ms).learning_ms
    young = sum(span < learning_ms for span in spans_ms)
    if not young:
        return None
    keys = f"{young:,} of {len(spans_ms):,} keys" if len(spans_ms) > 1 else "the series"
    verb = "has" if young == 1 or len(spans_ms) == 1 else "have"
    return (
        f"{keys} {verb} less than {duration(learning_ms)} of history (scoring.first_day, and "
        "some blocks): only sudden changes could alert there; train on earlier rows to judge it all"
    )
