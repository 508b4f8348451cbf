"""Who is paged: the settings of each kind of pager.

Secrets come from a file (``token_file``) or the environment (``token: ${SLACK_TOKEN}``), and are
shown by neither ``repr`` nor ``streamad validate``.
"""

from __future__ import annotations

import fnmatch
import ipaddress
from typing import Annotated, Literal, TypeVar
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field, SecretStr, model_validator

from streamad.config.live import Live, LiveIfGiven
from streamad.config.section import Section
from streamad.config.values import Duration
from streamad.incidents import Digest, Incident
from streamad.shown import is_secret_name, without_credentials

PAGERDUTY_URL = "https://events.pagerduty.com/v2/enqueue"
SLACK_URL = "https://slack.com/api"
MAX_PAGERS = 32
_SCHEMES = ("https", "http")


def checked_url(given: str) -> str:
    """Return a URL as it is; raises ValueError where it is none, or holds credentials."""
    shown = f"{without_credentials(given):.80}"
    try:
        parts = urlsplit(given)
        host, _ = parts.hostname, parts.port
    except ValueError as error:
        msg = f"expected a URL such as https://host:9093, got {shown!r} ({error})"
        raise ValueError(msg) from None
    if parts.scheme not in _SCHEMES or not host or not given.isascii() or " " in given:
        msg = f"expected a URL that begins with https:// or http://, got {shown!r}"
        raise ValueError(msg)
    if "@" in parts.netloc:
        msg = "a URL must not hold a user name or password; use token_file or password_file"
        raise ValueError(msg)
    if parts.fragment or any(is_secret_name(one) for one in parts.query.split("&")):
        msg = "a URL must not hold a secret or a fragment; put it into a file: see url_file"
        raise ValueError(msg)
    return given


Url = Annotated[str, AfterValidator(checked_url)]
"""An address to send to: https or http, without credentials."""


def is_loopback(url: str) -> bool:
    """Return whether a URL leads to this machine.

    Examples
    --------
    >>> is_loopback("http://127.0.0.1:9093"), is_loopback("http://alertmanager:9093")
    (True, False)
    """
    host = urlsplit(url).hostname or ""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


class PagerBase(Section):
    """What every pager has: its name, and which incidents it gets."""

    name: str = Field(pattern=r"^[a-z0-9]([a-z0-9._-]{0,61}[a-z0-9])?$")
    """Part of the consumer group that reads for it, ``streamad.<alerting>.page.<name>``. Under
    another name it starts as a new pager."""
    groups: tuple[str, ...] = ("*",)
    """Groups of incidents it gets, as shell patterns: ``[payments, checkout-*]``."""
    tenants: tuple[str, ...] = ("*",)
    """Tenants of incidents it gets, as shell patterns."""
    min_severity: float = Field(default=0.0, ge=0)
    """Incidents below this severity are not sent, until they reach it."""
    send: Literal["paged", "all"] = "paged"
    """``all``: also incidents that were withheld from paging."""
    max_age: Duration = 3_600_000
    """A new pager gets no incident older than this; a pager that was stopped gets none that is
    over and older than this."""
    give_up: Duration = 21_600_000
    """After so long in vain a page becomes a dead-letter record, and the next one is tried."""
    timeout: Live[Duration] = Field(default=10_000, ge=100, le=60_000)
    """The longest a request may take, from connecting to the last byte of the answer."""

    def wants(self, record: Incident | Digest) -> bool:
        """Return whether a record is routed to this pager, whatever its state is."""
        if isinstance(record, Digest):
            routed = bool(getattr(self, "digests", False))
        else:
            routed = record.severity >= self.min_severity
            routed &= self.send == "all" or record.paged_ms is not None
        return (
            routed
            and any(fnmatch.fnmatchcase(record.group, one) for one in self.groups)
            and any(fnmatch.fnmatchcase(record.tenant, one) for one in self.tenants)
        )


class HttpBase(PagerBase):
    """What pagers on HTTP have in common. Certificates are verified, redirects are not followed."""

    ca_file: Live[str | None] = None
    """Certificates to trust instead of the system's, in PEM format."""
    cert_file: Live[str | None] = None
    """A client certificate, in PEM format."""
    key_file: Live[str | None] = None
    """The key of the client certificate."""
    allow_http: Live[bool] = False
    """Send secrets over plain HTTP to another machine; only inside a network that you trust."""

    @model_validator(mode="after")
    def _secrets_stay_secret(self) -> HttpBase:
        names = [name for name in type(self).model_fields if is_secret_name(name)]
        given = [name for name in names if getattr(self, name)]
        for name in given:
            if f"{name}_file" in given:
                msg = f"{name} and {name}_file: give one of them"
                raise ValueError(msg)
        plain = [url for url in self.addresses() if url.startswith("http:")]
        if given and not self.allow_http and not all(map(is_loopback, plain)):
            msg = f"{given[0]} would be sent over plain HTTP; use https://, or set allow_http: true"
            raise ValueError(msg)
        return self

    def addresses(self) -> tuple[str, ...]:
        """Return the URLs it sends to."""
        url = getattr(self, "url", None)
        return (url,) if url else ()


