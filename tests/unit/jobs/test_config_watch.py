"""The file of settings as it changes below a running job: what is taken over, what is refused."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from connectors.telemetry import PrometheusTelemetry
from jobs.plain import config_watch
from jobs.plain.config_watch import ConfigWatch
from jobs.plain.topics import Config
from streamad.config import PipelineConfig
from streamad.errors import ConfigError

TEXT = """
name: hosts
input: {topics: metrics}
alerts:
  runbook: https://wiki.example.org/%s
"""
GIVEN = "hunter22hunter22"


class Loop:
    """Takes swaps, and does them when it is told to."""

    def __init__(self) -> None:
        self.waiting: list[Callable[[], None]] = []

    def stage(self, swap: Callable[[], None]) -> None:
        self.waiting.append(swap)

    def turn(self) -> None:
        while self.waiting:
            self.waiting.pop(0)()


class Role:
    """A role of the job that notes the link it has, and refuses some."""

    def __init__(self, watch: ConfigWatch, refuses: str = "") -> None:
        self.loop, self.link, self.refuses = Loop(), link_of(watch.config), refuses
        self.prepared: list[str] = []
        watch.add(self.loop, self.prepare, watch.config)

    def prepare(self, before: Config, config: Config) -> Callable[[], None]:
        link = link_of(config)
        self.prepared.append(link)
        if self.refuses and self.refuses in link:
            msg = f"{link}: expected another link"
            raise ConfigError(msg)

        def swap() -> None:
            self.link = link

        return swap


def link_of(config: Config) -> str:
    assert isinstance(config, PipelineConfig)
    return (config.alerts.runbook or "").rsplit("/", 1)[-1]


class Folder:
    """A folder as the kubelet mounts a ConfigMap: the file leads through a link that moves."""

    def __init__(self, where: Path) -> None:
        self.where, self.n = where, 0
        self.file = where / "pipeline.yaml"

    def put(self, text: str) -> None:
        self.n += 1
        version = self.where / f"..2026_{self.n}"
        version.mkdir()
        (version / "pipeline.yaml").write_text(text)
        # All versions bear one time and, often, one size: only their content differs.
        os.utime(version / "pipeline.yaml", (1_000_000, 1_000_000))
        link = self.where / "..data_tmp"
        link.symlink_to(version.name)
        link.rename(self.where / "..data")
        if not self.file.is_symlink():
            self.file.symlink_to("..data/pipeline.yaml")


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    made = Folder(tmp_path)
    made.put(TEXT % "one")
    return made


@pytest.fixture
def telemetry() -> PrometheusTelemetry:
    return PrometheusTelemetry(strict=True)


@pytest.fixture
def watch(folder: Folder, telemetry: PrometheusTelemetry) -> ConfigWatch:
    return ConfigWatch(folder.file, environment={"TOKEN": GIVEN}, telemetry=telemetry)


def looked(watch: ConfigWatch, times: int = 2) -> None:
    for _ in range(times):
        watch.look()


def successful(telemetry: PrometheusTelemetry) -> float:
    return value(telemetry, "config_last_reload_successful")


def value(telemetry: PrometheusTelemetry, name: str) -> float:
    lines = telemetry.render().decode().splitlines()
    (line,) = [line for line in lines if line.startswith(f"streamad_{name}{{")]
    assert 'pipeline="hosts"' in line
    return float(line.rsplit(" ", 1)[1])


def counted(telemetry: PrometheusTelemetry) -> dict[str, float]:
    lines = telemetry.render().decode().splitlines()
    name = 'streamad_config_reloads_total{result="'
    found = [line.removeprefix(name).split('"} ') for line in lines if line.startswith(name)]
    return {result: float(n) for result, n in found}


def test_a_configmap_that_moves_its_link_is_taken_over_by_all_roles(
    folder: Folder, watch: ConfigWatch, telemetry: PrometheusTelemetry
):
    roles = [Role(watch), Role(watch)]
    looked(watch, 5)
    assert [role.prepared for role in roles] == [[], []]
    began_s = value(telemetry, "config_last_reload_success_timestamp_seconds")
    folder.put(TEXT % "two")
    looked(watch)
    assert link_of(watch.config) == "two"
    assert [role.link for role in roles] == ["one", "one"], "not before the loop has time for it"
    assert counted(telemetry) == {}
    roles[0].loop.turn()
    assert counted(telemetry) == {}, "not before all have it"
    roles[1].loop.turn()
    assert [role.link for role in roles] == ["two", "two"]
    assert counted(telemetry) == {"done": 1}
    assert successful(telemetry) == 1
    assert value(telemetry, "config_last_reload_success_timestamp_seconds") > began_s
    looked(watch, 5)
    assert [role.prepared for role in roles] == [["two"], ["two"]]


def test_a_file_that_is_written_in_pieces_is_read_once_it_is_whole(
    tmp_path: Path, telemetry: PrometheusTelemetry
):
    file = tmp_path / "pipeline.yaml"
    file.write_text(TEXT % "one")
    watch = ConfigWatch(file, environment={}, telemetry=telemetry)
    role = Role(watch)
    whole = TEXT % "three"
    for length in range(20, len(whole) + 1, 7):
        file.write_text(whole[:length])
        watch.look()
        assert successful(telemetry) == 1
    file.write_text(whole)
    looked(watch)
    role.loop.turn()
    assert (role.link, role.prepared) == ("three", ["three"])


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("name: [", "not YAML"),
        (TEXT % "two" + "  budgett: 3 per week\n", "did you mean 'budget'"),
        (TEXT % "two" + "series: {silence: 5m}\n", "got another value of series.silence, expected"),
        (
            TEXT % "two" + "scoring: {exit: 1h, min_windows: 9}\n",
            "scoring.exit, scoring.min_window",
        ),
        (TEXT.replace("hosts", "other") % "one", "another value of name"),
        (TEXT % "${NOWHERE}", "${NOWHERE} is not set"),
        ("x" * 2_000_000, "at most 1048576 bytes"),
    ],
)
def test_a_wrong_file_is_refused_in_one_line_and_a_right_one_is_taken_after_it(
    folder: Folder,
    watch: ConfigWatch,
    telemetry: PrometheusTelemetry,
    caplog: pytest.LogCaptureFixture,
    text: str,
    told: str,
):
    role = Role(watch)
    folder.put(text)
    with caplog.at_level(logging.INFO):
        looked(watch, 6)
    (line,) = [record.getMessage() for record in caplog.records]
    assert told in line
    assert "\n" not in line
    assert successful(telemetry) == 0
    assert counted(telemetry) == {"refused": 1}
    assert (role.link, role.prepared, link_of(watch.config)) == ("one", [], "one")
    folder.put(TEXT % "two")
    looked(watch)
    role.loop.turn()
    assert role.link == "two"
    assert successful(telemetry) == 1


def test_a_change_that_is_taken_back_is_no_longer_refused(
    folder: Folder, watch: ConfigWatch, telemetry: PrometheusTelemetry
):
    role = Role(watch)
    folder.put(TEXT % "two" + "windows: {size: 99}\n")
    looked(watch)
    assert successful(telemetry) == 0
    folder.put(TEXT % "one")
    looked(watch)
    role.loop.turn()
    assert successful(telemetry) == 1
    assert role.link == "one"


def test_a_file_that_is_gone_is_reported_and_taken_again_when_it_is_back(
    folder: Folder,
    watch: ConfigWatch,
    telemetry: PrometheusTelemetry,
    caplog: pytest.LogCaptureFixture,
):
    (folder.where / "..data").rename(folder.where / "away")
    watch.look()
    (folder.where / "away").rename(folder.where / "..data")
    watch.look()
    watch.look()
    assert successful(telemetry) == 1, "gone for a moment, as while a folder is replaced"
    (folder.where / "..data").rename(folder.where / "away")
    looked(watch, 3)
    assert successful(telemetry) == 0
    assert "cannot be read" in caplog.text
    (folder.where / "away").rename(folder.where / "..data")
    looked(watch)
    assert successful(telemetry) == 1
    assert link_of(watch.config) == "one"


def test_one_role_that_refuses_keeps_all_of_them_as_they_are(
    folder: Folder, watch: ConfigWatch, telemetry: PrometheusTelemetry
):
    first, second = Role(watch), Role(watch, refuses="bad")
    folder.put(TEXT % "bad")
    looked(watch)
    first.loop.turn()
    second.loop.turn()
    assert (first.link, second.link, link_of(watch.config)) == ("one", "one", "one")
    assert successful(telemetry) == 0


def test_what_was_refused_is_tried_again_where_its_reason_may_be_gone(
    folder: Folder,
    watch: ConfigWatch,
    telemetry: PrometheusTelemetry,
    monkeypatch: pytest.MonkeyPatch,
):
    role = Role(watch, refuses="two")
    folder.put(TEXT % "two")
    looked(watch, 9)
    assert role.prepared == ["two"]
    role.refuses = ""
    monkeypatch.setattr(config_watch.time, "monotonic", lambda: 1e12)
    watch.look()
    role.loop.turn()
    assert (role.link, successful(telemetry)) == ("two", 1)


def test_a_loop_that_is_made_late_gets_what_holds_by_then(folder: Folder, watch: ConfigWatch):
    at_start = watch.config
    folder.put(TEXT % "two")
    looked(watch)
    late = Role.__new__(Role)
    late.loop, late.link, late.refuses, late.prepared = Loop(), "one", "", []
    watch.add(late.loop, late.prepare, at_start)
    late.loop.turn()
    assert late.link == "two"


def test_a_later_refusal_is_not_overwritten_by_a_loop_that_was_busy(
    folder: Folder, watch: ConfigWatch, telemetry: PrometheusTelemetry
):
    role = Role(watch)
    folder.put(TEXT % "two")
    looked(watch)
    folder.put("name: [")
    looked(watch)
    role.loop.turn()
    assert (role.link, successful(telemetry)) == ("two", 0)


def test_a_value_of_the_environment_is_in_no_message(
    folder: Folder, watch: ConfigWatch, caplog: pytest.LogCaptureFixture
):
    folder.put(TEXT % "${TOKEN}")
    looked(watch)
    assert link_of(watch.config) == GIVEN
    folder.put(TEXT % "one" + "  max_age: ${TOKEN}\n")
    looked(watch)
    assert "max_age" in caplog.text
    assert GIVEN not in caplog.text


def test_comments_and_order_are_no_change(
    folder: Folder, watch: ConfigWatch, telemetry: PrometheusTelemetry
):
    role = Role(watch)
    folder.put("# with a comment\n" + TEXT % "one")
    looked(watch)
    role.loop.turn()
    assert role.link == "one"
    assert successful(telemetry) == 1
