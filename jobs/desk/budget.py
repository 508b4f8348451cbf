"""``streamad budget show``: what was asked, and what became of it, day by day."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from jobs.console import say
from jobs.desk import showing
from jobs.desk.reading import alerting_of, budgets_of, opened
from streamad.alerting.config import AlertingConfig
from streamad.paging.answers import ANSWERED
from streamad.paging.budget import DAY_MS, OVERDRAWN, SPENT, GroupBudget
from streamad.wording import clock

WEEK_DAYS = 7
MOST_BY = 5


@dataclass(slots=True, kw_only=True)
class Account:
    """The ledger of one group, of all desks that have a part of it.

    asked : pages a week, 0: no budget; left : pages that may come at once now; boundary : decades
    that an episode needs; days : what became of incidents, by day since 1970; by : the same by the
    series that led them
    """

    group: str
    asked: float
    left: float
    boundary: float
    days: dict[int, Counter[str]] = field(default_factory=dict)
    by: Counter[tuple[str, str]] = field(default_factory=Counter)

    def total(self, what: str, *, since: int = 0) -> int:
        """Return how often something was entered, from a day on."""
        return sum(lines[what] for day, lines in self.days.items() if day >= since)

    def reasons(self) -> list[str]:
        """Return the reasons for which incidents were withheld."""
        names = {what for lines in self.days.values() for what in lines}
        return sorted(n for n in names - {SPENT, OVERDRAWN} if not n.startswith(ANSWERED))

    def answers(self) -> list[str]:
        """Return the lines that count answers."""
        return sorted({w for lines in self.days.values() for w in lines if w.startswith(ANSWERED)})


def account(
    group: str, budgets: Sequence[GroupBudget], config: AlertingConfig, *, first_day: int
) -> Account:
    """Return the account of a group from a day on."""
    made = Account(
        group=group,
        asked=max(budget.pages for budget in budgets),
        left=sum(budget.tokens for budget in budgets),
        boundary=max(budget.threshold(config.budget.memory) for budget in budgets),
    )
    for budget in budgets:
        for day, one in budget.days.items():
            if day < first_day:
                continue
            lines = made.days.setdefault(day, Counter())
            for name, n in one.ledger.items():
                what, slash, key = name.partition("/")
                if slash:
                    made.by[what, key] += n
                else:
                    lines[what] += n
    return made


def show_budgets(file: Path, *, days: int, group: str | None, to_json: bool) -> None:
    """Print the ledgers of a desk's groups."""
    config = alerting_of(file)
    with opened(config) as log:
        found = budgets_of(log, config)
    today = time.time_ns() // 1_000_000 // DAY_MS
    accounts = [
        account(name, budgets, config, first_day=today - days + 1)
        for name, budgets in sorted(found.items())
        if group is None or name == group
    ]
    if to_json:
        showing.out(showing.json_line(_facts(one)) for one in accounts)
        return
    if not accounts:
        say("nothing was entered yet" if group is None else f"no group has the name {group!r}")
        return
    showing.out(lines_of(accounts, today=today))


def lines_of(accounts: Sequence[Account], *, today: int) -> list[str]:
    """Return the accounts as text: all groups in one table, then each by day and by series."""
    week = today - WEEK_DAYS + 1
    rows = []
    for one in accounts:
        withheld = [sum(one.total(r, since=at) for r in one.reasons()) for at in (week, 0)]
        sent = [one.total(SPENT, since=at) + one.total(OVERDRAWN, since=at) for at in (week, 0)]
        rows.append(
            [
                one.group,
                f"{one.asked:g}" if one.asked else "no budget",
                str(sent[0]),
                str(withheld[0]),
                str(sent[1]),
                str(one.total(OVERDRAWN)),
                str(withheld[1]),
                f"{one.left:.1f}" if one.asked else "",
                f"{one.boundary:.1f}" if one.asked else "",
            ]
        )
    header = ["group", "asked per week", "sent in 7 days", "withheld in 7 days", "sent",
              "of these overdrawn", "withheld", "left", "boundary"]  # fmt: skip
    lines = showing.table(header, rows)
    for one in accounts:
        lines += ["", *_by_day(one)]
    return lines


def _by_day(one: Account) -> list[str]:
    names = [SPENT, OVERDRAWN, *one.reasons(), *one.answers()]
    rows = [
        [clock(day * DAY_MS, dated=True)[:10], *(str(lines[name] or "") for name in names)]
        for day, lines in sorted(one.days.items(), reverse=True)
    ]
    heads = ["sent" if name == SPENT else name.replace("_", " ") for name in names]
    made = showing.table([one.group, *heads], rows)
    by = [
        [str(n), what, key]
        for (what, key), n in sorted(one.by.items(), key=lambda item: (-item[1], item[0]))[:MOST_BY]
    ]
    return made + (["", *showing.table(["times", "what", "led by"], by)] if by else [])


def _facts(one: Account) -> dict[str, Any]:
    return {
        "group": one.group,
        "asked_per_week": one.asked or None,
        "left": one.left if one.asked else None,
        "boundary": one.boundary if one.asked else None,
        "days": {
            clock(day * DAY_MS, dated=True)[:10]: dict(lines)
            for day, lines in sorted(one.days.items())
        },
        "by": [{"what": what, "key": key, "n": n} for (what, key), n in one.by.most_common()],
    }
