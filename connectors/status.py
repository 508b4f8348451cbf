"""Say over HTTP how a job is: ``/metrics``, ``/healthz`` and ``/readyz``.

``/healthz`` asks whether the loop still turns, never whether the broker answers: a broker that is
away must not make every job restart at once. ``/readyz`` asks whether there is all that is needed
to work. Both answer in a line that says what is missing.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, Self

from streamad.errors import ConfigError

MAX_REQUESTS = 8
"""Requests answered at once; others are hung up on, for a scrape is soon repeated."""

REQUEST_TIMEOUT_S = 5.0
METRICS_TYPE = "text/plain; version=0.0.4; charset=utf-8"
TEXT_TYPE = "text/plain; charset=utf-8"


class Health:
    """What a job knows of itself; written by its loop, read by the server's threads.

    Parameters
    ----------
    conditions : Iterable[str]
        What it takes to be ready, such as ``model`` and ``partitions``; none is met at first.
    stuck_after_s : float
        Without a `beat` for so long a loop is stuck and the process should be restarted. The
        default is how long a consumer may stay away between two polls: later, its partitions are
        another's anyway, and a long recovery must not be taken for a stuck loop.
    clock : Callable[[], float]
        Seconds that never go back.
    """

    def __init__(
        self,
        conditions: Iterable[str] = (),
        *,
        stuck_after_s: float = 900.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._stuck_after_s, self._clock = stuck_after_s, clock
        self._lock = threading.Lock()
        self._missing = dict.fromkeys(conditions, "not yet")
        self._beats_s: dict[str, float] = {"process": clock()}

    def beat(self, loop: str = "process") -> None:
        """Say that a loop turns; from the first beat on it is expected to."""
        # Loops that beat take over from the process as a whole, which only began.
        if loop != "process":
            self._beats_s.pop("process", None)
        self._beats_s[loop] = self._clock()

    def sign_of_life(self, loop: str) -> None:
        """Let other activity of a loop that has turned before count as a beat."""
        if loop in self._beats_s:
            self.beat(loop)

    def meet(self, condition: str) -> None:
        """Say that a condition holds now."""
        with self._lock:
            self._missing.pop(condition, None)

    def lack(self, condition: str, why: str) -> None:
        """Say that a condition does not hold, and why."""
        with self._lock:
            self._missing[condition] = why

    def shutting_down(self) -> None:
        """Say that no more work should come here."""
        self.lack("running", "shutting down")

    def stuck(self) -> str:
        """Return why the process should be restarted, or an empty string."""
        now_s = self._clock()
        idle = {loop: now_s - beat_s for loop, beat_s in list(self._beats_s.items())}
        worst = max(idle, key=lambda loop: idle[loop])
        if idle[worst] <= self._stuck_after_s:
            return ""
        return f"{worst}: the loop has not turned for {idle[worst]:.0f} s"

    def missing(self) -> str:
        """Return what is lacking to be ready, or an empty string."""
        with self._lock:
            return "; ".join(f"{name}: {why}" for name, why in self._missing.items())


class StatusServer:
    """Answer on a port, from threads of its own, until closed.

    Parameters
    ----------
    health : Health
        What ``/healthz`` and ``/readyz`` say.
    metrics : Callable[[], bytes]
        What ``/metrics`` returns.
    host, port : str, int
        Where to listen; port 0 takes a free one, see `port`.
    """

    def __init__(
        self,
        health: Health,
        metrics: Callable[[], bytes],
        *,
        host: str = "127.0.0.1",
        port: int = 0,
    ) -> None:
        routes = {
            "/metrics": lambda: (HTTPStatus.OK, METRICS_TYPE, metrics()),
            "/healthz": lambda: _verdict(health.stuck()),
            "/readyz": lambda: _verdict(health.missing()),
        }
        handler = type("Handler", (_Handler,), {"routes": routes})
        try:
            self._server = _Bounded((host, port), handler)
        except OSError as error:
            msg = (
                f"cannot listen on {host}:{port} ({error.strerror}); "
                "choose another port, or stop what has it"
            )
            raise ConfigError(msg) from error
        self._thread = threading.Thread(
            target=self._server.serve_forever,
            kwargs={"poll_interval": 0.1},
            name="streamad-status",
            daemon=True,
        )
        self._thread.start()

    @property
    def port(self) -> int:
        """Return the port it listens on."""
        return int(self._server.server_address[1])

    def close(self) -> None:
        """Stop answering; closing twice is fine."""
        if self._thread.is_alive():
            self._server.shutdown()
            self._thread.join(timeout=REQUEST_TIMEOUT_S)
        self._server.server_close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


Answer = tuple[HTTPStatus, str, bytes]


def _verdict(problem: str) -> Answer:
    status = HTTPStatus.SERVICE_UNAVAILABLE if problem else HTTPStatus.OK
    return status, TEXT_TYPE, f"{problem or 'ok'}\n".encode()


class _Bounded(ThreadingHTTPServer):
    """A thread a request, but never more than `MAX_REQUESTS`."""

    daemon_threads = True
    block_on_close = False
    request_queue_size = 16

    def __init__(self, address: tuple[str, int], handler: type[BaseHTTPRequestHandler]) -> None:
        self._free = threading.BoundedSemaphore(MAX_REQUESTS)
        super().__init__(address, handler)

    def process_request(self, request: Any, client_address: Any) -> None:
        if self._free.acquire(blocking=False):
            super().process_request(request, client_address)
        else:
            self.shutdown_request(request)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._free.release()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Stay quiet: a prober that hangs up is no event."""


class _Handler(BaseHTTPRequestHandler):
    routes: dict[str, Callable[[], Answer]]
    timeout = REQUEST_TIMEOUT_S
    server_version, sys_version = "streamad", ""

    def do_GET(self) -> None:
        self._answer()

    def do_HEAD(self) -> None:
        self._answer()

    def _answer(self) -> None:
        route = self.routes.get(self.path.partition("?")[0])
        if route is None:
            found = f"here are {', '.join(self.routes)}\n".encode()
            status, content_type, body = HTTPStatus.NOT_FOUND, TEXT_TYPE, found
        else:
            status, content_type, body = route()
        self.send_response(status)
        self.send_header("Content-Type", content_type)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - http.server's name
        """Write no line a probe."""
