"""The host as a source of events and edges: what is reported, what is left out, and bounds."""

from __future__ import annotations

import os
import socket
import subprocess
import time
from types import SimpleNamespace

import numpy as np
import psutil
import pytest

import connectors.host.connections as connections_module
from connectors.host import Connections, ProcessStarts
from jobs.build import build_detect
from streamad.config import parse_pipeline
from streamad.errors import ConfigError

NOW = 1_700_000_000_000


class Clock:
    """A clock that only sleep moves."""

    def __init__(self) -> None:
        self.now_ms = NOW

    def __call__(self) -> int:
        return self.now_ms

    def sleep(self, seconds: float) -> None:
        self.now_ms += round(seconds * 1000)


class Process:
    """What psutil says of a process; `None` cannot be read."""

    table: dict[int, Process]

    def __init__(self, pid: int) -> None:
        if pid not in self.table:
            raise psutil.NoSuchProcess(pid)
        self.pid = pid
        self.__dict__.update(self.table[pid].__dict__)

    @classmethod
    def of(cls, name: str | None, **known) -> Process:
        made = cls.__new__(cls)
        made.known = {"name": name, "username": "ann", "ppid": 1, "create_time": NOW / 1000}
        made.known |= known
        return made

    def __getattr__(self, name: str):
        def read():
            if self.known[name] is None:
                raise psutil.AccessDenied(0)
            return self.known[name]

        return read


@pytest.fixture
def table(monkeypatch: pytest.MonkeyPatch) -> dict[int, Process]:
    made = {1: Process.of("init", ppid=0)}
    monkeypatch.setattr(Process, "table", made, raising=False)
    monkeypatch.setattr(psutil, "Process", Process)
    monkeypatch.setattr(psutil, "pids", lambda: list(made))
    return made


def starts(clock: Clock, **settings) -> ProcessStarts:
    return ProcessStarts(host="h", clock=clock, sleep=clock.sleep, **settings)


def rows(source: ProcessStarts) -> list[tuple]:
    return source.poll().values.fields.rows()


def test_a_start_is_reported_once_with_its_own_time_and_nothing_that_ran_before(table):
    clock = Clock()
    source = starts(clock)
    table[7] = Process.of("bash", ppid=1, create_time=(NOW + 100) / 1000)
    table[8] = Process.of("a/b c", ppid=7, create_time=(NOW + 50) / 1000)
    batch = source.poll()
    hour = f"{time.localtime(NOW / 1000).tm_hour:02d}"
    assert batch.values.fields.rows() == [
        ("ann", "bash", "a-b-c", hour),
        ("ann", "init", "bash", hour),
    ]
    assert batch.time_ms.tolist() == batch.values.time_ms.tolist() == [NOW + 50, NOW + 100]
    assert batch.keys.to_list() == ["h/ann", "h/ann"]
    assert rows(source) == []
    del table[7]
    table[9] = table[8]
    assert [row[1] for row in rows(source)] == [None], "its parent is gone"


def test_a_start_is_never_before_the_last_reading_nor_after_this_one(table):
    clock = Clock()
    source = starts(clock)
    table[7] = Process.of("early", create_time=(NOW - 3_600_000) / 1000)
    table[8] = Process.of("late", create_time=(NOW + 3_600_000) / 1000)
    assert source.poll().time_ms.tolist() == [NOW, NOW + 250]


def test_what_cannot_be_read_is_missing_or_left_out_and_counted(table):
    source = starts(Clock(), fields=("user", "parent", "process"))
    table[7] = Process.of(None)
    table[8] = Process.of("nc", username=None, ppid=None, create_time=None)
    batch = source.poll()
    assert batch.values.fields.rows() == [(None, None, "nc")]
    assert batch.keys.to_list() == ["h/"]
    assert source.unreadable == {"process": 1}


