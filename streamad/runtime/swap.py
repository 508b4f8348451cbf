"""A new artifact on its way into a running job: staged, tried on what comes, taken over.

Between two commits a partition is judged by one artifact. The swap is a snapshot: the state as of
the committed offset, under the new artifact's name. Whoever recovers it goes on with that artifact;
without it, with the one before. So a kill at any step leaves one or the other, never a mixture.
"""

from __future__ import annotations

import logging
from typing import Protocol

from streamad.operators.detect import DetectOperator
from streamad.operators.judge import Trial
from streamad.ports import Telemetry

logger = logging.getLogger(__name__)


class Staged(Protocol):
    """Where new artifacts come from."""

    def take(self) -> DetectOperator | None:
        """Return an operator that was loaded and not taken yet; at once."""
        ...

    def done(self, operator: DetectOperator, refused: str) -> None:
        """Note that an operator took over, or why it did not."""
        ...


class Swap:
    """The artifact that judges, and the one that is to follow it.

    current : judges partitions that come now; each partition at work has an operator of its own
    """

    def __init__(
        self, operator: DetectOperator, *, staged: Staged | None, telemetry: Telemetry
    ) -> None:
        self.current = operator
        self._staged, self._telemetry = staged, telemetry
        self._next: DetectOperator | None = None
        self._trial: Trial | None = None
        self._say(operator, 1)

    def look(self) -> DetectOperator | None:
        """Look for a new artifact; return the operator that is to take over now, once."""
        if self._staged is None:
            return None
        if self._next is None:
            self._take(self._staged)
        if self._next is None or self._trial is None or self._trial.result is None:
            return None
        found, refused = self._next, self._trial.result
        self.current.try_on(None)
        self._next = self._trial = None
        if refused:
            self._refuse(found, refused)
            return None
        self._say(self.current, 0)
        self._say(found, 1)
        logger.info(
            "artifact %s takes over from %s", found.artifact, self.current.artifact or "none"
        )
        self.current = found
        self._staged.done(found, "")
        return found

    def _take(self, staged: Staged) -> None:
        found = staged.take()
        if found is None or found.artifact == self.current.artifact:
            return
        if refused := found.cannot_follow(self.current):
            self._refuse(found, refused)
            return
        self._next, self._trial = found, self.current.try_on(found)
        logger.info("artifact %s is loaded, and tried on what comes next", found.artifact)

    def _refuse(self, operator: DetectOperator, why: str) -> None:
        logger.warning(
            "artifact %s is not used, %s continues: %s",
            operator.artifact,
            self.current.artifact or "the detector without one",
            why,
        )
        if self._staged is not None:
            self._staged.done(operator, why)

    def _say(self, operator: DetectOperator, value: int) -> None:
        self._telemetry.gauge(
            "artifact_info",
            value,
            pipeline=operator.config.name,
            detector=operator.detector.info.name,
            artifact=operator.artifact,
        )
        if value:
            self._telemetry.gauge("detect_degraded", bool(operator.degraded))
