"""``streamad triage``: from a file of alerts to names, and to what the next alerts look like."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import orjson
import pytest

from connectors.files.triage import read_book, recogniser_of
from connectors.telemetry import PrometheusTelemetry
from jobs import cli
from jobs.plain.triage_watch import TriageWatch
from streamad.testing.alert_classes import TROUBLES, make_alerts

Run = Callable[..., tuple[int, str, str]]
TROUBLE = {one.name: one for one in TROUBLES}


@pytest.fixture
def run(
    capfd: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Run]:
    monkeypatch.chdir(tmp_path)

    def call(*words: object) -> tuple[int, str, str]:
        code = cli.main(["triage", *map(str, words)])
        out, err = capfd.readouterr()
        return code, out, err

    return call


def write(path: Path, seed: int, *names: str, n: int = 30) -> dict[str, str]:
    """Write alerts of some troubles; return the trouble of each alert by its id."""
    rng = np.random.default_rng(seed)
    made = {name: make_alerts(TROUBLE[name], n, rng=rng) for name in names}
    path.write_bytes(b"".join(orjson.dumps(a) + b"\n" for some in made.values() for a in some))
    return {alert.id: name for name, some in made.items() for alert in some}


def test_groups_are_named_and_recognised_after_a_restart(run: Run, tmp_path: Path):
    known = write(tmp_path / "a.jsonl", 0, "disk full", "password guessing")
    code, out, err = run("groups", "a.jsonl")
    assert code == 0
    assert "g1" in out
    assert "disk_used_percent" in out
    assert "60 alerts: 0 of named groups, 60 of none" in err
    assert 'streamad triage name g1 "disk full" --book triage.json' in err
    code, out, _ = run("show", "--json")
    for line in map(json.loads, out.splitlines()):
        name = known[line["examples"][0]["id"]]
        assert run("name", line["group"], name)[0] == 0
    later = write(tmp_path / "b.jsonl", 1, "disk full", "password guessing", "host down")
    code, out, err = run("recognise", "b.jsonl")
    assert code == 0
    said = [json.loads(line) for line in out.splitlines()]
    assert len(said) == 90
    right = [one["looks_like"] == later[one["id"]] for one in said]
    assert sum(right) > 45
    assert {one["looks_like"] for one in said if later[one["id"]] == "host down"} == {""}
    code, out, err = run("groups", "b.jsonl")
    assert code == 0
    assert "'disk full'" in out
    assert "no data" in out
    recogniser = recogniser_of("triage.json")
    assert recogniser is not None
    assert set(recogniser.names) == {"disk full", "password guessing"}


def test_a_name_is_changed_and_dropped(run: Run, tmp_path: Path):
    write(tmp_path / "a.jsonl", 0, "disk full", "password guessing")
    run("groups", "a.jsonl", "--groups", 2)
    assert run("name", "g1", "one")[0] == 0
    assert run("name", "one", "  an  other ")[2].startswith("an other: 30 alerts; recognised")
    assert list(read_book("triage.json").named) == ["an other"]
    assert run("drop", "an other")[0] == 0
    assert not read_book("triage.json").named
    code, out, err = run("recognise", "a.jsonl")
    assert (code, out) == (2, "")
    assert "no group has a name; give one with: streamad triage name" in err


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (("groups", "absent.jsonl"), "absent.jsonl: cannot be read (No such file"),
        (("groups", "bad.jsonl"), "bad.jsonl:2: is no alert"),
        (("groups", "empty.jsonl"), "empty.jsonl: holds no alert"),
        (("groups", "a.jsonl", "--from", "2030-01-01"), "a.jsonl: holds no alert of that time"),
        (("groups", "a.jsonl", "--groups", "0"), "--groups"),
        (("groups", "a.jsonl", "--method", "kmean"), "is called 'kmean'; did you mean 'kmeans'?"),
        (("groups", "a.jsonl", "--method", "pbn"), "expected at least 2, got 0; name some first"),
        (("groups", "a.jsonl", "--book", "bad.jsonl"), "bad.jsonl: is no JSON"),
        (("groups", "a.jsonl", "--book", "no/such/folder.json"), "cannot be written"),
        (("show",), "triage.json: there is no such file; make one with: streamad triage groups"),
        (("name", "g1", "x"), "triage.json: there is no such file"),
    ],
)
def test_what_is_wrong_is_reported_in_one_line_before_anything_is_written(
    run: Run, tmp_path: Path, words: tuple[str, ...], why: str
):
    write(tmp_path / "a.jsonl", 0, "disk full")
    first = (tmp_path / "a.jsonl").read_bytes().splitlines()[0]
    (tmp_path / "bad.jsonl").write_bytes(first + b'\n{"id": 3}\n')
    (tmp_path / "empty.jsonl").touch()
    code, out, err = run(*words)
    assert (code, out) == (2, "")
    assert why in err
    assert err.startswith("streamad: error: ")
    assert len(err.splitlines()) == 1
    assert not (tmp_path / "triage.json").exists()


def test_pbn_groups_what_is_new_by_what_tells_the_named_groups_apart(run: Run, tmp_path: Path):
    named = ("disk full", "password guessing", "host down", "bad deploy")
    new = ("traffic spike", "port scan")
    known = write(tmp_path / "a.jsonl", 0, *named)
    run("groups", "a.jsonl", "--groups", 4)
    _, out, _ = run("show", "--json")
    for line in map(json.loads, out.splitlines()):
        run("name", line["group"], known[line["examples"][0]["id"]])
    later = write(tmp_path / "b.jsonl", 1, *named, *new)
    code, _, err = run("groups", "b.jsonl", "--method", "pbn", "--groups", 2)
    assert code == 0, err
    _, out, _ = run("show", "--json")
    groups = [one for one in map(json.loads, out.splitlines()) if not one["named"]]
    assert {later[one["examples"][0]["id"]] for one in groups} == set(new)


def test_the_order_of_alerts_changes_nothing_of_pbn(monkeypatch: pytest.MonkeyPatch):
    from streamad.training import pbn

    monkeypatch.setattr(pbn, "EPOCHS", 3)
    monkeypatch.setattr(
        pbn.choose_settings, "__kwdefaults__", {"grid": pbn.GRID[:1], "folds": 2, "seed": 0}
    )
    rng = np.random.default_rng(0)
    known, unknown = rng.normal(size=(40, 9)), rng.normal(size=(30, 9))
    labels = np.repeat(np.arange(4), 10)
    one, two = rng.permutation(40), rng.permutation(30)
    first = pbn.project(known, labels, unknown)
    second = pbn.project(known[one], labels[one], unknown[two])
    assert np.array_equal(first[0][one], second[0])
    assert np.array_equal(first[1][two], second[1])


def test_without_torch_pbn_is_refused_with_what_to_install(run: Run, tmp_path: Path, monkeypatch):
    write(tmp_path / "a.jsonl", 0, "disk full", "password guessing")
    monkeypatch.setitem(sys.modules, "streamad.training.pbn", None)
    code, out, err = run("groups", "a.jsonl", "--method", "pbn")
    assert (code, out) == (2, "")
    assert "pip install 'streamad-pipeline[train]'" in err


def test_the_label_of_no_group_names_those_there_are(run: Run, tmp_path: Path):
    write(tmp_path / "a.jsonl", 0, "disk full", "password guessing")
    run("groups", "a.jsonl", "--groups", 2)
    before = (tmp_path / "triage.json").read_bytes()
    code, _, err = run("name", "g7", "x")
    assert code == 2
    assert "no proposed group is called 'g7'" in err
    assert (tmp_path / "triage.json").read_bytes() == before


def test_a_key_from_outside_gives_the_terminal_no_order(run: Run, tmp_path: Path):
    write(tmp_path / "a.jsonl", 0, "disk full", "password guessing")
    lines = (tmp_path / "a.jsonl").read_text().replace("disk_used_percent", "disk\\u001b[2J[red]x")
    (tmp_path / "a.jsonl").write_text(lines)
    code, out, _ = run("groups", "a.jsonl")
    assert code == 0
    assert "\x1b[2J" not in out
    assert "[red]x" in out
    code, out, _ = run("show", "--json")
    assert "\x1b" not in out


def test_a_new_file_is_seen_by_the_job_and_a_damaged_one_changes_nothing(run: Run, tmp_path: Path):
    write(tmp_path / "a.jsonl", 0, "disk full", "password guessing")
    run("groups", "a.jsonl", "--groups", 2)
    run("name", "g1", "one")
    telemetry = PrometheusTelemetry(strict=True)
    watch = TriageWatch("triage.json", telemetry)
    watch.look()
    assert watch.take() is None
    run("name", "one", "two")
    watch.look()
    recogniser = watch.take()
    assert recogniser is not None
    assert list(recogniser.names) == ["two"]
    assert watch.take() is None
    for damaged in ("{", None):
        Path("triage.json").unlink()
        if damaged is not None:
            Path("triage.json").write_text(damaged)
        for _ in range(2):
            watch.look()
            assert watch.take() is None
    assert b'triage_reloads_total{result="refused"} 2.0' in telemetry.render()
