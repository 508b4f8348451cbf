"""PagerDuty, Events API v2: https://developer.pagerduty.com/docs/events-api-v2-overview.

One ``dedup_key`` per incident, so that a repeated trigger is one incident there. Only 429, 5xx and
missing answers are tried again; 400 is final.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import orjson

from connectors.pagers.base import (
    Adapter,
    Answer,
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
from streamad.alerting.pagers import PagerDutyConfig
from streamad.paging.changes import Change, Outcome, Page
from streamad.shown import safe_text

MAX_SUMMARY_CHARS, MAX_SOURCE_CHARS = 1_024, 255
MAX_EVENT_BYTES: Final = 512 * 1024
MAX_DETAIL_CHARS: Final = 8_000
_ACTIONS: Final[dict[Change, str]] = {
    "open": "trigger",
    "update": "trigger",
    "acknowledge": "acknowledge",
    "resolve": "resolve",
}


class PagerDuty(Adapter):
    """Incidents as events; see the module."""

    def __init__(self, config: PagerDutyConfig, secrets: Secrets) -> None:
        self._config, self._secrets = config, secrets
        self.updates = config.updates

    def requests(self, page: Page, *, now_ms: int) -> list[Request]:
        """Return one event."""
        del now_ms
        event: dict[str, Any] = {
            "routing_key": self._secrets.get("routing_key"),
            "event_action": _ACTIONS[page.change],
            "dedup_key": f"streamad-{page.incident.id}"[:255],
        }
        if event["event_action"] == "trigger":
            event |= self._about(page)
        body = orjson.dumps(event)
        if len(body) > MAX_EVENT_BYTES:
            event["payload"].pop("custom_details", None)
            event.pop("links", None)
            body = orjson.dumps(event)
        headers = {"Content-Type": "application/json"}
        return [Request(url=self._config.url, headers=headers, body=body)]

    def read(self, page: Page, answers: Sequence[Answer]) -> Outcome:
        """Read an answer as the API's documentation has it."""
        del page
        outcome = best_of([by_api(answer) for answer in answers])
        status = answers[0].status
        final = 400 <= status < 500 and status not in {408, 429}
        return Outcome(result="never", detail=outcome.detail) if final else outcome

    def _about(self, page: Page) -> dict[str, Any]:
        incident = page.incident
        leader = incident.members[0].key if incident.members else incident.group
        return {
            "client": "streamad",
            "payload": {
                "summary": title_of(page)[:MAX_SUMMARY_CHARS],
                "source": safe_text(leader, MAX_SOURCE_CHARS) or incident.name,
                "severity": incident.level or level_of(incident.severity),
                "timestamp": rfc3339(incident.began_ms),
                "component": safe_text(leader, MAX_SOURCE_CHARS),
                "group": safe_text(incident.group, MAX_SOURCE_CHARS),
                "class": safe_text(incident.members[0].kind if incident.members else "", 64),
                "custom_details": {
                    "details": "\n".join(lines_of(page))[:MAX_DETAIL_CHARS],
                    "incident": incident.id,
                    "alerts": incident.n_members,
                    "open": incident.n_open,
                    "severity": round(incident.severity, 2),
                    "pipelines": list(incident.pipelines[:20]),
                },
            },
            "links": [
                {"href": link, "text": name} for name, link in links_of(incident).items()
            ],
        }  # fmt: skip
