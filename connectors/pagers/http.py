"""One request over HTTP, with an end to every wait and a bound on every size.

Certificates are verified. Redirects are not followed, so a request goes to the host that the
settings name and to no other. Names that lead to link-local addresses are refused: these are a
cloud's metadata service, which hands out credentials.
"""

from __future__ import annotations

import contextlib
import fnmatch
import http.client
import ipaddress
import logging
import socket
import ssl
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Final, Protocol
from urllib.parse import urlsplit

from connectors.pagers.base import Answer, Request
from streamad.shown import safe_text
from streamad.small_files import read_small

logger = logging.getLogger(__name__)

MAX_REQUEST_BYTES: Final = 4 * 2**20
MAX_CERTIFICATE_BYTES: Final = 2**20
HOSTS: Final = "STREAMAD_PAGER_HOSTS"
"""The variable that narrows the hosts pages may go to."""
_PORTS: Final = {"https": 443, "http": 80}


class RefusedHostError(ValueError):
    """A URL leads where nothing may be sent."""


class Bounds(Protocol):
    """What a sender is bound by: a time limit in ms, and certificates."""

    @property
    def name(self) -> str:
        """Return whose requests they are."""
        ...

    @property
    def timeout(self) -> int:
        """Return the longest a request may take, in ms."""
        ...

    @property
    def ca_file(self) -> str | None:
        """Return the file of certificates to trust instead of the system's."""
        ...

    @property
    def cert_file(self) -> str | None:
        """Return the file of the client certificate."""
        ...

    @property
    def key_file(self) -> str | None:
        """Return the file of its key."""
        ...


class Sender:
    """Send requests of one pager, or of another user of HTTP.

    Parameters
    ----------
    config : Bounds
        Certificates and the time limit.
    hosts : Sequence[str]
        Shell patterns of the hosts that may be reached; empty: all that the settings name.
    """

    def __init__(self, config: Bounds, *, hosts: Sequence[str] = ()) -> None:
        self._config, self._hosts = config, tuple(hosts)
        self._context: ssl.SSLContext | None = None
        self._made_of: tuple[bytes, ...] = ()
        self._pool: ThreadPoolExecutor | None = None

    def send_all(self, requests: Sequence[Request]) -> list[Answer]:
        """Send requests at once; return their answers in order. One that hangs delays no other."""
        if len(requests) == 1:
            return [self.send(requests[0])]
        if self._pool is None:
            self._pool = ThreadPoolExecutor(16, thread_name_prefix=f"pager-{self._config.name}")
        return list(self._pool.map(self.send, requests))

    def send(self, request: Request) -> Answer:
        """Send a request and read its answer; never raises, never waits beyond the time limit."""
        deadline_s = time.monotonic() + self._config.timeout / 1000
        try:
            answer = self._send(request, deadline_s)
            if time.monotonic() >= deadline_s:
                # Cut off in its headers, which reads like their end.
                raise TimeoutError
        except (OSError, http.client.HTTPException, ValueError) as error:
            late = time.monotonic() >= deadline_s
            why = f"no answer within {self._config.timeout / 1000:g} s" if late else _why(error)
            return Answer(failure=f"{request.where}: {why}")
        return answer

    def close(self) -> None:
        """Wait for nothing; threads end with their time limit."""
        if self._pool is not None:
            self._pool.shutdown(wait=False, cancel_futures=True)

    def _send(self, request: Request, deadline_s: float) -> Answer:
        parts = urlsplit(request.url)
        host, port = parts.hostname or "", parts.port or _PORTS.get(parts.scheme, 0)
        if parts.scheme not in _PORTS:
            msg = "expected an https:// or http:// URL"
            raise RefusedHostError(msg)
        require_host(host, self._hosts)
        if len(request.body) > MAX_REQUEST_BYTES:
            msg = f"expected at most {MAX_REQUEST_BYTES} bytes to send, got {len(request.body)}"
            raise ValueError(msg)
        plain = _connected(host, port, deadline_s)
        with contextlib.closing(plain), cut_at(plain, deadline_s):
            wrapped: socket.socket = plain
            if parts.scheme == "https":
                wrapped = self._tls().wrap_socket(plain, server_hostname=host)
            with contextlib.closing(wrapped):
                return _exchanged(wrapped, request, host)

    def _tls(self) -> ssl.SSLContext:
        """Return certificates as their files are now; those of before where these are no use."""
        files = (self._config.ca_file, self._config.cert_file, self._config.key_file)
        made_of = tuple(_content(path) for path in files)
        if self._context is not None and made_of == self._made_of:
            return self._context
        try:
            context = ssl.create_default_context(cafile=self._config.ca_file)
            context.minimum_version = ssl.TLSVersion.TLSv1_2
            if self._config.cert_file:
                context.load_cert_chain(self._config.cert_file, self._config.key_file)
        except OSError as error:
            msg = f"ca_file, cert_file or key_file cannot be used: {error.strerror or error}"
            if self._context is not None:
                # Half of a new pair, as while it is written: tried again with the next request.
                logger.warning("pager %s keeps its certificates: %s", self._config.name, msg)
                return self._context
            raise ValueError(msg) from None
        self._context, self._made_of = context, made_of
        return context

    def probe(self, request: Request) -> None:
        """Do all of a request but send it; raises ValueError where it could not be sent."""
        parts = urlsplit(request.url)
        require_host(parts.hostname or "", self._hosts)
        if parts.scheme == "https":
            self._tls()


