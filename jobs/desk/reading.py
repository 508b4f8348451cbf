"""The topics of a desk as they stand: incidents, alerts, answers, silences, budgets."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import orjson
import yaml

from connectors.records.alerts import KafkaAlertRecords, state_topic
from connectors.records.cloudevents import Record, decode
from jobs.settings import environment, kafka_settings
from streamad.alerting.config import AlertingConfig, load_alerting
from streamad.config import load_pipeline, read_config
from streamad.errors import ConfigError
from streamad.incidents import Affected, Feedback, Incident, Silence
from streamad.paging.budget import GroupBudget, strength
from streamad.paging.desk import Desk
from streamad.paging.incidents.members import affected, evidence
from streamad.ports import Log, Source
from streamad.records import Alert
from streamad.training.answers import Period, read_periods

MAX_INCIDENTS = 100_000
"""Most incidents that are kept of a topic; those resolved longest ago go first."""
LEAST_ID_CHARS = 4

R = TypeVar("R")


def alerting_of(path: Path) -> AlertingConfig:
    """Read an alerting file, or a pipeline file for its defaults."""
    try:
        tree = yaml.safe_load(read_config(path))
    except (yaml.YAMLError, ValueError, RecursionError):
        tree = None  # The reader below names the line.
    if isinstance(tree, dict) and "findings" in tree:
        return load_alerting(path, environment=environment())
    return AlertingConfig.of(load_pipeline(path, environment=environment()))


@contextmanager
def opened(config: AlertingConfig) -> Iterator[Log]:
    """Yield the topics of the cluster that the environment names."""
    from connectors.kafka.log import KafkaLog

    log = KafkaLog(kafka_settings(environment()), group=f"streamad.{config.name}.desk")
    try:
        yield log
    finally:
        log.close()


def records(
    log: Log, topic: str, kind: type[R] | tuple[type[R], ...], *, since_ms: int | None = None
) -> Iterator[R]:
    """Yield the records of a kind that a topic holds, partition by partition.

    since_ms : those written at or after it
    """
    bounds = log.bounds(topic)
    if not bounds:
        msg = f"there is no topic {topic} on this cluster; 'streamad run' makes it at its start"
        raise ConfigError(msg)
    for source, (first, after) in bounds.items():
        start = first if since_ms is None else log.offset_at(source, since_ms)
        for messages in log.read(source, start, after):
            for value, raw in zip(messages.payloads, messages.raw, strict=True):
                read: Record | Any = decode(value, raw.headers)
                if isinstance(read, kind):
                    yield read


@dataclass(slots=True)
class Board:
    """Incidents as they were last written, by id, and what was answered to them."""

    incidents: dict[str, Incident] = field(default_factory=dict)
    answers: dict[str, list[Feedback]] = field(default_factory=dict)

    def add(self, incident: Incident) -> None:
        """Take a record; an older one of the same incident changes nothing."""
        known = self.incidents.pop(incident.id, None)
        newest = known if known and known.sequence > incident.sequence else incident
        self.incidents[incident.id] = newest
        if len(self.incidents) > MAX_INCIDENTS:
            over = (one.id for one in self.incidents.values() if one.state == "resolved")
            del self.incidents[next(over, next(iter(self.incidents)))]

    @property
    def open(self) -> list[Incident]:
        """Return the open incidents, the newest first."""
        found = [one for one in self.incidents.values() if one.state != "resolved"]
        return sorted(found, key=lambda one: (-one.opened_ms, one.id))

    def resolved_since(self, time_ms: int) -> list[Incident]:
        """Return incidents that were resolved at or after a time, the newest first."""
        found = [one for one in self.incidents.values() if (one.resolved_ms or -1) >= time_ms]
        return sorted(found, key=lambda one: (-(one.resolved_ms or 0), one.id))

    def find(self, prefix: str) -> Incident | None:
        """Return the incident whose id begins so; raises ConfigError where several do."""
        found = matching(prefix, self.incidents)
        return None if found is None else self.incidents[found]

    def similar(self, incident: Incident, *, most: int) -> list[Incident]:
        """Return past incidents with the same series, those that share most of them first."""
        own = {member.key for member in incident.members}
        ranked = []
        for one in self.incidents.values():
            keys = {member.key for member in one.members}
            if one.id == incident.id or one.opened_ms > incident.opened_ms or not own & keys:
                continue
            ranked.append((-len(own & keys) / len(own | keys), -one.opened_ms, one.id))
        return [self.incidents[name] for *_, name in sorted(ranked)[:most]]


def matching(prefix: str, names: Any) -> str | None:
    """Return the one name that begins so, None where none does.

    Raises ConfigError where several do, or where the prefix is too short to mean one.
    """
    if len(prefix) < LEAST_ID_CHARS:
        msg = f"expected at least {LEAST_ID_CHARS} characters of an id, got {prefix!r}"
        raise ConfigError(msg)
    found = [name for name in names if name.startswith(prefix)]
    if len(found) > 1 and prefix not in found:
        msg = f"{len(found)} ids begin with {prefix!r}; give more of it: {', '.join(found[:5])}"
        raise ConfigError(msg)
    return prefix if prefix in found else next(iter(found), None)


def board(log: Log, config: AlertingConfig) -> Board:
    """Read all incidents that there are, and the answers to them."""
    made = Board()
    for incident in records(log, config.topic("incidents"), Incident):
        made.add(incident)
    for answer in records(log, config.topic("feedback"), Feedback):
        made.answers.setdefault(answer.subject, []).append(answer)
    return made


def alerts_of(log: Log, config: AlertingConfig, ids: set[str]) -> dict[str, Alert]:
    """Return the newest record of these alerts, as far as the topic still has them."""
    found: dict[str, Alert] = {}
    for alert in records(log, config.topic("alerts"), Alert):
        known = found.get(alert.id)
        if alert.id in ids and (known is None or alert.sequence >= known.sequence):
            found[alert.id] = alert
    return found


def silences_of(log: Log, config: AlertingConfig, *, now_ms: int) -> list[Silence]:
    """Return the silences given while the desk runs that are not over, by their end."""
    newest: dict[str, Silence] = {}
    for silence in records(log, config.topic("feedback"), Silence):
        newest[silence.id] = silence
    return sorted(
        (one for one in newest.values() if one.ends_ms > now_ms), key=lambda one: one.ends_ms
    )


def budgets_of(log: Log, config: AlertingConfig) -> dict[str, list[GroupBudget]]:
    """Return the budgets of each group as the desks keep them, one of each desk that has it."""
    if not log.bounds(state_topic(config)):
        msg = f"there is no topic {state_topic(config)} on this cluster; start the alert role first"
        raise ConfigError(msg)
    kept = KafkaAlertRecords(config, log, wall_ms=lambda: 0)
    found: dict[str, list[GroupBudget]] = {}
    for source in log.bounds(config.findings[0]):
        state = Desk(config).new_state()
        loaded, _ = kept.load(Source(config.findings[0], source.partition))
        state.load(loaded)
        for group, budget in state.budgets.items():
            found.setdefault(group, []).append(budget)
    return found


def answered(found: Board, alerts: Mapping[str, Alert]) -> Iterator[dict[str, Any]]:
    """Yield the last answer to each subject with the series and the time that it is about.

    alerts : of those answered alone, where no incident shows them
    """
    members = {m.alert: m for one in found.incidents.values() for m in one.members}
    for subject, answers in found.answers.items():
        last = max(answers, key=lambda one: one.time_ms)
        if last.withdraws(last.time_ms):
            continue
        incident = found.incidents.get(subject)
        words = [one.severity for one in sorted(answers, key=lambda a: a.time_ms) if one.severity]
        about: Sequence[Affected | Alert]
        if incident is not None:
            about, value = incident.members, incident.severity
            decades, boundary = incident.strength, incident.threshold
        else:
            about = [one for one in (members.get(subject), alerts.get(subject)) if one][:1]
            value, decades, boundary = _graded_of(about[0]) if about else (math.nan,) * 3
        for one in about:
            yield {
                "verdict": last.verdict,
                "graded": words[-1] if words else "",
                "severity": value,
                "strength": decades,
                "boundary": boundary,
                "key": one.key,
                "began_ms": one.began_ms,
                "until_ms": one.until_ms,
                "group": one.group,
                "pipeline": one.pipeline,
                "detector": one.detector,
                "subject": subject,
                "by": last.by,
                "time_ms": last.time_ms,
                "comment": last.comment,
            }


def periods_of(file: Path) -> list[Period]:
    """Return what people answered a desk, with the series and times that it is about.

    file : a pipeline or alerting file, which names the topics

    Raises
    ------
    ConfigError
        where the topics are missing, or hold more answers than a fit takes
    """
    config = alerting_of(file)
    with opened(config) as log:
        found = board(log, config)
        alerts = alerts_of(log, config, set(found.answers))
    lines = [
        orjson.dumps({name: one[name] for name in ("key", "began_ms", "until_ms", "verdict")})
        for one in answered(found, alerts)
    ]
    return read_periods(lines, name=config.topic("feedback"))


def _graded_of(one: Affected | Alert) -> tuple[float, float, float]:
    """Return the peak severity of an alert, its evidence, and its boundary, in decades."""
    member = affected(one, None) if isinstance(one, Alert) else one
    return member.peak_severity, evidence(member), strength(member.threshold_p)
