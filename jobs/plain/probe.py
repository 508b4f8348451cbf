"""New settings tried before they hold: all that is done with them, without an effect."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from connectors.pagers import HttpPager, make_pager
from connectors.pagers.email import EmailPager
from connectors.pagers.secrets import SecretError
from streamad.alerting.config import AlertingConfig
from streamad.alerting.pagers import PagerConfig
from streamad.errors import ConfigError
from streamad.incidents import Incident
from streamad.operators.findings import set_aside
from streamad.paging.changes import Page
from streamad.paging.desk import Desk


def incident_of(desk: Desk, now_ms: int) -> Incident:
    """Return the incident that a desk makes of a finding; raises ConfigError where it makes none.

    The finding is that a message was set aside, the one kind that needs no series.
    """
    name = desk.config.name
    finding = set_aside(name, at=("probe", 0, 0), now_ms=now_ms, reason="settings are tried")
    out = desk.process(desk.new_state(), [(finding, now_ms)])
    if not (out.alerts and out.incidents):
        msg = f"{name}: expected an alert of a finding, got none by the new settings; restore them"
        raise ConfigError(msg)
    return out.incidents[0]


def tried_pager(
    config: AlertingConfig,
    pager: PagerConfig,
    *,
    hosts: Sequence[str] = (),
    wall_ms: Callable[[], int],
) -> HttpPager | EmailPager:
    """Return a pager that can make a page: secrets and certificates are there, hosts allowed.

    Nothing is sent. Raises ConfigError.
    """
    made = make_pager(pager, hosts=hosts, wall_ms=wall_ms)
    # Links and words are all that a pager sees of it.
    plain = AlertingConfig(name=config.name, findings=config.findings, alerts=config.alerts)
    incident = incident_of(Desk(plain), wall_ms())
    try:
        made.probe(Page(change="open", key=incident.id, record=incident))
    except (SecretError, OSError, ValueError) as error:
        made.close()
        msg = f"pagers.{pager.name}: expected a page that could be sent, got: {error}; correct it"
        raise ConfigError(msg) from None
    return made
