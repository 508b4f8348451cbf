"""The budgets a report compares, and what each would have made of the same input.

What becomes a finding depends on the budget as well: a larger one needs more candidates to choose
from. So the input is decided on once for each set of levels, with the scores of the first run: the
model judges nothing twice. Each result then goes through a desk of its own.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from jobs.offline.backtest import Decided, decide, in_order
from streamad.alerting.config import AlertingConfig
from streamad.config.values import format_pages
from streamad.modalities.levels import Levels, levels_of
from streamad.operators.call import DetectOutput
from streamad.operators.detect import DetectOperator, Position
from streamad.operators.shard import ShardState
from streamad.records import Finding, SignalBatch
from streamad.runtime.recorded import LoggedScores

BUDGETS = (None, 1.0, 2.0, 5.0, 10.0, 20.0, 50.0)
"""Pages a week of each group; None: every incident pages."""


@dataclass(slots=True, kw_only=True)
class _Sibling:
    """The operator of another budget, with a state for each shard."""

    operator: DetectOperator
    shards: dict[Position, ShardState] = field(default_factory=dict)
    findings: list[Finding] = field(default_factory=list)


@dataclass(frozen=True, slots=True, kw_only=True)
class Tried:
    """A budget and what came of it; ``name`` is how people read it."""

    name: str
    asked: float | None
    configured: bool
    decided: Decided


class Budgets:
    """Decide on a replay's input under every budget, beside the run of the configured one.

    operator : of the run; alerting : the alerting file, where there is one: its budget leaves
        findings as they are
    """

    def __init__(
        self,
        operator: DetectOperator,
        *,
        alerting: AlertingConfig | None = None,
        budgets: Sequence[float | None] = BUDGETS,
    ) -> None:
        self._config = operator.config
        self._alerting = alerting or AlertingConfig.of(operator.config)
        self._asked = [pages for pages in budgets if pages != self.configured or self._mixed]
        self._siblings: list[_Sibling] = []
        self._of: dict[float | None, _Sibling | None] = dict.fromkeys(self._asked)
        if alerting is None:
            self._add_siblings(operator)

    @property
    def configured(self) -> float | None:
        """Return the budget of groups that have none of their own."""
        return self._alerting.budget.pages

    @property
    def _mixed(self) -> bool:
        return bool(self._alerting.budget.groups)

    def _add_siblings(self, operator: DetectOperator) -> None:
        """Make an operator for each set of levels that differs from the configured one's."""
        made: dict[Levels, _Sibling | None] = {levels_of(operator.config): None}
        for pages in self._asked:
            other = operator.under(
                {"alerts.budget": None if pages is None else format_pages(pages)}
            )
            levels = levels_of(other.config)
            if levels not in made:
                made[levels] = sibling = _Sibling(operator=other)
                self._siblings.append(sibling)
            self._of[pages] = made[levels]

    def take(self, batch: SignalBatch, out: DetectOutput, at: Position) -> None:
        """Decide on a batch as the other budgets would, with the scores that it got."""
        if not self._siblings:
            return
        recorded = LoggedScores(out.scores)
        for one in self._siblings:
            if at not in one.shards:
                one.shards[at] = one.operator.new_state()
            made = one.operator.process(one.shards[at], batch, at=at, recorded=recorded)
            one.findings += made.findings

    def tried(
        self, findings: Sequence[Finding], decided: Decided, *, end_ms: int | None
    ) -> list[Tried]:
        """Return every budget with what came of it, the configured one as it was decided.

        findings : of the run, in order; end_ms : when it ended
        """
        made = [self._try(pages, findings, end_ms) for pages in self._asked]
        name = "by group" if self._mixed else _named(self.configured)
        made.append(Tried(name=name, asked=self.configured, configured=True, decided=decided))
        return sorted(made, key=lambda one: (one.asked is not None, one.asked or 0, one.configured))

    def _try(self, pages: float | None, findings: Sequence[Finding], end_ms: int | None) -> Tried:
        sibling = self._of[pages]
        if sibling is not None:
            in_order(sibling.findings)
            findings = sibling.findings
        budget = self._alerting.budget.model_copy(update={"pages": pages, "groups": {}})
        config = self._alerting.model_copy(update={"budget": budget})
        decided = decide(config, findings, end_ms=end_ms)
        return Tried(name=_named(pages), asked=pages, configured=False, decided=decided)


def _named(pages: float | None) -> str:
    return "no budget" if pages is None else format_pages(pages)