def test_threads_of_the_kernel_are_no_starts_but_children_of_a_second_process_are(table):
    table[2] = Process.of("kthreadd", ppid=0)
    source = starts(Clock())
    table[7] = Process.of("kworker/0:1", ppid=2)
    assert rows(source) == []
    table[2] = Process.of("shell", ppid=1)
    source = starts(Clock())
    table[8] = Process.of("ls", ppid=2)
    assert [row[2] for row in rows(source)] == ["ls"]


def test_a_copy_of_its_parent_is_named_by_what_it_becomes(table):
    """Between fork and exec a process has its parent's name."""
    source = starts(Clock(), fields=("parent", "process"))
    table[7] = Process.of("shell", ppid=1)
    assert rows(source) == [("init", "shell")]
    table |= {8: Process.of("shell", ppid=7), 9: Process.of("shell", ppid=7)}
    table[10] = Process.of("shell", ppid=7)
    assert rows(source) == []
    table[8] = Process.of("cat", ppid=1)
    del table[10]
    batch = source.poll()
    assert batch.values.fields.rows() == [("shell", "cat"), ("shell", "shell"), ("shell", "shell")]
    assert set(batch.time_ms.tolist()) == {NOW + 500}, "no earlier than the reading before"
    assert rows(source) == []


@pytest.mark.parametrize("name", ["fork", "init"])
def test_a_flood_of_starts_is_bounded_and_counted(table, name):
    source = starts(Clock(), most=10)
    table |= {pid: Process.of(name, ppid=1) for pid in range(100, 200)}
    readings = [len(source.poll()) for _ in range(3)]
    assert readings == ([10, 0, 0] if name == "fork" else [0, 10, 0])
    assert source.left_out == 90, "what was left out does not come later"


def test_a_real_start_is_seen_and_scored_by_a_pipeline_of_the_same_fields():
    config = parse_pipeline(
        "name: starts\ninput: {records: events, "
        "fields: {key: [host, user], categories: [user, parent, process, hour]}}\n"
        "detector: rare_events\n"
    )
    fields = config.input.fields
    source = ProcessStarts(host="h", key=fields.key, fields=fields.categories, interval_ms=100)
    child = subprocess.Popen(["sleep", "30"])
    try:
        batch = source.poll()
    finally:
        child.kill()
        child.wait()
    row = next(one for one in batch.values.fields.rows(named=True) if one["process"] == "sleep")
    assert row["user"] == psutil.Process().username()
    assert row["parent"] == psutil.Process().name()
    operator = build_detect(config)
    (scores,) = operator.process(operator.new_state(), batch).scores
    assert len(scores.keys) == len(batch)


# --- connections --------------------------------------------------------------------------------


def conn(status, ours, theirs=(), pid=None):
    return SimpleNamespace(status=status, laddr=ours, raddr=theirs, pid=pid)


ESTABLISHED, LISTEN = psutil.CONN_ESTABLISHED, psutil.CONN_LISTEN


def edges_of(monkeypatch: pytest.MonkeyPatch, listed: list, **settings):
    monkeypatch.setattr(connections_module.psutil, "net_connections", lambda _: listed)
    clock = Clock()
    source = Connections(host="h", clock=clock, sleep=clock.sleep, **settings)
    batch = source.poll()
    held = batch.values
    columns = (held.source, held.target, held.source_type, held.target_type)
    edges = list(zip(*(one.to_list() for one in columns), held.weight.tolist(), strict=True))
    return source, batch, edges


