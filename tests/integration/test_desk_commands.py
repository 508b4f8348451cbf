"""What people do with alerts, on a broker: follow, list, show, answer, silence; two members."""

from __future__ import annotations

import json
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from connectors.kafka.client import KafkaSettings
from connectors.kafka.writer import write
from connectors.records.cloudevents import encode
from connectors.subscribe import Subscription, subscribe
from jobs import cli
from jobs.plain.loops import alert_loop
from jobs.plain.topics import create_topics
from streamad.config import load_pipeline
from streamad.incidents import Incident
from streamad.ports import Outgoing
from streamad.records import Explanation, Finding


class Site:
    """A pipeline whose findings a test writes, and its alert stage."""

    def __init__(self, bootstrap: str, name: str, file: Path) -> None:
        file.write_text(f"name: {name}\ninput: {{topics: {name}}}\n")
        self.file, self.settings = str(file), KafkaSettings(bootstrap=bootstrap)
        self.config = load_pipeline(file, environment={})
        create_topics(self.config, self.settings)

    def find(self, name: str, key: str, **changes: Any) -> None:
        now_ms = time.time_ns() // 1_000_000
        finding = Finding(
            id=name, sequence=0, state="began", kind="anomaly", pipeline=self.config.name,
            detector="knn", artifact="", tenant="default", group="web", key=key,
            entity={"host": key}, window_start_ms=now_ms, window_end_ms=now_ms, began_ms=now_ms,
            until_ms=now_ms, score=9.0, p_value=1e-6, peak_score=9.0, peak_p_value=1e-6, level=5.0,
            n_windows=1, input={}, explanation=Explanation(
                observed={"cpu": 97.0}, expected={"cpu": 12.0}, variates={"cpu": 1.0},
                time_ms=now_ms,
            ),
        )  # fmt: skip
        event = encode(replace(finding, **changes))
        topic = self.config.topic("findings")
        write(
            self.settings,
            [Outgoing(topic=topic, key=event.key, value=event.value, headers=event.headers)],
        )

    def work(self) -> None:
        """Run the alert stage until there is nothing left to read."""
        loop, kafka = alert_loop(self.config, self.settings, member="m")
        quiet = 0
        try:
            for _ in range(300):
                quiet = 0 if loop.turn() or len(loop.sources) < 2 else quiet + 1
                if quiet > 5:
                    break
            assert len(loop.sources) == 2, "findings and feedback"
            loop.drain()
        finally:
            kafka.close()


