"""The long tail through an Apprise API server: https://github.com/caronc/apprise-api.

The server knows a hundred kinds of receivers and holds their secrets, so none of that runs here.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final
from urllib.parse import quote

import orjson

from connectors.pagers.base import SLOW_S, Adapter, Answer, Request, by_api, lines_of, state_of
from connectors.pagers.base import title_of as title
from connectors.pagers.secrets import Secrets
from streamad.alerting.pagers import AppriseConfig
from streamad.paging.changes import Outcome, Page

MAX_TITLE_CHARS, MAX_BODY_CHARS = 200, 8_000
_TYPES: Final = {"FIRING": "failure", "ACKNOWLEDGED": "info", "RESOLVED": "success"}


class Apprise(Adapter):
    """Pages as plain text; see the module."""

    def __init__(self, config: AppriseConfig, secrets: Secrets) -> None:
        self._config, self._secrets = config, secrets
        self.updates = config.updates

    def requests(self, page: Page, *, now_ms: int) -> list[Request]:
        """Return a notification; acknowledgements count as updates."""
        del now_ms
        if page.change == "acknowledge" and not self.updates:
            return []
        state = state_of(page)
        body: dict[str, Any] = {
            "title": f"{state}: {title(page)}"[:MAX_TITLE_CHARS],
            "body": "\n".join(lines_of(page))[:MAX_BODY_CHARS],
            "type": _TYPES.get(state, "info"),
            "format": "text",
        }
        if self._config.tags:
            body["tag"] = ",".join(self._config.tags)
        key = quote(self._secrets.get("token"), safe="")
        url = f"{self._config.url.rstrip('/')}/notify/{key}"
        headers = {"Content-Type": "application/json", "Accept": "application/json"}
        return [Request(url=url, headers=headers, body=orjson.dumps(body))]

    def read(self, page: Page, answers: Sequence[Answer]) -> Outcome:
        """204 has no configuration under the key, 424 could not reach all receivers."""
        del page
        answer = answers[0]
        if answer.status == 204:
            detail = "the Apprise server has no configuration under this key"
            return Outcome(result="retry", detail=detail, wait_s=SLOW_S)
        if answer.status == 424:
            detail = "the Apprise server did not reach all receivers"
            return Outcome(result="retry", detail=detail, wait_s=SLOW_S)
        return by_api(answer)
