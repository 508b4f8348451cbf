"""What ``streamad alerts ...`` does with its arguments."""

from __future__ import annotations

import time
import uuid
from collections.abc import Sequence
from pathlib import Path
from typing import get_args

from connectors.feedback import give
from connectors.subscribe import Subscription
from jobs.console import say
from jobs.desk import showing
from jobs.desk.reading import (
    Board,
    alerting_of,
    alerts_of,
    answered,
    board,
    matching,
    opened,
    records,
    silences_of,
)
from jobs.moments import parse_moment
from jobs.settings import environment, kafka_settings
from streamad.alerting.config import AlertingConfig
from streamad.alerting.matchers import parse_matchers
from streamad.alerts.scale import rank_of
from streamad.config.values import parse_duration
from streamad.errors import ConfigError
from streamad.incidents import Digest, Feedback, Incident, Silence, Verdict
from streamad.paging.answers import MAX_EXPECTED_MS
from streamad.ports import Log
from streamad.records import UNKNOWN_MS, Alert
from streamad.wording import clock, duration

MAX_SIMILAR = 5
MAX_COMMENT_CHARS = 2_000
KINDS = {"alerts": (Alert,), "incidents": (Incident, Digest)}


def tail(file: Path, *, begin: str, only: str | None, follow: bool, to_json: bool) -> None:
    """Follow alerts and incidents, a line each."""
    config = alerting_of(file)
    if only is not None and only not in KINDS:
        msg = f"--only is {only!r}; it must be one of {', '.join(KINDS)}"
        raise ConfigError(msg)
    topics = [config.topic("alerts"), config.topic("incidents")]
    if only is not None:
        topics = [config.topic("alerts" if only == "alerts" else "incidents")]
    start = parse_moment(begin, now_ms=_now_ms())
    with Subscription(kafka_settings(environment()), topics, start=start) as subscription:
        while True:
            got = [one.record for one in subscription.poll()]
            form = showing.json_line if to_json else showing.line
            showing.out([form(one) for one in got])
            if not follow and not got and subscription.at_end():
                break
    if subscription.n_unreadable:
        say(f"{subscription.n_unreadable} records are none of streamad and were passed over")


def list_incidents(file: Path, *, since: str | None, to_json: bool) -> None:
    """Print the open incidents, and those resolved since a time."""
    config = alerting_of(file)
    with opened(config) as log:
        found = board(log, config)
    shown = found.open
    if since is not None:
        shown += found.resolved_since(parse_moment(since, now_ms=_now_ms()))
    if to_json:
        showing.out(map(showing.json_line, shown))
        return
    if not shown:
        say(f"no incident of {config.name} is open")
        return
    showing.out(showing.listed(shown))


def show(file: Path, name: str, *, to_json: bool) -> None:
    """Print all there is to say of one incident."""
    config = alerting_of(file)
    with opened(config) as log:
        found = board(log, config)
        incident = _found(found, name)
        ids = {member.alert for member in incident.members}
        alerts = alerts_of(log, config, ids)
    answers = [a for subject in (incident.id, *sorted(ids)) for a in found.answers.get(subject, ())]
    similar = found.similar(incident, most=MAX_SIMILAR)
    if to_json:
        told = {
            "incident": incident,
            "alerts": list(alerts.values()),
            "answers": answers,
            "similar": similar,
        }
        showing.out([showing.json_line(told)])
        return
    showing.out(showing.told(incident, alerts, answers, similar))


def export(file: Path, *, out: str) -> None:
    """Write the answers with the series and times they are about, as JSON lines."""
    config = alerting_of(file)
    with opened(config) as log:
        found = board(log, config)
        alerts = alerts_of(log, config, set(found.answers))
    lines = [showing.json_line(one) for one in answered(found, alerts)]
    if out == "-":
        showing.out(lines)
    else:
        Path(out).write_text("".join(f"{line}\n" for line in lines), "utf-8")
    say(f"{len(lines)} answers on series, to {len(found.answers)} incidents and alerts")


def acknowledge(  # noqa: PLR0913 - one argument an option, all by keyword
    file: Path,
    name: str,
    *,
    verdict: str,
    until: str | None,
    by: str | None,
    comment: str,
    severity: str | None = None,
) -> None:
    """Answer to an incident or to one of its alerts."""
    verdict = verdict.replace("-", "_")
    if verdict not in get_args(Verdict):
        known = ", ".join(get_args(Verdict))
        msg = f"--as is {verdict!r}; it must be one of {known}"
        raise ConfigError(msg)
    if until is not None and verdict != "expected":
        msg = "--until is of --as expected: it ends what is expected"
        raise ConfigError(msg)
    if severity is not None:
        rank_of(severity)
    config, now_ms = alerting_of(file), _now_ms()
    until_ms = UNKNOWN_MS if until is None else _end("--until", until, now_ms)
    with opened(config) as log:
        subject = _subject(log, config, name)
    answer = Feedback(
        id=uuid.uuid4().hex,
        subject=subject.id,
        verdict=verdict,  # type: ignore[arg-type]  # it is one of them
        by=_author(by),
        time_ms=now_ms,
        until_ms=until_ms,
        tenant=subject.tenant,
        key=subject.key if isinstance(subject, Alert) else subject.members[0].key,
        group=subject.group,
        comment=comment[:MAX_COMMENT_CHARS],
        severity=severity or "",  # type: ignore[arg-type]  # it is one of them
    )
    _send(config, answer)
    what = "alert" if isinstance(subject, Alert) else "incident"
    word = verdict.replace("_", " ") + (f", {severity}" if severity else "")
    say(f"{what} {subject.id[: showing.ID_CHARS]} is answered: {word} ({subject.summary})")