class AlertmanagerConfig(HttpBase):
    """Prometheus Alertmanager, API v2: firing incidents are sent again until they are resolved."""

    kind: Literal["alertmanager"]
    """``alertmanager``"""
    urls: Live[tuple[Url, ...]] = Field(min_length=1, max_length=16)
    """Every replica, never a load balancer: ``[http://am-0:9093, http://am-1:9093]``."""
    resend: Live[Duration] = Field(default=60_000, ge=1_000, le=240_000)
    """How often a firing incident is sent again. Keep it well below Alertmanager's
    ``resolve_timeout`` (5m), after which it takes an incident for resolved."""
    labels: Live[dict[str, str]] = Field(default_factory=dict)
    """Labels added to each alert, for Alertmanager's routes: ``{team: payments}``."""
    read_silences: LiveIfGiven[Duration | None] = Field(default=None, ge=1_000, le=600_000)
    """How often silences that people make in Alertmanager are read, such as ``30s``; they then
    withhold pages for all pagers. Default: they are not read."""
    username: Live[str | None] = None
    """User of basic authentication."""
    password: Live[SecretStr | None] = None
    """Its password, as ``${NAME}`` of the environment."""
    password_file: Live[str | None] = None
    """A file with the password; it is read at each request."""
    token: Live[SecretStr | None] = None
    """A bearer token, as ``${NAME}`` of the environment."""
    token_file: Live[str | None] = None
    """A file with the token; it is read at each request."""

    def addresses(self) -> tuple[str, ...]:
        """Return the URLs it sends to."""
        return self.urls


class PagerDutyConfig(HttpBase):
    """PagerDuty, Events API v2: trigger, acknowledge, resolve, with one key per incident."""

    kind: Literal["pagerduty"]
    """``pagerduty``"""
    url: Live[Url] = PAGERDUTY_URL
    """In the EU: ``https://events.eu.pagerduty.com/v2/enqueue``."""
    routing_key: Live[SecretStr | None] = None
    """The integration key, as ``${NAME}`` of the environment."""
    routing_key_file: Live[str | None] = None
    """A file with the key; it is read at each request."""
    updates: Live[bool] = False
    """Trigger again when an incident grows. An incident that a person resolved in PagerDuty would
    then page again."""

    @model_validator(mode="after")
    def _has_key(self) -> PagerDutyConfig:
        return _needs(self, "routing_key")


class SlackConfig(HttpBase):
    """Slack, by a bot token (``chat:write``): one message per incident, updated in place."""

    kind: Literal["slack"]
    """``slack``"""
    url: Live[Url] = SLACK_URL
    """The API's address."""
    channel: Live[str] = Field(min_length=1, max_length=80)
    """The channel's id, ``C0123456789``; the bot must be a member."""
    token: Live[SecretStr | None] = None
    """The bot token, as ``${NAME}`` of the environment."""
    token_file: Live[str | None] = None
    """A file with the token; it is read at each request."""
    digests: Live[bool] = True
    """Post digests of what was withheld."""

    @model_validator(mode="after")
    def _has_token(self) -> SlackConfig:
        return _needs(self, "token")


class EmailConfig(PagerBase):
    """E-mail over SMTP with TLS: one plain-text thread per incident."""

    kind: Literal["email"]
    """``email``"""
    host: Live[str] = Field(min_length=1, max_length=255)
    """The SMTP server."""
    port: Live[int] = Field(default=587, ge=1, le=65_535)
    """``465`` speaks TLS from the start; others switch to it (STARTTLS)."""
    sender: Live[str] = Field(pattern=r"^[^\s<>,;@]+@[^\s<>,;@]+$")
    """The address that messages come from."""
    to: Live[tuple[Annotated[str, Field(pattern=r"^[^\s<>,;@]+@[^\s<>,;@]+$")], ...]] = Field(
        min_length=1, max_length=50
    )
    """Recipients."""
    username: Live[str | None] = None
    """User at the SMTP server; unset: no login."""
    password: Live[SecretStr | None] = None
    """Its password, as ``${NAME}`` of the environment."""
    password_file: Live[str | None] = None
    """A file with the password; it is read at each message."""
    tls: Live[bool] = True
    """Without it, messages travel in plain text, and no login is made."""
    ca_file: Live[str | None] = None
    """Certificates to trust instead of the system's, in PEM format."""
    updates: Live[bool] = False
    """Also send a message when an incident changes."""
    digests: Live[bool] = True
    """Send digests of what was withheld."""

    @model_validator(mode="after")
    def _login_in_private(self) -> EmailConfig:
        if self.username and not self.tls:
            msg = "username with tls: false would send the password in plain text; set tls: true"
            raise ValueError(msg)
        return _needs(self, "password") if self.username else self


