"""Slack: ``chat.postMessage``, and ``chat.update`` of the same message from then on.

Slack does not deduplicate: a process that dies between Slack's answer and our commit posts its
message twice. Limits: https://docs.slack.dev/reference/block-kit/blocks
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, Final

import orjson

from connectors.pagers.base import (
    SLOW_S,
    Adapter,
    Answer,
    Bearer,
    Request,
    by_status,
    lines_of,
    links_of,
    state_of,
    title_of,
    wait_of,
)
from connectors.pagers.secrets import Secrets
from streamad.alerting.pagers import SlackConfig
from streamad.incidents import Incident
from streamad.paging.changes import Outcome, Page
from streamad.shown import safe_text

MAX_HEADER_CHARS, MAX_SECTION_CHARS, MAX_TEXT_CHARS = 150, 3_000, 3_000
_COLOURS: Final = {
    "FIRING": "\U0001f534",
    "ACKNOWLEDGED": "\U0001f7e1",
    "RESOLVED": "\U0001f7e2",
    "DIGEST": "\U0001f4dd",
}
_AGAIN: Final = frozenset(
    {"ratelimited", "fatal_error", "internal_error", "request_timeout", "service_unavailable"}
)
_A_PERSON: Final = frozenset(
    {
        "account_inactive",
        "channel_not_found",
        "invalid_auth",
        "is_archived",
        "missing_scope",
        "not_authed",
        "not_in_channel",
        "org_login_required",
        "restricted_action",
        "team_access_not_granted",
        "token_expired",
        "token_revoked",
    }
)
"""Errors that a person can repair while we wait."""
_GONE: Final = frozenset({"message_not_found", "cant_update_message", "edit_window_closed"})
"""The message cannot be changed any more: the change is posted as a new one."""
_TS = re.compile(r"\d{1,12}\.\d{1,9}")
# Marks of bold, italics, strike-through, code and emoji, where they would change what is read.
_MARKS = re.compile(r"([*_~`:])")
_ZERO_WIDTH: Final = "\u200b"


def escaped(text: str) -> str:
    """Return text that Slack shows as it is: no link, no mention, no formatting, no emoji.

    Examples
    --------
    >>> escaped("<!channel> a&b")
    '&lt;!channel&gt; a&amp;b'
    """
    text = text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    # Slack has no escape for its marks; a space of no width beside them takes their meaning away.
    return _MARKS.sub(rf"\1{_ZERO_WIDTH}", text)


class Slack(Adapter):
    """Incidents as messages; see the module."""

    def __init__(self, config: SlackConfig, secrets: Secrets) -> None:
        self._config, self._bearer = config, Bearer(secrets)

    def requests(self, page: Page, *, now_ms: int) -> list[Request]:
        """Return the message of a page; an update where the message is known."""
        del now_ms
        message: dict[str, Any] = {
            "channel": self._config.channel,
            "text": escaped(f"{state_of(page)}: {title_of(page)}")[:MAX_TEXT_CHARS],
            "blocks": self._blocks(page),
            "unfurl_links": False,
            "unfurl_media": False,
        }
        call = "chat.postMessage"
        if _TS.fullmatch(page.reference):
            call = "chat.update"
            message["ts"] = page.reference
        headers = {"Content-Type": "application/json; charset=utf-8", **self._bearer.headers()}
        url = f"{self._config.url.rstrip('/')}/{call}"
        return [Request(url=url, headers=headers, body=orjson.dumps(message))]

    def read(self, page: Page, answers: Sequence[Answer]) -> Outcome:
        """Read ``ok`` and ``error`` of the body: Slack answers 200 to what it refuses."""
        answer = answers[0]
        outcome = by_status(answer)
        if outcome.result != "ok":
            return outcome
        body = answer.json()
        if not isinstance(body, dict) or not isinstance(body.get("ok"), bool):
            return Outcome(result="retry", detail="expected Slack's JSON, got another answer")
        if body["ok"]:
            ts = body.get("ts")
            known = isinstance(ts, str) and _TS.fullmatch(ts)
            return Outcome(result="ok", reference=ts if known else page.reference)
        return _of_error(str(body.get("error")), page, answer)

    def _blocks(self, page: Page) -> list[dict[str, Any]]:
        state = state_of(page)
        # Its first line is the title, and its last ones are links, which have a block of their own.
        links = links_of(page.record) if isinstance(page.record, Incident) else {}
        lines = [line for line in lines_of(page)[1:] if line not in _plain(links)]
        title = f"{_COLOURS[state]} {state}: {_unlinked(safe_text(title_of(page), 120))}"
        blocks: list[dict[str, Any]] = [
            {
                "type": "header",
                "text": {"type": "plain_text", "text": title[:MAX_HEADER_CHARS], "emoji": False},
            }
        ]
        text = escaped("\n".join(lines).strip())[:MAX_SECTION_CHARS]
        if text:
            blocks.append(_section({"type": "mrkdwn", "text": text, "verbatim": True}))
        if links:
            shown = " | ".join(
                f"<{link.replace('|', '%7C')}|{escaped(name)}>" for name, link in links.items()
            )
            if len(shown) <= MAX_SECTION_CHARS:
                blocks.append(_section({"type": "mrkdwn", "text": shown, "verbatim": True}))
        return blocks


def _of_error(error: str, page: Page, answer: Answer) -> Outcome:
    detail = safe_text(f"Slack refuses: {error}", 200)
    if error in _GONE and page.reference:
        return Outcome(result="retry", detail=detail, reference="")
    if error in _AGAIN:
        return Outcome(result="retry", detail=detail, wait_s=wait_of(answer))
    if error in _A_PERSON:
        return Outcome(result="retry", detail=detail, wait_s=SLOW_S)
    return Outcome(result="never", detail=detail)


def _unlinked(text: str) -> str:
    # Plain text has no markup; where a client looks for it all the same, this is none.
    return text.replace("<", f"<{_ZERO_WIDTH}")


def _plain(links: dict[str, str]) -> set[str]:
    return {f"{name}: {link}" for name, link in links.items()}


def _section(text: dict[str, Any]) -> dict[str, Any]:
    return {"type": "section", "text": text}
