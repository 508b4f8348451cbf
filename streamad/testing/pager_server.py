"""A server that plays PagerDuty, Slack, Grafana, Apprise and a webhook receiver, for tests.

It holds every payload against the limits that are published, keeps what a person would have seen
there, and can fail in the ways that servers do::

    with PagerServer() as server:
        server.fail("500", times=3)
        ...  # send pages to server.url
        assert server.problems == []
        assert server.pagerduty.pages == 1  # times a phone rang

What each receiver deduplicates is deduplicated here, too: PagerDuty by ``dedup_key`` while an
incident is open, webhooks by ``webhook-id``; Slack not at all.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import re
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, Final, Literal, Self

Mode = Literal[
    "429", "500", "400", "401", "garbage", "html", "hang", "drip", "redirect", "no_answer"
]
"""``html``: status 200 and a page of text; ``drip``: a byte of an answer every now and then;
``no_answer``: the request is worked off, and the connection breaks before the answer."""

MAX_EVENT_BYTES: Final = 512 * 1024
MAX_BODY_BYTES: Final = 4 * 2**20
HANG_S: Final = 30.0
MAX_OFF_S: Final = 300.0
"""A webhook's timestamp may be off by so much."""
ROUTING_KEY: Final = "0123456789abcdef0123456789abcdef"
TOKEN: Final = "xoxb-test-0123456789"  # noqa: S105 - of nobody
SECRET: Final = "whsec_" + base64.b64encode(b"a secret of 24 bytes, ok").decode()
_RFC3339 = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|[+-]\d\d:\d\d)")


@dataclass(slots=True)
class PagerDutyState:
    """What PagerDuty has: incidents by ``dedup_key``, and each event it took.

    pages : incidents that were opened, each of which calls somebody
    """

    open: dict[str, str] = field(default_factory=dict)
    events: list[dict[str, Any]] = field(default_factory=list)
    pages: int = 0
    pages_of: Counter[str] = field(default_factory=Counter)
    resolved: Counter[str] = field(default_factory=Counter)

    def take(self, event: dict[str, Any]) -> None:
        """Work off an event as PagerDuty does."""
        self.events.append(event)
        key, action = event["dedup_key"], event["event_action"]
        if action == "trigger" and key not in self.open:
            self.pages += 1
            self.pages_of[key] += 1
            self.open[key] = "triggered"
        elif action == "acknowledge" and key in self.open:
            self.open[key] = "acknowledged"
        elif action == "resolve" and self.open.pop(key, None):
            self.resolved[key] += 1


@dataclass(slots=True)
class Taken:
    """A request that was worked off; at_s : when, by ``time.monotonic()``."""

    path: str
    headers: dict[str, str]
    body: dict[str, Any]
    method: str = "POST"
    at_s: float = field(default_factory=time.monotonic)


@dataclass(slots=True)
class _Plan:
    mode: Mode
    times: int
    retry_after: str = ""