def _content(path: str | None) -> bytes:
    try:
        return read_small(path, max_bytes=MAX_CERTIFICATE_BYTES) if path else b""
    except ValueError:
        return b""  # whoever uses it reports why


def require_host(host: str, allowed: Sequence[str]) -> None:
    """Raise RefusedHostError where a host is not among those allowed; none named: all are."""
    if allowed and not any(fnmatch.fnmatchcase(host, one) for one in allowed):
        msg = f"host {safe_text(host, 100)} is not among those of {HOSTS}"
        raise RefusedHostError(msg)


def _exchanged(sock: socket.socket, request: Request, host: str) -> Answer:
    parts = urlsplit(request.url)
    connection = http.client.HTTPConnection(host)
    connection.sock = sock
    target = parts.path or "/"
    if parts.query:
        target = f"{target}?{parts.query}"
    headers = {"Host": parts.netloc, "User-Agent": "streamad", "Connection": "close"}
    connection.request(
        request.method, target, body=request.body, headers=headers | {**request.headers}
    )
    with contextlib.closing(connection.getresponse()) as response:
        body = response.read(request.max_answer_bytes)
        told = {name.lower(): value for name, value in response.getheaders()}
        return Answer(status=response.status, headers=told, body=body)


def _connected(host: str, port: int, deadline_s: float) -> socket.socket:
    """Return a connection to an address that may be reached; raises OSError, RefusedHostError."""
    failure: OSError | None = None
    for family, kind, protocol, _, address in socket.getaddrinfo(
        host, port, type=socket.SOCK_STREAM
    ):
        _require_allowed(str(address[0]))
        left_s = deadline_s - time.monotonic()
        if left_s <= 0:
            break
        sock = socket.socket(family, kind, protocol)
        try:
            sock.settimeout(left_s)
            sock.connect(address)
        except OSError as error:
            sock.close()
            failure = error
            continue
        return sock
    raise failure or TimeoutError


def _require_allowed(address: str) -> None:
    ip = ipaddress.ip_address(address.partition("%")[0])
    mapped = getattr(ip, "ipv4_mapped", None) or ip
    if mapped.is_link_local or mapped.is_multicast or mapped.is_unspecified:
        msg = f"it leads to {ip}, where nothing is sent (link-local, multicast or unspecified)"
        raise RefusedHostError(msg)


@contextlib.contextmanager
def cut_at(sock: socket.socket, deadline_s: float) -> Iterator[None]:
    """End a connection at a moment, however slowly bytes still come: each alone is in time."""
    # Its own handle: wrapping in TLS takes the socket's.
    handle = sock.dup()

    def cut() -> None:
        with contextlib.suppress(OSError):
            handle.shutdown(socket.SHUT_RDWR)

    timer = threading.Timer(max(deadline_s - time.monotonic(), 0.0), cut)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
        timer.join()
        handle.close()


def _why(error: Exception) -> str:
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"its certificate is not trusted: {error.verify_message}; see ca_file"
    text = safe_text(str(error), 200)
    return text if isinstance(error, RefusedHostError) else f"{type(error).__name__}: {text}"
