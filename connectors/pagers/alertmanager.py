"""Prometheus Alertmanager, API v2.

A client of Alertmanager sends what fires again and again, to every replica, and a resolved alert
for some minutes more: https://prometheus.io/docs/alerting/latest/alerts_api/. Labels are what an
alert is known by, so they are made once, as the incident opens, and kept.

Alerts that fire carry no ``endsAt``: Alertmanager then counts ``resolve_timeout`` by its own clock,
and a clock of ours that is wrong resolves nothing.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

import orjson

from connectors.pagers.base import (
    Adapter,
    Answer,
    Bearer,
    Request,
    best_of,
    by_api,
    lines_of,
    links_of,
    title_of,
)
from connectors.pagers.secrets import Secrets
from connectors.records.cloudevents import rfc3339
from streamad.alerting.levels import level_of
from streamad.alerting.matchers import entity_label
from streamad.alerting.pagers import AlertmanagerConfig
from streamad.incidents import Incident
from streamad.paging.changes import Outcome, Page, Told
from streamad.shown import safe_text

ALERT_NAME: Final = "StreamadIncident"
ALERTS_A_REQUEST: Final = 64
MAX_VALUE_CHARS, MAX_TEXT_CHARS, MAX_ENTITIES = 512, 4_000, 8
_NAME = re.compile(r"[^a-zA-Z0-9_]")


@dataclass(frozen=True, slots=True)
class Login:
    """How we show who we are: user and password, or a bearer token, or nothing."""

    config: AlertmanagerConfig
    secrets: Secrets

    def headers(self) -> dict[str, str]:
        """Return the headers. Raises SecretError."""
        if self.config.username is None:
            return Bearer(self.secrets).headers()
        pair = f"{self.config.username}:{self.secrets.get('password')}"
        return {"Authorization": f"Basic {base64.b64encode(pair.encode()).decode()}"}


class Alertmanager(Adapter):
    """Incidents as alerts; see the module."""

    def __init__(self, config: AlertmanagerConfig, secrets: Secrets) -> None:
        self._config, self._login = config, Login(config, secrets)
        self.remind_every_s = config.resend / 1000

    def requests(self, page: Page, *, now_ms: int) -> list[Request]:
        """Return one request per replica."""
        del now_ms
        return self._to_all([self._alert(page)])

    def read(self, page: Page, answers: Sequence[Answer]) -> Outcome:
        """One replica that has it is enough: the others get it when it is sent again."""
        outcome = best_of([by_api(answer) for answer in answers])
        if outcome.result != "ok":
            return outcome
        reference = orjson.dumps(self._alert(page)).decode()
        return Outcome(result="ok", reference=reference)

    def reminders(self, told: Sequence[Told]) -> list[list[Request]]:
        """Return what fires, or was resolved of late, in portions for every replica."""
        alerts = [_of_reference(one.reference) for one in told]
        known = [alert for alert in alerts if alert]
        return [
            self._to_all(known[at : at + ALERTS_A_REQUEST])
            for at in range(0, len(known), ALERTS_A_REQUEST)
        ]

    def _to_all(self, alerts: list[dict[str, Any]]) -> list[Request]:
        headers = {"Content-Type": "application/json", **self._login.headers()}
        body = orjson.dumps(alerts)
        return [
            Request(url=f"{url.rstrip('/')}/api/v2/alerts", headers=headers, body=body)
            for url in self._config.urls
        ]

    def _alert(self, page: Page) -> dict[str, Any]:
        incident = page.incident
        before = _of_reference(page.reference)
        starts_ms = min(incident.began_ms, incident.opened_ms, incident.time_ms)
        made: dict[str, Any] = {
            "labels": before.get("labels") or dict(self._labels(incident)),
            "annotations": {
                "summary": title_of(page)[:MAX_TEXT_CHARS],
                "description": "\n".join(lines_of(page))[:MAX_TEXT_CHARS],
                "severity": f"{incident.severity:.2f}",
                **{f"link_{_NAME.sub('_', name)}": url for name, url in links_of(incident).items()},
            },
            "startsAt": before.get("startsAt") or rfc3339(starts_ms),
        }
        links = links_of(incident)
        if links:
            made["generatorURL"] = next(iter(links.values()))
        if page.change == "resolve":
            # Not before its start, which is refused: the two are of different clocks. And as early
            # as is true, since Alertmanager waits where its clock has not got there yet.
            ends_ms = min(incident.until_ms, incident.resolved_ms or incident.time_ms)
            made["endsAt"] = max(rfc3339(ends_ms), made["startsAt"])
        return made

    def _labels(self, incident: Incident) -> Iterator[tuple[str, str]]:
        yield "alertname", ALERT_NAME
        yield "severity", incident.level or level_of(incident.severity)
        yield "streamad", incident.name
        yield "tenant", _value(incident.tenant)
        yield "group", _value(incident.group)
        for name, value in list(incident.entity.items())[:MAX_ENTITIES]:
            yield entity_label(name), _value(value)
        for name, value in self._config.labels.items():
            yield _NAME.sub("_", name), _value(value)
        # Last: nothing that the settings or the input hold can make two incidents one.
        yield "incident", incident.id


def _value(text: str) -> str:
    return safe_text(text, MAX_VALUE_CHARS)


def _of_reference(reference: str) -> dict[str, Any]:
    try:
        read = orjson.loads(reference or b"{}")
    except ValueError:
        return {}
    return read if isinstance(read, dict) else {}
