"""The lines of incidents and digests, read at 3 a.m."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from streamad.alerting.config import AlertingConfig
from streamad.incidents import Digest, Incident
from streamad.paging.answers import ANSWERED
from streamad.paging.budget import DAY_MS, OVERDRAWN, SPENT, GroupBudget
from streamad.paging.incidents.causes import Suspect
from streamad.records import stable_id
from streamad.shown import safe_text
from streamad.wording import duration

MAX_NAMED = 10


def scope_of(incident: Incident, ranked: Sequence[Suspect]) -> str:
    """Return how much is affected: ``30 hosts of checkout``, ``12 alerts on db-1``."""
    affected = [one for one in ranked if one.members]
    kinds = {one.entity.kind for one in affected}
    where = incident.groups[0] if len(incident.groups) == 1 else ""
    if incident.groups == incident.pipelines:
        where = ""
    if len(affected) == 1:
        return f"{_many(incident.n_members, 'alert')} on {affected[0].entity.shown}"
    noun = kinds.pop() if len(kinds) == 1 else ""
    # Of more alerts than are held, nobody counted the entities.
    held = sum(len(one.members) for one in affected)
    least = "at least " if incident.n_members > held else ""
    text = least + _many(len(affected), noun if noun.isalpha() else "entity")
    if where:
        return f"{text} of {where}"
    groups = len(incident.groups)
    return f"{text} of {groups} groups" if groups > 1 else text


def summarise(incident: Incident, scope: str, flaps_since_ms: int = 0) -> str:
    """Return the one line of an incident: how much, the leader's line, and the probable cause.

    scope : see `scope_of`; flaps_since_ms : when it opened first, where it flaps
    """
    leader = incident.members[0]
    text = leader.summary
    if incident.n_members > 1:
        # A leader that is back to normal must not read as if all were.
        going = "" if leader.open or not incident.n_open else f", {incident.n_open} alerts open"
        text = f"{scope}{going}: {text}{_cause(incident, leader.key)}"
    if incident.merged_into:
        text = f"part of incident {incident.merged_into[:8]} now: {text}"
    elif incident.state == "resolved" and incident.n_members > 1:
        lasted = duration(max(incident.until_ms - incident.began_ms, 0))
        text = f"over after {lasted}: {text}"
    if incident.flaps:
        within = duration(max(incident.time_ms - flaps_since_ms, 0))
        text = f"flapping, {incident.flaps} times in {within}: {text}"
    if incident.alike:
        noun = "incident" if incident.alike == 1 else "incidents"
        text += f" [like {incident.alike} {noun} dismissed before]"
    return safe_text(text)


def _cause(incident: Incident, shown_key: str) -> str:
    if not incident.causes:
        return ""
    first = incident.causes[0]
    # The leader's own line begins with its key: repeating the name would not help at 3 a.m.
    name = "" if first.entity in shown_key else f"{first.entity}, "
    return f" (probable cause: {name}{first.reason})"


def _many(n: int, noun: str) -> str:
    """Return a number with its noun.

    >>> _many(1, "host"), _many(3, "entity"), _many(2, "address")
    ('1 host', '3 entities', '2 addresses')
    """
    if n == 1:
        return f"1 {noun}"
    if noun.endswith("y") and noun[-2:-1] not in "aeiou":
        return f"{n} {noun[:-1]}ies"
    return f"{n} {noun}{'es' if noun.endswith(('s', 'x', 'ch')) else 's'}"


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
        tenant=budget.tenant,
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
