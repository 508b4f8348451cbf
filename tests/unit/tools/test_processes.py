"""Ports for servers that take their time: nobody else is given them meanwhile."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from streamad.testing import processes
from streamad.testing.processes import first_ephemeral_port, free_ports


def test_ports_are_free_all_different_and_lent_to_no_connection():
    ports = free_ports(20)
    assert len(set(ports)) == 20
    assert max(ports) < first_ephemeral_port()
    for port in ports:
        with socket.socket() as server:
            server.bind(("127.0.0.1", port))


def test_a_port_somebody_listens_on_is_not_returned(monkeypatch: pytest.MonkeyPatch):
    taken, free = free_ports(2)
    drawn = iter([taken, taken, free])
    monkeypatch.setattr(processes.random, "randrange", lambda *_: next(drawn))
    with socket.socket() as server:
        server.bind(("127.0.0.1", taken))
        server.listen()
        assert free_ports(1) == [free]


@pytest.mark.parametrize(
    ("told", "first"),
    [("16000\t65535\n", 16_000), ("1024\t65535\n", 32_768), ("", 32_768), (None, 32_768)],
)
def test_the_kernel_says_which_ports_it_lends(
    told: str | None, first: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    file = tmp_path / "range"
    if told is not None:
        file.write_text(told)
    monkeypatch.setattr(processes, "_EPHEMERAL", file)
    assert first_ephemeral_port() == first
