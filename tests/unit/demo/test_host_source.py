"""The host as a source: rates over the time that passed, and nothing made up."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import psutil
import pytest

import connectors.host.metrics as host_module
from connectors.host import HostSource
from streamad.errors import ConfigError
from streamad.names import split_key


class Machine:
    """A clock to move by hand, and counters that stand still unless told otherwise."""

    def __init__(self) -> None:
        self.now_ms, self.slept = 1_000_000, []
        self.disk = SimpleNamespace(read_bytes=0, write_bytes=0)

    def clock(self) -> int:
        return self.now_ms

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now_ms += round(seconds * 1000)

    def source(self, **settings) -> HostSource:
        given = {"interval_ms": 250, "processes": 0, **settings}
        return HostSource(host="h", clock=self.clock, sleep=self.sleep, **given)


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Machine:
    made = Machine()
    monkeypatch.setattr(host_module.psutil, "disk_io_counters", lambda: made.disk)
    return made


def readings(source: HostSource) -> dict[str, float]:
    batch = source.poll()
    return dict(zip(batch.keys.to_list(), batch.values[:, 0].tolist(), strict=True))


def test_a_counter_becomes_a_rate_over_the_time_that_really_passed(machine: Machine):
    source = machine.source()
    machine.now_ms += 2_000  # much later than asked for: this machine is busy
    machine.disk.write_bytes = 6_000
    assert readings(source)["h/disk_write_bytes_per_s"] == 3_000


def test_a_counter_set_back_says_nothing_once(machine: Machine):
    machine.disk.write_bytes = 6_000
    source = machine.source()
    machine.disk.write_bytes = 10
    assert "h/disk_write_bytes_per_s" not in readings(source)
    machine.disk.write_bytes = 260
    assert readings(source)["h/disk_write_bytes_per_s"] == 1_000


def test_readings_stand_on_the_grid_and_missed_ones_are_not_made_up_for(machine: Machine):
    source = machine.source()
    assert source.poll().time_ms[0] == 1_000_250
    machine.now_ms += 900
    assert source.poll().time_ms[0] == 1_001_150
    assert source.poll().time_ms[0] == 1_001_250


def test_a_mark_right_after_the_start_is_let_pass_so_that_cpu_time_can_tick(machine: Machine):
    machine.now_ms = 1_000_249
    source = machine.source()
    assert source.poll().time_ms[0] == 1_000_500
    assert source.poll().time_ms[0] == 1_000_750


def test_a_clock_set_back_does_not_stop_time(machine: Machine):
    source = machine.source()
    before = source.poll().time_ms[0]
    machine.now_ms -= 50
    assert source.poll().time_ms[0] > before


@pytest.mark.parametrize("failure", [None, NotImplementedError(), OSError("no /proc/diskstats")])
def test_counters_a_container_does_not_have_are_left_out(failure, machine, monkeypatch):
    def read():
        if failure is not None:
            raise failure

    monkeypatch.setattr(host_module.psutil, "disk_io_counters", read)
    found = readings(machine.source())
    assert not any("disk" in key for key in found)
    assert "h/memory_used_percent" in found


def test_a_process_is_followed_until_it_ends(machine: Machine, monkeypatch: pytest.MonkeyPatch):
    class Process:
        pid, seconds, gone = 7, 1.0, False

        def oneshot(self):
            if self.gone:
                raise psutil.NoSuchProcess(7)
            return pytest.MonkeyPatch.context()

        def cpu_times(self):
            return SimpleNamespace(user=self.seconds, system=0.0)

        def memory_info(self):
            return SimpleNamespace(rss=4096)

    process = Process()
    monkeypatch.setattr(host_module.psutil, "Process", lambda _: process)
    source = machine.source(watch={"job": 7})
    process.seconds += 0.125
    found = readings(source)
    assert (found["h/job.cpu_percent"], found["h/job.rss_bytes"]) == (50.0, 4096.0)
    process.gone = True
    assert "h/job.cpu_percent" not in readings(source)
    assert source.unreadable["process"] == 1
    readings(source)
    assert source.unreadable["process"] == 1, "it is not asked for again"


def test_a_name_with_a_slash_makes_a_key_of_two_fields_all_the_same(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
):
    class Thread:
        pid, seconds = 9, 0.0

        def name(self):
            return "kworker/0:1 evts"

        def oneshot(self):
            return pytest.MonkeyPatch.context()

        def cpu_times(self):
            self.seconds += 1
            return SimpleNamespace(user=self.seconds, system=0.0)

        def memory_info(self):
            return SimpleNamespace(rss=4096)

    thread = Thread()
    monkeypatch.setattr(host_module.psutil, "process_iter", lambda: [thread])
    monkeypatch.setattr(host_module.psutil, "Process", lambda _: thread)
    found = readings(machine.source(processes=1))
    assert found["h/kworker-0:1-evts.9.rss_bytes"] == 4096
    assert all(len(split_key(key, 2) or ()) == 2 for key in found)


def test_a_process_that_never_was_is_not_followed(machine: Machine):
    assert not any("ghost" in key for key in readings(machine.source(watch={"ghost": 2**22 + 1})))


def test_the_real_machine_is_read_and_every_value_is_finite():
    source = HostSource(host="h", interval_ms=100, processes=2)
    batches = [source.poll() for _ in range(3)]
    assert [int(batch.offsets[0]) for batch in batches] == [0, 1, 2]
    for batch in batches:
        assert batch.keys.n_unique() == len(batch)
        assert np.isfinite(batch.values).all()
        assert set(np.diff(batch.time_ms)) <= {0}
    percent = [value for key, value in readings(source).items() if key.endswith("cpu_percent")]
    assert all(value >= 0 for value in percent)


def test_settings_that_make_no_sense_are_refused():
    with pytest.raises(ConfigError, match="interval_ms must be 100 or more"):
        HostSource(host="h", interval_ms=99)