@pytest.fixture
def site(kafka, topic, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Site:
    monkeypatch.setenv("KAFKA_BOOTSTRAP_SERVERS", kafka.bootstrap)
    monkeypatch.setenv("USER", "ann")
    return Site(kafka.bootstrap, topic("desk"), tmp_path / "p.yaml")


def run(site: Site, capsys: pytest.CaptureFixture[str], *words: str) -> str:
    group, command, *rest = words
    assert cli.main([group, command, site.file, *rest]) == 0
    return capsys.readouterr().out


def test_a_page_is_followed_shown_answered_and_silenced(site: Site, capsys):
    site.find("e" * 32, "web-1")
    site.work()
    lines = run(site, capsys, "alerts", "tail", "--from", "1h ago", "--no-follow").splitlines()
    assert len(lines) == 2
    assert all("web-1 is 97, expected about 12" in line for line in lines), lines
    (listed,) = map(json.loads, run(site, capsys, "alerts", "list", "--json").splitlines())
    assert listed["paged_ms"] is not None
    given = ["--as", "false-positive", "--comment", "x", "--severity", "info"]
    run(site, capsys, "alerts", "ack", listed["id"][:8], *given)
    run(site, capsys, "alerts", "silence", 'host=~"web-.*"', "--until", "2h", "--name", "release")
    site.find("f" * 32, "web-2", group="db", peak_p_value=1e-9, p_value=1e-9)
    site.work()
    table = run(site, capsys, "alerts", "list")
    assert "withheld: silence: release" in table
    assert "false positive" in table
    shown = run(site, capsys, "alerts", "show", "eeee")
    assert "answered   false_positive ann" in shown
    assert " ann  false positive  x" in shown
    assert "cpu   97        12        100 %" in shown
    (answer,) = map(json.loads, run(site, capsys, "alerts", "answers").splitlines())
    assert (answer["key"], answer["verdict"]) == ("web-1", "false_positive")
    assert (answer["graded"], answer["severity"]) == ("info", listed["severity"])
    assert (answer["strength"], answer["boundary"]) == (listed["strength"], listed["threshold"])
    silences = run(site, capsys, "alerts", "silence")
    assert 'host=~"web-.*"' in silences
    run(site, capsys, "alerts", "silence", "--end", silences.splitlines()[1].split()[0])
    site.work()
    groups = map(json.loads, run(site, capsys, "budget", "show", "--json").splitlines())
    assert {one["group"]: {what: day[what] for day in one["days"].values() for what in day}
            for one in groups} == {
        "web": {"spent": 1, "answered false_positive": 1},
        "db": {"silence: release": 1, "spent": 1},
    }  # fmt: skip
    assert "silence: release" in run(site, capsys, "budget", "show")


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (["ack", "0000000000"], "no incident and no alert"),
        (["ack", "ab"], "at least 4 characters"),
        (["ack", "0000000000", "--as", "fine"], "--as is 'fine'; it must be one of"),
        (["ack", "0000000000", "--severity", "bad"], "a severity is 'bad'; it must be one of info"),
        (["severities"], "at least 10 answers with a severity"),
        (["silence", "a=b"], "a silence has an end"),
        (["silence", "a=b", "--until", "400d"], "at most 90 d away"),
        (["silence", 'a=~"("', "--until", "1h"], "regular expression of RE2"),
        (["silence", "--end", "00000"], "no silence in force"),
        (["tail", "--only", "all"], "--only is 'all'"),
    ],
)
def test_a_wrong_answer_is_refused_before_anything_is_written(site: Site, capsys, words, why):
    assert cli.main(["alerts", words[0], site.file, *words[1:]]) == 2
    assert why in capsys.readouterr().err


def test_a_program_resumes_where_it_was(site: Site):
    for number in range(3):
        site.find(f"{number}" * 32, f"web-{number}", group=f"g{number}")
    site.work()
    topic = f"streamad.{site.config.name}.incidents"
    with Subscription(site.settings, [topic], start="earliest") as first:
        got = first.poll(30)
        at = first.positions
    assert all(isinstance(one.record, Incident) for one in got)
    site.find("9" * 32, "web-9", group="g9")
    site.work()
    with Subscription(site.settings, [topic], start=at) as second:
        more = second.poll(30)
    assert {one.record.leader for one in more} == {"9" * 32}

    group, seen = f"bot-{site.config.name}", []
    for one in subscribe(site.settings, [topic], group=group, start="earliest"):
        seen.append(one.offset)
        if len(seen) == len(got) + len(more):
            break
    # It died with its last batch in hand: that comes again, and nothing is left out.
    again = next(subscribe(site.settings, [topic], group=group, start="earliest"))
    assert again.offset in seen


@pytest.mark.parametrize("words", [["list"], ["tail", "--no-follow"], ["silence"], ["answers"]])
def test_topics_that_are_not_there_are_named(kafka, tmp_path, monkeypatch, capsys, words):
    monkeypatch.setenv("KAFKA_BOOTSTRAP_SERVERS", kafka.bootstrap)
    file = tmp_path / "p.yaml"
    file.write_text("name: nobody\ninput: {topics: nothing}\n")
    assert cli.main(["alerts", words[0], str(file), *words[1:]]) == 2
    assert "there is no topic streamad.nobody." in capsys.readouterr().err
    assert cli.main(["budget", "show", str(file)]) == 2
    assert "there is no topic streamad.nobody.alert-state" in capsys.readouterr().err