def test_every_kind_of_connection_is_one_edge_without_a_clients_own_port(table, monkeypatch):
    table |= {10: Process.of("postgres"), 20: Process.of("web"), 30: Process.of("curl")}
    _, batch, edges = edges_of(
        monkeypatch,
        [
            conn(LISTEN, ("::", 443), pid=20),
            conn(LISTEN, ("127.0.0.1", 5432), pid=10),
            # web has two connections to postgres; both ends of one are listed.
            conn(ESTABLISHED, ("127.0.0.1", 50_001), ("127.0.0.1", 5432), 20),
            conn(ESTABLISHED, ("127.0.0.1", 5432), ("127.0.0.1", 50_001), 10),
            conn(ESTABLISHED, ("127.0.0.1", 50_002), ("127.0.0.1", 5432), 20),
            # Two calls from elsewhere by IPv4 to a listener of IPv6, and one to elsewhere.
            conn(ESTABLISHED, ("::ffff:10.0.0.5", 443), ("::ffff:198.51.100.7", 60_001), 20),
            conn(ESTABLISHED, ("::ffff:10.0.0.5", 443), ("::ffff:198.51.100.7", 60_002), 20),
            conn(psutil.CONN_SYN_SENT, ("fe80::1%eth0", 50_003), ("2001:db8::9", 80), 30),
            # By an address of this machine that is not loopback, to a port nobody listens on.
            conn(ESTABLISHED, ("10.0.0.5", 50_004), ("10.0.0.5", 9999), 30),
            conn(psutil.CONN_TIME_WAIT, ("10.0.0.5", 50_005), ("198.51.100.8", 80)),
        ],
    )
    assert edges == [
        ("web", "postgres:5432", "process", "service", 2.0),
        ("198.51.100.7", "web:443", "remote", "service", 2.0),
        ("curl", "[2001:db8::9]:80", "process", "remote", 1.0),
        ("curl", "localhost:9999", "process", "service", 1.0),
    ]
    assert batch.keys.to_list() == ["h/web", "h/web", "h/curl", "h/curl"]
    assert set(batch.time_ms) == set(batch.values.time_ms) == {NOW + 1000}


def test_connections_of_programs_that_cannot_be_read_are_left_out_and_counted(table, monkeypatch):
    table |= {10: Process.of(None)}
    source, _, edges = edges_of(
        monkeypatch,
        [
            conn(ESTABLISHED, ("10.0.0.5", 50_001), ("198.51.100.7", 80)),
            conn(ESTABLISHED, ("10.0.0.5", 50_002), ("198.51.100.7", 80), 10),
        ],
    )
    assert (edges, source.unreadable) == ([], {"connection": 2})


def test_a_flood_of_targets_is_bounded_and_counted(table, monkeypatch):
    table[10] = Process.of("scan")
    flood = [
        conn(ESTABLISHED, ("10.0.0.5", 50_000 + n), (f"198.51.100.{n}", 80), 10) for n in range(50)
    ]
    source, batch, _ = edges_of(monkeypatch, flood + flood[:1], most=20)
    assert (len(batch), source.left_out) == (20, 30)
    assert batch.values.weight.tolist() == [2.0] + [1.0] * 19


def test_where_only_root_may_list_all_each_program_is_asked(monkeypatch):
    def denied(_):
        raise psutil.AccessDenied(0)

    monkeypatch.setattr(connections_module.psutil, "net_connections", denied)
    monkeypatch.setattr(connections_module.psutil, "process_iter", lambda: [psutil.Process()])
    source = Connections(host="h", key=("host", "source"), interval_ms=100)
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        with socket.create_connection(server.getsockname()):
            batch = source.poll()
    name = psutil.Process(os.getpid()).name()
    assert f"{name}:{port}" in batch.values.target.to_list()
    assert set(batch.keys) == {f"h/{name}"}
    assert np.isfinite(batch.values.weight).all()


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: ProcessStarts(host="h", key=("host", "usr")), "did you mean 'user'"),
        (lambda: ProcessStarts(host="h", fields=()), "need at least one field, of user, parent"),
        (lambda: ProcessStarts(host="h", most=0), "most must lie in 1..65536, got 0"),
        (lambda: Connections(host="h", key=("host", "sorce")), "did you mean 'source'"),
        (lambda: Connections(host="h", interval_ms=99), "interval_ms must be 100 or more, got 99"),
    ],
)
def test_settings_that_make_no_sense_are_refused(make, says):
    with pytest.raises(ConfigError, match=says):
        make()
