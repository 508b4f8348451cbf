"""Pagers: incidents and digests to Alertmanager, PagerDuty, Slack, e-mail, webhooks, Grafana."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Final

from connectors.pagers.alertmanager import Alertmanager
from connectors.pagers.apprise import Apprise
from connectors.pagers.base import SLOW_S, Adapter, Request, best_of, by_api
from connectors.pagers.email import EmailPager
from connectors.pagers.grafana import Grafana
from connectors.pagers.http import Sender
from connectors.pagers.pagerduty import PagerDuty
from connectors.pagers.secrets import SecretError, Secrets
from connectors.pagers.slack import Slack
from connectors.pagers.webhook import Webhook
from streamad.alerting.pagers import EmailConfig, HttpBase, PagerConfig
from streamad.paging.changes import Outcome, Page, Told

ADAPTERS: Final[Mapping[str, Callable[[Any, Secrets], Adapter]]] = {
    "alertmanager": Alertmanager,
    "pagerduty": PagerDuty,
    "slack": Slack,
    "apprise": Apprise,
    "webhook": Webhook,
    "grafana": Grafana,
}
"""What speaks HTTP, by its kind."""


class HttpPager:
    """A pager on HTTP: an adapter makes requests and reads answers, a sender carries them."""

    def __init__(
        self,
        config: HttpBase,
        adapter: Adapter,
        sender: Sender,
        secrets: Secrets,
        *,
        wall_ms: Callable[[], int],
    ) -> None:
        self._config, self._adapter, self._sender = config, adapter, sender
        self._secrets, self._wall_ms = secrets, wall_ms
        self.updates = adapter.updates
        self.remind_every_s = adapter.remind_every_s

    def send(self, page: Page) -> Outcome:
        """Make one attempt; never raises."""
        try:
            requests = self._adapter.requests(page, now_ms=self._wall_ms())
        except SecretError as error:
            return Outcome(result="retry", detail=str(error), wait_s=SLOW_S)
        if not requests:
            return Outcome(result="ok")
        return self._shown(self._adapter.read(page, self._sender.send_all(requests)))

    def remind(self, told: Sequence[Told]) -> Outcome:
        """Send again what was sent, up to the first portion that no receiver takes."""
        try:
            groups: list[list[Request]] = self._adapter.reminders(told)
        except SecretError as error:
            return Outcome(result="retry", detail=str(error))
        for group in groups:
            outcome = best_of([by_api(answer) for answer in self._sender.send_all(group)])
            if outcome.result != "ok":
                return self._shown(outcome)
        return Outcome(result="ok")

    def probe(self, page: Page) -> None:
        """Do all of an attempt but send it.

        Raises SecretError, and ValueError where a request cannot be made.
        """
        for request in self._adapter.requests(page, now_ms=self._wall_ms()):
            self._sender.probe(request)

    def close(self) -> None:
        """Release threads."""
        self._sender.close()

    def _shown(self, outcome: Outcome) -> Outcome:
        # An answer may repeat what it was sent.
        return replace(outcome, detail=self._secrets.hide(outcome.detail))


def make_pager(
    config: PagerConfig,
    *,
    hosts: Sequence[str] = (),
    wall_ms: Callable[[], int] = lambda: time.time_ns() // 1_000_000,
) -> HttpPager | EmailPager:
    """Return the pager of its settings.

    hosts : shell patterns of the hosts it may reach; empty: all that the settings name
    """
    if isinstance(config, EmailConfig):
        return EmailPager(config, hosts=hosts)
    secrets = Secrets(config)
    adapter = ADAPTERS[config.kind](config, secrets)
    sender = Sender(config, hosts=hosts)
    return HttpPager(config, adapter, sender, secrets, wall_ms=wall_ms)
