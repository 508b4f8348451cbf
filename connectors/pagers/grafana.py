"""Grafana: an annotation as an incident opens, made a region as it is resolved.

https://grafana.com/docs/grafana/latest/developers/http_api/annotations/
"""

from __future__ import annotations

import html
import re
from collections.abc import Sequence
from typing import Any, Final

import orjson

from connectors.pagers.base import (
    Adapter,
    Answer,
    Bearer,
    Request,
    by_api,
    links_of,
    title_of,
)
from connectors.pagers.secrets import Secrets
from streamad.alerting.levels import level_of
from streamad.alerting.pagers import GrafanaConfig
from streamad.paging.changes import Outcome, Page
from streamad.shown import safe_text

MAX_TAG_CHARS: Final = 100


class Grafana(Adapter):
    """Incidents as annotations; see the module."""

    updates = False

    def __init__(self, config: GrafanaConfig, secrets: Secrets) -> None:
        self._config, self._bearer = config, Bearer(secrets)

    def requests(self, page: Page, *, now_ms: int) -> list[Request]:
        """Return the annotation, or the end of the one that is there."""
        del now_ms
        if page.change == "acknowledge":
            return []
        incident = page.incident
        headers = {"Content-Type": "application/json", **self._bearer.headers()}
        url = f"{self._config.url.rstrip('/')}/api/annotations"
        body: dict[str, Any] = {"text": _text(page)}
        if page.change == "resolve":
            body["timeEnd"] = max(incident.until_ms, incident.began_ms)
            if page.reference:
                url, method = f"{url}/{int(page.reference)}", "PATCH"
                return [Request(url=url, method=method, headers=headers, body=orjson.dumps(body))]
        body["time"] = incident.began_ms
        tags = [
            "streamad",
            incident.name,
            incident.group,
            incident.level or level_of(incident.severity),
        ]
        body["tags"] = [_tag(tag) for tag in (*tags, *self._config.tags)]
        if self._config.dashboard is not None:
            body["dashboardUID"] = self._config.dashboard
        if self._config.panel is not None:
            body["panelId"] = self._config.panel
        return [Request(url=url, headers=headers, body=orjson.dumps(body))]

    def read(self, page: Page, answers: Sequence[Answer]) -> Outcome:
        """Read the id of the annotation."""
        answer = answers[0]
        outcome = by_api(answer)
        if answer.status == 404 and page.reference:
            # Somebody deleted it: there is nothing to end.
            return Outcome(result="ok", reference="")
        if outcome.result != "ok" or page.reference:
            return outcome
        body = answer.json()
        number = body.get("id") if isinstance(body, dict) else None
        if type(number) is not int or number < 0:
            return Outcome(result="retry", detail="expected Grafana's JSON, got another answer")
        return Outcome(result="ok", reference=str(number))


def _tag(text: str) -> str:
    """Return a tag, which stands in URLs and in HTML."""
    return re.sub(r"[<>&\"']", " ", safe_text(text, MAX_TAG_CHARS)).strip() or "-"


def _text(page: Page) -> str:
    """Return HTML, as annotations are: all that comes from the input is escaped."""
    links = "".join(
        f'<br><a href="{html.escape(link)}">{html.escape(name)}</a>'
        for name, link in links_of(page.incident).items()
    )
    return f"{html.escape(title_of(page))}{links}"