class AppriseConfig(HttpBase):
    """The long tail through an Apprise API server: Teams, Telegram, Matrix, SMS, and 100 others.

    The server holds the receivers' addresses and secrets under a key.
    """

    kind: Literal["apprise"]
    """``apprise``"""
    url: Live[Url]
    """The server: ``http://apprise:8000``."""
    token: Live[SecretStr | None] = None
    """The key of the server's configuration, as ``${NAME}`` of the environment."""
    token_file: Live[str | None] = None
    """A file with the key; it is read at each request."""
    tags: Live[tuple[str, ...]] = ()
    """Only receivers with one of these tags."""
    updates: Live[bool] = False
    """Also send a message when an incident changes."""
    digests: Live[bool] = True
    """Send digests of what was withheld."""

    @model_validator(mode="after")
    def _has_token(self) -> AppriseConfig:
        return _needs(self, "token")


class WebhookConfig(HttpBase):
    """A signed webhook: the incident's record as JSON, by the Standard Webhooks convention."""

    kind: Literal["webhook"]
    """``webhook``"""
    url: Live[Url | None] = None
    """Where to post."""
    url_file: Live[str | None] = None
    """A file with the URL, where the URL is itself a secret; it is read at each request."""
    secret: Live[SecretStr | None] = None
    """Signs each request (HMAC-SHA256), as ``${NAME}`` of the environment; ``whsec_`` followed by
    base64, or any text of 16 characters or more."""
    secret_file: Live[str | None] = None
    """A file with the secret; it is read at each request."""
    updates: Live[bool] = True
    """Post updates of incidents, too."""
    digests: Live[bool] = True
    """Post digests of what was withheld."""

    # The secret signs and is never sent, so plain HTTP betrays nothing of it.
    allow_http: Live[bool] = True
    """Post over plain HTTP; the signature proves origin, it hides nothing."""

    @model_validator(mode="after")
    def _has_secret(self) -> WebhookConfig:
        if (self.url is None) == (self.url_file is None):
            msg = "expected url or url_file, one of them"
            raise ValueError(msg)
        return _needs(self, "secret")


class GrafanaConfig(HttpBase):
    """Grafana: each incident is an annotation, a region once it is resolved."""

    kind: Literal["grafana"]
    """``grafana``"""
    url: Live[Url]
    """The server: ``https://grafana.example.org``."""
    token: Live[SecretStr | None] = None
    """A service account token with ``annotations:write``, as ``${NAME}`` of the environment."""
    token_file: Live[str | None] = None
    """A file with the token; it is read at each request."""
    dashboard: Live[str | None] = Field(default=None, pattern=r"^[A-Za-z0-9_-]{1,40}$")
    """The dashboard's uid; unset: an annotation of the organisation, found by its tags."""
    panel: Live[int | None] = Field(default=None, ge=1)
    """A panel of the dashboard."""
    tags: Live[tuple[Annotated[str, Field(max_length=50)], ...]] = Field(default=(), max_length=20)
    """Tags beside ``streamad``, the alerting's name and the group."""

    @model_validator(mode="after")
    def _has_token(self) -> GrafanaConfig:
        return _needs(self, "token")


S = TypeVar("S", bound=Section)


def _needs(section: S, name: str) -> S:
    if not getattr(section, name) and not getattr(section, f"{name}_file"):
        msg = f"expected {name} (as ${{NAME}} of the environment) or {name}_file"
        raise ValueError(msg)
    return section


PagerConfig = Annotated[
    AlertmanagerConfig
    | PagerDutyConfig
    | SlackConfig
    | EmailConfig
    | AppriseConfig
    | WebhookConfig
    | GrafanaConfig,
    Field(discriminator="kind"),
]
"""One receiver of pages, by its ``kind``."""
