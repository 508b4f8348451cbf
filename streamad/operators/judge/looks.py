"""What a detector says of windows, one it fails on among them: the stream goes on."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from streamad.config.decisions import ScoringConfig
from streamad.detectors.contract import ItemDetector, Observed
from streamad.modalities import Modality
from streamad.operators.call import Call
from streamad.operators.judge.rounds import Round
from streamad.windows.signals import WindowBlock

NOT_FINITE = "the detector returned a score that is not finite"


class Looks:
    """Ask a detector for scores and explanations; a plug-in may fail in any way."""

    def __init__(
        self, scoring: ScoringConfig, detector: ItemDetector[Any], modality: Modality
    ) -> None:
        self._scoring, self._detector, self._modality = scoring, detector, modality
        self._info, self._gated = detector.info, _is_gated(scoring)

    def prepared(self, block: WindowBlock) -> WindowBlock:
        """Let the detector make what it needs of the items once, before they are parted."""
        try:
            return replace(block, values=self._detector.prepared(block.values))
        except Exception:  # noqa: BLE001 - what cannot be prepared fails again where it is scored
            return block

    def observe(self, call: Call, block: WindowBlock) -> Observed | None:
        """Let a detector that judges by a population see a block as a whole, in order.

        Also where its scores are in the log: what it takes in is its state.
        """
        if call.state.shared is None:
            return None
        try:
            return self._detector.watch(call.state.shared, block.values)
        except Exception as error:  # noqa: BLE001 - a plug-in may fail in any way; reported below
            return _Failed(len(block), self._info.n_looks, f"{type(error).__name__}: {error}")

    def fill(
        self,
        call: Call,
        part: Round,
        looks: NDArray[np.float32],
        certainty: NDArray[np.float32] | None,
    ) -> dict[int, str]:
        """Score what is ready and not in the log; what the detector fails on stays NaN.

        Returns the reason of each failure, by the window's place in the round, in order.
        """
        ask = part.ready & np.isnan(looks).any(axis=1)
        if not ask.any():
            return {}
        if part.seen is not None:
            looks[ask] = part.seen.looks[part.rows[ask]]
            bad = np.flatnonzero(ask & ~np.isfinite(looks).all(axis=1))
            looks[bad] = np.nan
            why = part.seen.reason if isinstance(part.seen, _Failed) else NOT_FINITE
            return dict.fromkeys(bad.tolist(), why)
        places = np.flatnonzero(ask)
        values = part.values if ask.all() else part.values[places]
        made, failed = self._look(call, values, part.codes[places])
        looks[places] = made[:, : looks.shape[1]]
        if certainty is not None:
            certainty[part.rows[places]] = made[:, -1]
        return {int(places[i]): reason for i, reason in failed.items()}

    def _look(
        self, call: Call, values: Any, codes: NDArray[np.int32]
    ) -> tuple[NDArray[np.float32], dict[int, str]]:
        memory, failed = call.state.memory, dict[int, str]()
        try:
            looks = self._detector.looks(values, memory=memory, slots=codes)
            bad = np.flatnonzero(~np.isfinite(looks).all(axis=1))
        except Exception:  # noqa: BLE001 - a plug-in may fail in any way; told window by window below
            n_columns = self._info.n_looks + self._info.certain
            looks = np.full((len(codes), n_columns), np.nan, np.float32)
            bad = np.arange(len(codes))
        for i in bad.tolist():
            one = slice(i, i + 1)
            reason = NOT_FINITE
            try:
                looks[i] = self._detector.looks(values[one], memory=memory, slots=codes[one])[0]
            except Exception as error:  # noqa: BLE001 - the stream goes on; the finding says why
                looks[i] = np.nan
                reason = f"{type(error).__name__}: {error}"
            if not np.isfinite(looks[i]).all():
                looks[i] = np.nan
                failed[i] = reason
        return looks, failed

    def suppressed(
        self, call: Call, part: Round, pick: NDArray[np.int64], looks: NDArray[np.float32]
    ) -> NDArray[np.bool_]:
        """Say which windows go the wrong way or not far enough.

        A window whose explanation fails is not suppressed: what cannot be told may matter. Each is
        then asked for alone, or the windows beside it would decide.
        """
        suppressed = np.zeros(len(pick), np.bool_)
        if not self._gated or not len(pick):
            return suppressed
        ask = np.flatnonzero((looks >= self._info.dull).any(axis=1))
        if not len(ask):
            return suppressed
        try:
            suppressed[ask] = self._does_not_matter(call, part, pick[ask])
        except Exception:  # noqa: BLE001 - a plug-in may fail in any way; asked window by window below
            suppressed[:] = False
        else:
            return suppressed
        for i in ask.tolist():
            try:
                suppressed[i] = self._does_not_matter(call, part, pick[i : i + 1])[0]
            except Exception:  # noqa: BLE001 - the stream goes on; the metric tells
                call.out.counts["explain_errors"] += 1
        return suppressed

    def _does_not_matter(
        self, call: Call, part: Round, pick: NDArray[np.int64]
    ) -> NDArray[np.bool_]:
        """Judge by the effect on the most telling variate."""
        why = self._detector.explain(
            part.values[pick], memory=call.state.memory, slots=part.codes[pick]
        )
        observed, expected = self._modality.effect(why)
        effect = observed - expected
        least = np.maximum(
            self._scoring.min_effect.absolute,
            self._scoring.min_effect.relative * np.abs(expected),
        )
        sign = {"above": 1, "below": -1, "both": 0}[self._scoring.direction]
        return np.asarray((np.abs(effect) < least) | (effect * sign < 0), np.bool_)

    def explain(self, call: Call, part: Round, places: NDArray[np.int64]) -> Any:
        """Return why these windows of a round are strange, None where the detector fails on it."""
        try:
            if part.seen is not None:
                return part.seen.explain(part.rows[places])
            return self._detector.explain(
                part.values[places], memory=call.state.memory, slots=part.codes[places]
            )
        except Exception:  # noqa: BLE001 - a finding without an explanation beats none
            call.out.counts["explain_errors"] += len(places)
            return None


@dataclass(frozen=True, slots=True)
class _Failed:
    """A block that a detector of a population failed on."""

    n: int
    n_looks: int
    reason: str

    @property
    def looks(self) -> NDArray[np.float32]:
        return np.full((self.n, self.n_looks), np.nan, np.float32)

    def explain(self, places: NDArray[np.int64]) -> Any:
        raise NotImplementedError(self.reason, places)


def _is_gated(scoring: ScoringConfig) -> bool:
    effect = scoring.min_effect
    return scoring.direction != "both" or effect.absolute > 0 or effect.relative > 0
