"""A pipeline of the demo and what it reads: fitted where it is to be, then fed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, Protocol

from jobs.build import make_detector
from jobs.demo.board import Board
from jobs.demo.rehearsal import Prepared
from streamad.operators.detect import DetectOperator
from streamad.records import Alert, RecordBatch, joined_rows
from streamad.runtime.embedded import EmbeddedPipeline, Hooks

_MOST_ROWS: Final = 50_000
"""Rows that are kept to be learned from; later ones are left out."""


class Source(Protocol):
    """Where records come from, one message at a time."""

    @property
    def is_due(self) -> bool:
        """Return whether `poll` would return at once."""

    def poll(self) -> RecordBatch[Any]:
        """Wait for the next reading and return it."""


class Watching:
    """A pipeline, fed from its source; what it yields goes to the board."""

    def __init__(
        self, prepared: Prepared, source: Source, *, board: Board, clock: Callable[[], int]
    ) -> None:
        self._prepared, self._source, self._board, self._clock = prepared, source, board, clock
        self._kept: list[Any] = []
        self._n_rows = 0
        self._pipeline = None if prepared.operator is None else self._run(prepared.operator)

    @property
    def name(self) -> str:
        """Return the name of its kind."""
        return self._prepared.kind.name

    def poll(self) -> list[Alert]:
        """Wait for a reading; return the alerts it makes."""
        batch = self._source.poll()
        self._n_rows += len(batch)
        self._board.take_rows(self.name, batch)
        if self._pipeline is not None:
            alerts = self._pipeline.feed(batch)
            self._board.take_alerts(alerts)
            return alerts
        if len(batch) and self._n_rows <= _MOST_ROWS:
            self._kept.append(batch.values)
        return []

    def poll_if_due(self) -> list[Alert]:
        """Do what `poll` does where it need not wait."""
        return self.poll() if self._source.is_due else []

    def learned(self) -> bool:
        """Fit what is to be fitted; return False where nothing has been read that one can fit."""
        if self._pipeline is None and self._kept:
            detector = make_detector(self._prepared.config)
            detector.fit(joined_rows(self._kept))
            self._pipeline = self._run(DetectOperator(self._prepared.config, detector))
            self._kept.clear()
        return self._n_rows > 0

    def _run(self, operator: DetectOperator) -> EmbeddedPipeline:
        def show(scores: Any) -> None:
            self._board.take_scores(self.name, scores)

        hooks = Hooks(scores=show)
        return EmbeddedPipeline(self._prepared.config, operator, self._clock, hooks=hooks)
