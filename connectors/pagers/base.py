"""What all pagers share: requests, answers, how answers are read, and text made fit to be sent."""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from email.utils import parsedate_to_datetime
from typing import Any, Final
from urllib.parse import parse_qsl, quote, urlsplit

from connectors.pagers.secrets import Secrets
from streamad.alerting.levels import level_of
from streamad.incidents import Digest, Incident
from streamad.paging.changes import Outcome, Page, Told
from streamad.shown import is_secret_name, safe_text, without_credentials

MAX_WAIT_S: Final = 300.0
"""The longest a receiver may have us wait between two attempts."""
SLOW_S: Final = 30.0
"""Between attempts that a person has to make succeed: wrong credentials, a channel not joined."""
MAX_LINKS, MAX_LINK_CHARS = 8, 2_000
MAX_DETAIL_CHARS = 300


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """A request over HTTP. ``repr`` shows neither headers nor body: both may hold a secret.

    max_answer_bytes : its answer is read up to here
    """

    url: str = field(repr=False)
    method: str = "POST"
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    body: bytes = field(default=b"", repr=False)
    max_answer_bytes: int = 65_536

    @property
    def where(self) -> str:
        """Return scheme, host and port: a path may be a secret."""
        parts = urlsplit(self.url)
        return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What came back: status 0 is no answer, and ``failure`` is why.

    headers : names in lower case; body : its beginning, at most what the sender reads
    """

    status: int = 0
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""
    failure: str = ""

    def json(self) -> Any:
        """Return the body as JSON; None where it is none."""
        try:
            return json.loads(self.body)
        except (ValueError, RecursionError):
            return None


class Adapter(ABC):
    """One kind of pager: pages as requests, and answers read.

    Pure but for secrets, which are read from their files at each request, so that one that was
    renewed is used at once.
    """

    updates: bool = True
    remind_every_s: float = 0.0

    @abstractmethod
    def requests(self, page: Page, *, now_ms: int) -> list[Request]:
        """Return the requests that deliver a page; none: this kind has nothing to send for it.

        Where there are several, they go to replicas: one that succeeds is enough. Raises
        SecretError.
        """

    def read(self, page: Page, answers: Sequence[Answer]) -> Outcome:
        """Return what came of the requests of a page, one answer each."""
        del page
        return best_of([by_status(answer) for answer in answers])

    def reminders(self, told: Sequence[Told]) -> list[list[Request]]:
        """Return groups of requests that repeat what was sent; each group as in `requests`."""
        del told
        return []


def best_of(outcomes: Sequence[Outcome]) -> Outcome:
    """Return the outcome that counts where one success is enough."""
    order = {"ok": 0, "retry": 1, "never": 2}
    return min(outcomes, key=lambda one: order[one.result])


def by_status(answer: Answer) -> Outcome:
    """Read an answer by its status alone.

    2xx is success. No answer, 408, 429 and 5xx are tried again. So are refused credentials and
    unknown addresses, slowly, since a person can repair them. All else is refused for good.
    """
    status = answer.status
    if 200 <= status < 300:
        return Outcome(result="ok")
    if not status:
        return Outcome(result="retry", detail=answer.failure or "no answer")
    detail = f"status {status}{_said(answer)}"
    if status in {408, 425, 429} or status >= 500:
        return Outcome(result="retry", detail=detail, wait_s=wait_of(answer))
    if 300 <= status < 400:
        detail = f"status {status}: redirects are not followed; give the final URL"
        return Outcome(result="retry", detail=detail, wait_s=SLOW_S)
    if status in {401, 403, 404, 405, 407}:
        return Outcome(result="retry", detail=detail, wait_s=SLOW_S)
    return Outcome(result="never", detail=detail)


def by_api(answer: Answer) -> Outcome:
    """Read an answer of an API, which never is a page of HTML: that is of a proxy in between."""
    outcome = by_status(answer)
    if outcome.result == "ok" and "text/html" in answer.headers.get("content-type", "").lower():
        detail = f"status {answer.status} with HTML: expected the API's answer, got another page"
        return Outcome(result="retry", detail=detail, wait_s=SLOW_S)
    return outcome


def wait_of(answer: Answer) -> float:
    """Return the seconds an answer asks to wait (``Retry-After``), within `MAX_WAIT_S`."""
    given = answer.headers.get("retry-after", "")
    try:
        wait_s = float(given)
    except ValueError:
        try:
            date = parsedate_to_datetime(answer.headers["date"])
            wait_s = (parsedate_to_datetime(given) - date).total_seconds()
        except (KeyError, TypeError, ValueError):
            return 0.0
    return min(max(wait_s, 0.0), MAX_WAIT_S) if wait_s == wait_s else 0.0  # noqa: PLR0124 - NaN


def _said(answer: Answer) -> str:
    text = answer.body[:MAX_DETAIL_CHARS].decode("utf-8", "replace").strip()
    return f": {safe_text(without_credentials(text), MAX_DETAIL_CHARS)}" if text else ""


def links_of(incident: Incident) -> dict[str, str]:
    """Return an incident's links that may be sent: absolute, and without credentials.

    What the input filled in may be any text, so all that has a meaning in markup is escaped.
    """
    kept: dict[str, str] = {}
    for name, link in incident.links.items():
        if len(kept) == MAX_LINKS:
            break
        try:
            parts = urlsplit(link)
        except ValueError:
            continue
        query = {key for key, _ in parse_qsl(parts.query + "&" + parts.fragment)}
        if parts.scheme not in ("https", "http") or not parts.netloc or "@" in parts.netloc:
            continue
        if any(map(is_secret_name, query)) or len(link) > MAX_LINK_CHARS:
            continue
        kept[safe_text(name, 60)] = quote(link, safe="%:/?#[]@!$&()*+,;=~-._", errors="replace")
    return kept


def title_of(page: Page) -> str:
    """Return the one line of a page, without its state."""
    return safe_text(page.record.summary)


def lines_of(page: Page) -> list[str]:
    """Return a page as lines of plain text, for people."""
    if isinstance(page.record, Digest):
        return _digest_lines(page.record)
    incident = page.record
    lines = [f"{state_of(page)}: {safe_text(incident.summary)}", ""]
    lines.append(
        f"severity {incident.level or level_of(incident.severity)} ({incident.severity:.1f}), "
        f"group {safe_text(incident.group, 200)}, {incident.n_members} "
        f"alert{'' if incident.n_members == 1 else 's'}, {incident.n_open} open"
    )
    if incident.acknowledged:
        lines.append(f"acknowledged by {safe_text(incident.acknowledged, 200)}")
    if incident.causes:
        lines += ["", "Probable causes:"]
        lines += [
            f"- {safe_text(cause.entity, 300)}: {safe_text(cause.reason, 300)}"
            for cause in incident.causes[:3]
        ]
    others = [member for member in incident.members if member.alert != incident.leader]
    if others:
        lines += ["", "Also affected:"]
        lines += [f"- {safe_text(member.summary, 300)}" for member in others[:5]]
        if incident.n_members > 6:
            lines.append(f"- and {incident.n_members - 6} more")
    links = links_of(incident)
    if links:
        lines += ["", *(f"{name}: {link}" for name, link in links.items())]
    return lines


def _digest_lines(digest: Digest) -> list[str]:
    lines = [f"DIGEST: {safe_text(digest.summary)}"]
    if digest.incidents:
        lines += ["", "Strongest among them:"]
        lines += [f"- {safe_text(name, 300)}" for name in digest.incidents[:10]]
    return lines


def state_of(page: Page) -> str:
    """Return the state of what a page is about, in a word."""
    if isinstance(page.record, Digest):
        return "DIGEST"
    if page.change == "resolve":
        return "RESOLVED"
    return "ACKNOWLEDGED" if page.record.acknowledged else "FIRING"


@dataclass(frozen=True, slots=True)
class Bearer:
    """The header of a bearer token."""

    secrets: Secrets
    name: str = "token"

    def headers(self) -> dict[str, str]:
        """Return it; nothing where no token is configured. Raises SecretError."""
        token = self.secrets.get(self.name)
        return {"Authorization": f"Bearer {token}"} if token else {}
