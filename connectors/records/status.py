"""Say over HTTP how a job is: ``/metrics``, ``/healthz`` and ``/readyz``.

``/healthz`` asks whether the loops still turn and commit, never whether the broker answers: a
broker that is away must not make every job restart at once. ``/readyz`` asks whether there is all
that is needed to work. Both answer in a line that says what is missing.
"""

from __future__ import annotations

import asyncio
import logging
import math
import socket
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from http import HTTPStatus
from types import TracebackType
from typing import Self

from streamad.errors import ConfigError

logger = logging.getLogger(__name__)

MAX_CLIENTS = 256
"""Connections held at once; one more, and the oldest of them is hung up on."""

MAX_REQUEST_BYTES = 8_192
REQUEST_TIMEOUT_S = 2.0
"""From the connection to the last byte of the answer."""

METRICS_TYPE = "text/plain; version=0.0.4; charset=utf-8"
TEXT_TYPE = "text/plain; charset=utf-8"


UNREADY_AFTER_S = 30.0
"""A stage with input in hand that commits nothing for so long is not ready."""

UNHEALTHY_AFTER_S = 300.0
"""For so long, while the broker refuses nothing: the process should be restarted."""

TRIES_S = 60.0
"""A broker that was asked again within this time is what the stage waits for."""


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
        self._owed_s: dict[str, float] = {}
        self._tried_s = -math.inf

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

    def owe(self, stage: str) -> None:
        """Say that a stage has input in hand that is to be committed."""
        self._owed_s.setdefault(stage, self._clock())

    def settle(self, stage: str) -> None:
        """Say that a stage has committed, or has nothing in hand any more."""
        self._owed_s.pop(stage, None)

    def tries_again(self) -> None:
        """Say that the broker did not do what it was asked, and is asked again."""
        self._tried_s = self._clock()

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
        stage, owed_s = self._owes(now_s)
        waits = now_s - self._tried_s <= TRIES_S
        if owed_s > UNHEALTHY_AFTER_S and not waits:
            return f"{stage}: nothing was committed for {owed_s:.0f} s, with input in hand"
        idle = {loop: now_s - beat_s for loop, beat_s in list(self._beats_s.items())}
        worst = max(idle, key=lambda loop: idle[loop])
        if idle[worst] <= self._stuck_after_s:
            return ""
        return f"{worst}: the loop has not turned for {idle[worst]:.0f} s"

    def missing(self) -> str:
        """Return what is lacking to be ready, or an empty string."""
        with self._lock:
            lacking = dict(self._missing)
        stage, owed_s = self._owes(self._clock())
        if owed_s > UNREADY_AFTER_S:
            lacking.setdefault(stage, f"nothing was committed for {owed_s:.0f} s")
        return "; ".join(f"{name}: {why}" for name, why in lacking.items())

    def _owes(self, now_s: float) -> tuple[str, float]:
        """Return the stage that has waited longest for a commit, and how long."""
        owed = [(now_s - since_s, stage) for stage, since_s in list(self._owed_s.items())]
        longest_s, stage = max(owed, default=(0.0, ""))
        return stage, longest_s


class StatusServer:
    """Answer on a port, from a thread of its own, until closed.

    One thread serves all connections without waiting for any: a client that sends slowly, or never
    reads its answer, costs a place in a list and is hung up on after `REQUEST_TIMEOUT_S`.

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
        self._routes: dict[str, Callable[[], Answer]] = {
            "/metrics": lambda: (HTTPStatus.OK, METRICS_TYPE, metrics()),
            "/healthz": lambda: _verdict(health.stuck()),
            "/readyz": lambda: _verdict(health.missing()),
        }
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        try:
            self._socket = socket.create_server((host, port), family=family, backlog=MAX_CLIENTS)
        except OSError as error:
            msg = (
                f"cannot listen on {host}:{port} ({error.strerror}); set STREAMAD_HOST to an "
                "address of this machine, choose another port, or stop what has it"
            )
            raise ConfigError(msg) from error
        self._port = int(self._socket.getsockname()[1])
        self._clients: dict[asyncio.StreamWriter, None] = {}
        self._loop = asyncio.new_event_loop()
        self._end = asyncio.Event()
        self._thread = threading.Thread(target=self._run, name="streamad-status", daemon=True)
        self._thread.start()

    @property
    def port(self) -> int:
        """Return the port it listens on."""
        return self._port

    def close(self) -> None:
        """Stop answering; closing twice is fine."""
        if self._thread.is_alive():
            self._loop.call_soon_threadsafe(self._end.set)
            self._thread.join(timeout=2 * REQUEST_TIMEOUT_S)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _run(self) -> None:
        with asyncio.Runner(loop_factory=lambda: self._loop) as runner:
            runner.run(self._serve())

    async def _serve(self) -> None:
        server = await asyncio.start_server(
            self._client, sock=self._socket, limit=MAX_REQUEST_BYTES, backlog=MAX_CLIENTS
        )
        await self._end.wait()
        server.close()
        for writer in list(self._clients):
            writer.transport.abort()

    async def _client(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if len(self._clients) >= MAX_CLIENTS:
            # Who has waited longest is the one that does not send; a probe sends at once.
            oldest = next(iter(self._clients))
            del self._clients[oldest]
            oldest.transport.abort()
        self._clients[writer] = None
        # So that draining means that all is sent.
        writer.transport.set_write_buffer_limits(0)
        try:
            async with asyncio.timeout(REQUEST_TIMEOUT_S):
                head = await reader.readuntil(b"\r\n\r\n")
                writer.write(_response(head, self._routes))
                await writer.drain()
                writer.close()
                await writer.wait_closed()
        except (OSError, TimeoutError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            # A prober that hangs up, or is hung up on, is no event.
            writer.transport.abort()
        finally:
            self._clients.pop(writer, None)


Answer = tuple[HTTPStatus, str, bytes]


def _verdict(problem: str) -> Answer:
    status = HTTPStatus.SERVICE_UNAVAILABLE if problem else HTTPStatus.OK
    return status, TEXT_TYPE, f"{problem or 'ok'}\n".encode()


def _response(head: bytes, routes: Mapping[str, Callable[[], Answer]]) -> bytes:
    """Return the bytes that answer a request; never raises."""
    method, _, rest = head.partition(b"\r\n")[0].decode("latin-1").partition(" ")
    path = rest.partition(" ")[0].partition("?")[0]
    if method not in ("GET", "HEAD"):
        body = b"only GET and HEAD are answered\n"
        status, content_type = HTTPStatus.METHOD_NOT_ALLOWED, TEXT_TYPE
    elif path not in routes:
        body = f"here are {', '.join(routes)}\n".encode()
        status, content_type = HTTPStatus.NOT_FOUND, TEXT_TYPE
    else:
        try:
            status, content_type, body = routes[path]()
        except Exception:
            logger.exception("%s cannot be answered", path)
            status, content_type = HTTPStatus.INTERNAL_SERVER_ERROR, TEXT_TYPE
            body = b"failed; the log has the reason\n"
    lines = (
        f"HTTP/1.0 {status.value} {status.phrase}",
        "Server: streamad",
        f"Content-Type: {content_type}",
        f"Content-Length: {len(body)}",
        "Connection: close",
    )
    header = "".join(f"{line}\r\n" for line in (*lines, "")).encode()
    return header if method == "HEAD" else header + body