def silence(  # noqa: PLR0913 - one argument an option, all by keyword
    file: Path,
    matchers: Sequence[str],
    *,
    until: str | None,
    begin: str,
    name: str | None,
    by: str | None,
    comment: str,
    tenant: str,
) -> None:
    """Silence what matches, until a time; without matchers print the silences."""
    config, now_ms = alerting_of(file), _now_ms()
    if not matchers:
        _print_silences(config, now_ms)
        return
    try:
        parse_matchers(tuple(matchers))
    except ValueError as error:
        raise ConfigError(str(error)) from error
    if until is None:
        msg = "a silence has an end: give --until, as a length (2h) or a time"
        raise ConfigError(msg)
    starts_ms = parse_moment(begin, now_ms=now_ms)
    ends_ms = _end("--until", until, max(starts_ms, now_ms))
    made = Silence(
        id=uuid.uuid4().hex,
        name=(name or ", ".join(matchers))[:128],
        matchers=tuple(matchers),
        starts_ms=starts_ms,
        ends_ms=ends_ms,
        by=_author(by),
        time_ms=now_ms,
        tenant=tenant,
        comment=comment[:MAX_COMMENT_CHARS],
    )
    _send(config, made)
    lasting = duration(ends_ms - starts_ms)
    say(
        f"silence {made.id[: showing.ID_CHARS]} is given: {made.name} does not page until "
        f"{clock(ends_ms, dated=True)} UTC ({lasting})"
    )


def end_silence(file: Path, name: str, *, by: str | None) -> None:
    """End a silence that was given while the desk runs."""
    from dataclasses import replace

    config, now_ms = alerting_of(file), _now_ms()
    with opened(config) as log:
        known = {one.id: one for one in silences_of(log, config, now_ms=now_ms)}
    found = matching(name, known)
    if found is None:
        msg = f"no silence in force or to come has an id that begins with {name!r}"
        raise ConfigError(msg)
    ended = replace(known[found], ends_ms=now_ms, time_ms=now_ms, by=_author(by))
    if ended.starts_ms > now_ms:
        ended = replace(ended, starts_ms=now_ms)
    _send(config, ended)
    say(f"silence {found[: showing.ID_CHARS]} is over: {ended.name}")


def _print_silences(config: AlertingConfig, now_ms: int) -> None:
    with opened(config) as log:
        given = silences_of(log, config, now_ms=now_ms)
    rows = [
        [one.id[: showing.ID_CHARS], one.name, clock(one.starts_ms, dated=True),
         clock(one.ends_ms, dated=True), one.by, " ".join(one.matchers)]
        for one in given
    ]  # fmt: skip
    rows += [
        ["", one.name, one.starts or "", one.ends or "", "alerting file", " ".join(one.matchers)]
        for one in config.silences
    ]
    if not rows:
        say(f"{config.name} has no silence")
        return
    showing.out(showing.table(["id", "name", "from (UTC)", "until (UTC)", "by", "matchers"], rows))


def _found(found: Board, name: str) -> Incident:
    incident = found.find(name)
    if incident is not None:
        return incident
    members = {m.alert: one for one in found.incidents.values() for m in one.members}
    alert = matching(name, members)
    if alert is None:
        msg = f"no incident and no alert of one has an id that begins with {name!r}"
        raise ConfigError(msg)
    return members[alert]


def _subject(log: Log, config: AlertingConfig, name: str) -> Incident | Alert:
    """Return the incident or else the alert whose id begins so."""
    found = Board()
    for incident in records(log, config.topic("incidents"), Incident):
        found.add(incident)
    known = found.find(name)
    if known is not None:
        return known
    alerts = {alert.id: alert for alert in records(log, config.topic("alerts"), Alert)}
    alert = matching(name, alerts)
    if alert is None:
        msg = f"no incident and no alert of {config.name} has an id that begins with {name!r}"
        raise ConfigError(msg)
    return alerts[alert]


def _send(config: AlertingConfig, record: Feedback | Silence) -> None:
    give(kafka_settings(environment()), config.topic("feedback"), [record])


def _author(given: str | None) -> str:
    """Return who answers: as given, else the user of the process."""
    known = environment()
    return (given or known.get("USER") or known.get("LOGNAME") or "somebody")[:200]


def _end(option: str, text: str, from_ms: int) -> int:
    """Return an end, given as a time or a length: later than another time and within bounds."""
    try:
        ends_ms = from_ms + parse_duration(text)
    except ValueError:
        ends_ms = parse_moment(text, now_ms=from_ms)
    if not from_ms < ends_ms <= from_ms + MAX_EXPECTED_MS:
        most = duration(MAX_EXPECTED_MS)
        msg = f"{option}: expected an end in the future, at most {most} away, got {text!r}"
        raise ConfigError(msg)
    return ends_ms


def _now_ms() -> int:
    return time.time_ns() // 1_000_000
