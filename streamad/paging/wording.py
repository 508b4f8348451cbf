"""The lines of incidents and digests, read at 3 a.m."""

from __future__ import annotations

from collections import Counter

from streamad.paging.answers import ANSWERED
from streamad.paging.budget import DAY_MS, OVERDRAWN, SPENT, GroupBudget
from streamad.paging.config import AlertingConfig
from streamad.paging.records import Digest, Incident
from streamad.records import stable_id
from streamad.shown import safe_text
from streamad.wording import duration

MAX_NAMED = 10


def summarise(incident: Incident) -> str:
    """Return the one line of an incident: its leader's, and how many others are with it."""
    leader = incident.members[0]
    text = leader.summary
    others = incident.n_members - 1
    if incident.state == "resolved":
        assert incident.resolved_ms is not None  # noqa: S101 - set with the state
        lasted = duration(max(incident.until_ms - incident.began_ms, 0))
        text = f"over after {lasted}: {text}" if others else text
    if others:
        noun = "alert" if others == 1 else "alerts"
        where = f" of {incident.group}" if incident.group != leader.pipeline else ""
        text += f" [with {others} other {noun}{where}]"
    if incident.alike:
        noun = "incident" if incident.alike == 1 else "incidents"
        text += f" [like {incident.alike} {noun} dismissed before]"
    return safe_text(text)


def digest(
    config: AlertingConfig, group: str, budget: GroupBudget, *, now_ms: int
) -> Digest | None:
    """Return what did not page since the last digest, None where everything did."""
    lines: Counter[str] = Counter()
    for day, one in budget.days.items():
        if day >= budget.digest_ms // DAY_MS and day < now_ms // DAY_MS:
            lines.update(one.ledger)
    totals = {what: n for what, n in lines.items() if "/" not in what}
    withheld = {
        what: n for what, n in totals.items()
        if what not in (SPENT, OVERDRAWN) and not what.startswith(ANSWERED)
    }  # fmt: skip
    if not withheld:
        return None
    n = sum(withheld.values())
    why = ", ".join(f"{what} {count}" for what, count in sorted(withheld.items()))
    named = sorted(
        (-count, name.split("/", 1)[1]) for name, count in lines.items()
        if "/" in name and name.split("/", 1)[0] in withheld
    )  # fmt: skip
    spent, overdrawn = totals.get(SPENT, 0), totals.get(OVERDRAWN, 0)
    asked = f" of {budget.pages:g} a week asked" if budget.pages else ""
    text = (
        f"{group}: {n} incident{'' if n == 1 else 's'} did not page ({why}); "
        f"{spent + overdrawn} page{'' if spent + overdrawn == 1 else 's'} were sent{asked}"
    )
    return Digest(
        id=stable_id(config.name, "digest", group, now_ms),
        name=config.name,
        tenant="default",
        group=group,
        from_ms=budget.digest_ms,
        to_ms=now_ms,
        asked=budget.pages,
        spent=spent,
        overdrawn=overdrawn,
        withheld=withheld,
        threshold=budget.threshold(config.budget.memory) if budget.pages else 0.0,
        incidents=tuple(key for _, key in named[:MAX_NAMED]),
        summary=safe_text(text),
    )
