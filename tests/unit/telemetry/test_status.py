"""The status server: what is lacking is said, a stuck loop is found, a probe costs nothing."""

from __future__ import annotations

import contextlib
import socket
import time
import urllib.error
import urllib.request

import pytest

from connectors.records.status import MAX_CLIENTS, REQUEST_TIMEOUT_S, Health, StatusServer
from streamad.errors import ConfigError


class Clock:
    def __init__(self) -> None:
        self.now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


def get(server: StatusServer, path: str) -> tuple[int, str]:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{server.port}{path}", timeout=5) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read().decode()


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def health(clock):
    return Health(("model", "partitions"), stuck_after_s=60, clock=clock)


@pytest.fixture
def server(health):
    with StatusServer(health, lambda: b"streamad_ready 1.0\n") as server:
        yield server


def test_ready_only_when_every_condition_is_met(server, health):
    assert get(server, "/readyz") == (503, "model: not yet; partitions: not yet\n")
    health.meet("model")
    health.lack("partitions", "none assigned")
    assert get(server, "/readyz") == (503, "partitions: none assigned\n")
    health.meet("partitions")
    assert get(server, "/readyz") == (200, "ok\n")
    health.shutting_down()
    assert get(server, "/readyz") == (503, "running: shutting down\n")


def test_a_loop_that_does_not_turn_is_unhealthy_until_it_does(server, health, clock):
    assert get(server, "/healthz") == (200, "ok\n")
    clock.now_s = 61
    assert get(server, "/healthz") == (503, "process: the loop has not turned for 61 s\n")
    health.beat()
    assert get(server, "/healthz") == (200, "ok\n")


def test_one_stuck_loop_of_two_is_enough(health, clock):
    health.beat("detect")
    health.beat("alert")
    clock.now_s = 61
    health.beat("alert")
    assert health.stuck() == "detect: the loop has not turned for 61 s"


def test_health_does_not_depend_on_being_ready(server, health):
    health.lack("partitions", "the broker is away")
    assert get(server, "/healthz")[0] == 200


def test_metrics_are_served_and_unknown_paths_say_what_there_is(server):
    assert get(server, "/metrics") == (200, "streamad_ready 1.0\n")
    assert get(server, "/") == (404, "here are /metrics, /healthz, /readyz\n")


def test_a_probe_writes_no_line(server, capsys):
    get(server, "/healthz")
    get(server, "/nothing")
    told = capsys.readouterr()
    assert told.out + told.err == ""


def test_fifty_clients_that_send_one_byte_each_do_not_delay_a_probe(server):
    address = ("127.0.0.1", server.port)
    held = [socket.create_connection(address, timeout=5) for _ in range(50)]
    try:
        for client in held:
            client.sendall(b"G")
        began_s = time.monotonic()
        assert get(server, "/healthz") == (200, "ok\n")
        assert time.monotonic() - began_s < 1
        # They are hung up on, however little they send.
        held[0].settimeout(3 * REQUEST_TIMEOUT_S)
        assert held[0].recv(1) == b""
        assert time.monotonic() - began_s < 2 * REQUEST_TIMEOUT_S
    finally:
        for client in held:
            client.close()


def test_of_too_many_clients_the_oldest_is_hung_up_on(server):
    address = ("127.0.0.1", server.port)
    held = [socket.create_connection(address, timeout=5) for _ in range(MAX_CLIENTS)]
    try:
        assert get(server, "/healthz") == (200, "ok\n")
        with contextlib.suppress(ConnectionResetError):
            assert held[0].recv(1) == b""
    finally:
        for client in held:
            client.close()


def test_a_client_that_never_reads_does_not_hold_the_server(health):
    with StatusServer(health, lambda: b"x" * 50_000_000) as server:
        address = ("127.0.0.1", server.port)
        with socket.create_connection(address, timeout=5) as client:
            client.sendall(b"GET /metrics HTTP/1.1\r\n\r\n")
            assert get(server, "/healthz") == (200, "ok\n")


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        (b"POST /healthz HTTP/1.1\r\n\r\n", b"405"),
        (b"\xff\x00\r\n\r\n", b"405"),
        (b"GET\r\n\r\n", b"404"),
        (b"HEAD /healthz?x=1 HTTP/1.1\r\nHost: a\r\n\r\n", b"200"),
        (b"GET /healthz HTTP/1.1\r\nX: " + b"x" * 100_000, b""),
    ],
)
def test_odd_requests_are_answered_or_hung_up_on(server, sent, status):
    with socket.create_connection(("127.0.0.1", server.port), timeout=5) as client:
        with contextlib.suppress(ConnectionError):
            client.sendall(sent)
        answer = b""
        with contextlib.suppress(ConnectionError):
            while part := client.recv(4096):
                answer += part
    assert answer[9:12] == status


def test_what_fails_to_render_is_a_server_error_and_the_next_probe_is_answered(health):
    def fails() -> bytes:
        raise ValueError

    with StatusServer(health, fails) as server:
        assert get(server, "/metrics")[0] == 500
        assert get(server, "/healthz") == (200, "ok\n")


def test_a_taken_port_is_a_configuration_error(server, health):
    with pytest.raises(ConfigError, match=f"cannot listen on 127.0.0.1:{server.port}"):
        StatusServer(health, bytes, port=server.port)


def test_closing_twice_is_fine(health):
    server = StatusServer(health, bytes)
    server.close()
    server.close()