class PagerServer:
    """The receivers on one loopback port; see the module."""

    def __init__(self, port: int = 0) -> None:
        self.problems: list[str] = []
        self.taken: list[Taken] = []
        self.attempts = 0
        self.pagerduty = PagerDutyState()
        self.messages: dict[str, list[dict[str, Any]]] = {}
        self.webhooks: dict[str, dict[str, Any]] = {}
        self.annotations: dict[int, dict[str, Any]] = {}
        self.notifications: list[dict[str, Any]] = []
        self._plans: list[_Plan] = []
        self._lock = threading.Lock()
        self._released = threading.Event()
        self._listen(port)

    def _listen(self, port: int) -> None:
        self._server = ThreadingHTTPServer(("127.0.0.1", port), self._handler())
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,))
        self.port = int(self._server.server_address[1])

    @property
    def url(self) -> str:
        """Return where it is."""
        return f"http://127.0.0.1:{self.port}"

    def down(self) -> None:
        """Listen no more: connections are refused, until `up`."""
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def up(self) -> None:
        """Listen again, at the same address and with all that was taken before."""
        self._listen(self.port)
        self._thread.start()

    def fail(self, mode: Mode, *, times: int = 1_000_000, retry_after: str = "") -> None:
        """Fail the next requests, after those that are to fail already."""
        with self._lock:
            self._plans.append(_Plan(mode, times, retry_after))

    def recover(self) -> None:
        """Fail no more."""
        with self._lock:
            self._plans.clear()
        self._released.set()
        self._released = threading.Event()

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.recover()
        self.down()

    # ------------------------------------------------------------------ one request

    def _handler(server: Self) -> type[BaseHTTPRequestHandler]:  # noqa: N805 - two selves
        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                server._handle(self)

            def do_PATCH(self) -> None:
                server._handle(self)

            def do_GET(self) -> None:
                server._handle(self)

            def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - as in the base
                del format, args

        return Handler

    def _handle(self, handler: BaseHTTPRequestHandler) -> None:
        size = int(handler.headers.get("Content-Length") or 0)
        body = handler.rfile.read(min(size, MAX_BODY_BYTES))
        headers = {name.lower(): value for name, value in handler.headers.items()}
        with self._lock:
            self.attempts += 1
            plan = self._next_plan()
        handler.close_connection = True
        if plan is not None and plan.mode != "no_answer":
            self._fail(handler, plan)
            return
        with self._lock:
            status, answer = self._work_off(handler.command, handler.path, headers, body)
        if plan is None:
            _answer(handler, status, json.dumps(answer).encode())

    def _next_plan(self) -> _Plan | None:
        if not self._plans:
            return None
        plan = self._plans[0]
        plan.times -= 1
        if plan.times <= 0:
            self._plans.pop(0)
        return plan

    def _fail(self, handler: BaseHTTPRequestHandler, plan: _Plan) -> None:
        mode, released = plan.mode, self._released
        if mode == "hang":
            released.wait(HANG_S)
        elif mode == "garbage":
            handler.wfile.write(b"\x00\xff not HTTP at all\r\n" * 20)
        elif mode == "html":
            _answer(handler, 200, b"<html>a proxy's log-in page</html>", kind="text/html")
        elif mode == "redirect":
            handler.send_response(302)
            handler.send_header("Location", f"{self.url}/elsewhere")
            handler.end_headers()
        elif mode == "drip":
            handler.wfile.write(b"HTTP/1.1 202 Accepted\r\n")
            until_s = time.monotonic() + HANG_S
            with _gone_is_fine():
                while time.monotonic() < until_s and not released.wait(0.1):
                    handler.wfile.write(b"X-Slow: 1\r\n")
                    handler.wfile.flush()
        else:
            told = {"Retry-After": plan.retry_after} if plan.retry_after else {}
            _answer(handler, int(mode), b'{"error": "so it goes"}', told)

    def _work_off(
        self, method: str, path: str, headers: dict[str, str], body: bytes
    ) -> tuple[int, Any]:
        for prefix, work in self._routes().items():
            if path.startswith(prefix):
                read = self._read(path, body)
                if read is None:
                    return 400, {"error": "not JSON"}
                self.taken.append(Taken(path, headers, read, method))
                return work(path, headers, read, body)
        self.problems.append(f"{method} {path}: nobody asks for that")
        return 404, {}

    def _routes(self) -> dict[str, Callable[..., tuple[int, Any]]]:
        return {
            "/v2/enqueue": self._pagerduty,
            "/api/chat.": self._slack,
            "/hook": self._webhook,
            "/api/annotations": self._grafana,
            "/notify/": self._apprise,
        }

    def _read(self, path: str, body: bytes) -> dict[str, Any] | None:
        try:
            read = json.loads(body)
        except ValueError:
            self.problems.append(f"{path}: the body is not JSON")
            return None
        if not isinstance(read, dict):
            self.problems.append(f"{path}: the body is not an object")
            return None
        return read

    def _expect(self, fits: object, what: str) -> None:
        if not fits:
            self.problems.append(what)

    # ------------------------------------------------------------------ receivers

    def _pagerduty(
        self, path: str, headers: dict[str, str], event: dict[str, Any], body: bytes
    ) -> tuple[int, Any]:
        """Hold an event against https://developer.pagerduty.com/docs/events-api-v2-overview."""
        del path
        before = len(self.problems)
        self._expect(len(body) <= MAX_EVENT_BYTES, f"pagerduty: {len(body)} bytes")
        self._expect(headers.get("content-type") == "application/json", "pagerduty: content type")
        self._expect(event.get("routing_key") == ROUTING_KEY, "pagerduty: routing key")
        key = event.get("dedup_key")
        self._expect(isinstance(key, str) and 0 < len(key) <= 255, "pagerduty: dedup_key")
        action = event.get("event_action")
        self._expect(action in ("trigger", "acknowledge", "resolve"), f"pagerduty: {action}")
        if action == "trigger":
            about = event.get("payload", {})
            self._expect(0 < len(about.get("summary", "")) <= 1024, "pagerduty: summary")
            self._expect(about.get("source"), "pagerduty: source")
            levels = ("critical", "error", "warning", "info")
            self._expect(about.get("severity") in levels, "pagerduty: severity")
            self._expect(_RFC3339.fullmatch(about.get("timestamp", "")), "pagerduty: timestamp")
            links = event.get("links", [])
            self._expect(all({"href"} <= link.keys() for link in links), "pagerduty: links")
        if len(self.problems) > before:
            return 400, {"status": "invalid event"}
        self.pagerduty.take(event)
        return 202, {"status": "success", "dedup_key": key}

    def _slack(
        self, path: str, headers: dict[str, str], message: dict[str, Any], body: bytes
    ) -> tuple[int, Any]:
        """Hold a message against https://docs.slack.dev/reference/block-kit/blocks."""
        del body
        if headers.get("authorization") != f"Bearer {TOKEN}":
            return 200, {"ok": False, "error": "invalid_auth"}
        self._expect(
            headers.get("content-type") == "application/json; charset=utf-8", "slack: content type"
        )
        self._expect(len(message.get("text", "")) <= 40_000, "slack: text")
        blocks = message.get("blocks", [])
        self._expect(0 < len(blocks) <= 50, "slack: number of blocks")
        for block in blocks:
            most = 150 if block.get("type") == "header" else 3_000
            text = block.get("text", {}).get("text", "")
            self._expect(0 < len(text) <= most, f"slack: a block of {len(text)} characters")
        if path == "/api/chat.update":
            ts = message.get("ts")
            if ts not in self.messages:
                return 200, {"ok": False, "error": "message_not_found"}
        else:
            ts = f"1700000000.{len(self.messages):06d}"
            self.messages[ts] = []
        self.messages[ts].append(message)
        return 200, {"ok": True, "ts": ts, "channel": message.get("channel")}

    def _webhook(
        self, path: str, headers: dict[str, str], event: dict[str, Any], body: bytes
    ) -> tuple[int, Any]:
        """Verify a signature as https://www.standardwebhooks.com has it."""
        del path
        name, stamp = headers.get("webhook-id", ""), headers.get("webhook-timestamp", "")
        key = base64.b64decode(SECRET.removeprefix("whsec_"))
        wanted = hmac.new(key, f"{name}.{stamp}.".encode() + body, hashlib.sha256).digest()
        signed = headers.get("webhook-signature") == f"v1,{base64.b64encode(wanted).decode()}"
        self._expect(signed, "webhook: signature")
        self._expect(stamp.isdigit(), "webhook: timestamp")
        self._expect(event.get("id") == name, "webhook: id")
        # A request of long ago could be a replay: it is refused, as is one of a clock that is off.
        if not (signed and stamp.isdigit() and abs(int(stamp) - time.time()) < MAX_OFF_S):
            return 401, {}
        self.webhooks.setdefault(name, event)
        return 200, {}

    def _grafana(
        self, path: str, headers: dict[str, str], body_read: dict[str, Any], body: bytes
    ) -> tuple[int, Any]:
        del body
        self._expect(headers.get("authorization") == f"Bearer {TOKEN}", "grafana: token")
        self._expect(body_read.get("text"), "grafana: text")
        number = path.removeprefix("/api/annotations").strip("/")
        if not number:
            self._expect(isinstance(body_read.get("time"), int), "grafana: time")
            made = len(self.annotations) + 1
            self.annotations[made] = body_read
            return 200, {"id": made, "message": "Annotation added"}
        if int(number) not in self.annotations:
            return 404, {"message": "Could not find annotation to update"}
        self.annotations[int(number)] |= body_read
        return 200, {"message": "Annotation patched"}

    def _apprise(
        self, path: str, headers: dict[str, str], body_read: dict[str, Any], body: bytes
    ) -> tuple[int, Any]:
        del headers, body
        self._expect(len(path.removeprefix("/notify/")) > 0, "apprise: key")
        self._expect(body_read.get("body"), "apprise: body")
        kinds = ("info", "success", "warning", "failure")
        self._expect(body_read.get("type") in kinds, "apprise: type")
        self._expect(body_read.get("format") == "text", "apprise: format")
        self.notifications.append(body_read)
        return 200, {}


class _gone_is_fine:  # noqa: N801 - used like a function
    """Pass over a client that does not wait for the end."""

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: type[BaseException] | None, *rest: object) -> bool:
        return kind is not None and issubclass(kind, OSError)


def _answer(
    handler: BaseHTTPRequestHandler,
    status: int,
    body: bytes,
    headers: dict[str, str] | None = None,
    *,
    kind: str = "application/json",
) -> None:
    with _gone_is_fine():
        handler.send_response(status)
        for name, value in (headers or {}).items():
            handler.send_header(name, value)
        handler.send_header("Content-Type", kind)
        handler.send_header("Content-Length", str(len(body)))
        handler.end_headers()
        handler.wfile.write(body)
