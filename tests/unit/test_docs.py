"""What the documents say is so: pages are current, commands run, examples work, names exist."""

from __future__ import annotations

import re
import runpy
import shlex
import shutil
import socket
import subprocess
import sys
import tomllib
from dataclasses import fields
from pathlib import Path
from typing import Any

import orjson
import pytest
from typer.main import get_command

from connectors.kafka.client import _NUMBERS, _TEXTS, KafkaSettings
from connectors.telemetry import METRICS, PREFIX
from jobs.cli import app, main
from jobs.flink import run as flink_run
from jobs.plain.loops import group_of
from jobs.plain.topics import output_topics
from streamad.alerting.assets import Assets
from streamad.alerting.config import AlertingConfig
from streamad.artifact_files import PROTOCOLS
from streamad.config import PipelineConfig, parse_config, parse_pipeline
from streamad.records import Alert, Finding
from streamad.testing.checks import yield_detector_checks
from tests.docs.alerts import FIELDS, example
from tests.docs.cli import spoken
from tests.docs.make import _sections, described, files

ROOT = Path(__file__).resolve().parents[2]
README = ROOT / "README.md"
PAGES = [README, *sorted((ROOT / "docs").glob("*.md")), *sorted((ROOT / "docs/adr").glob("*.md"))]
names = [path.relative_to(ROOT).as_posix() for path in PAGES]
ROOMS = "input|series|windows|detector|scoring|alerts|delivery|flink|output"
# Kafka's own, or of the process itself.
OTHER_VARIABLES = {"KAFKA_SSL_CHECK_HOSTNAME"}


def blocks(path: Path, language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", path.read_text(), flags=re.DOTALL)


@pytest.fixture(scope="module")
def made() -> dict[Path, str]:
    return files()


@pytest.mark.parametrize(
    "name",
    [
        "README.md",
        "docs/asyncapi.yaml",
        *(
            f"docs/{n}.md"
            for n in ("alerts", "cli", "detectors", "flink", "metrics", "pagers", "pipeline")
        ),
    ],
)
def test_a_generated_page_is_what_it_is_made_from(made, name):
    assert (ROOT / name).read_text() == made[ROOT / name], "run `make docs`"


def test_every_setting_says_what_it_does():
    for path, section in _sections():
        missing = section.model_fields.keys() - described(section).keys()
        assert not missing, f"{path}: give {sorted(missing)} a line below its declaration"


def test_every_field_of_findings_and_alerts_is_described_and_shown():
    declared = {field.name for kind in (Finding, Alert) for field in fields(kind)}
    assert FIELDS.keys() == declared
    findings, alerts = example()
    assert [finding.state for finding in findings] == ["began", "ended"]
    assert [alert.state for alert in alerts] == ["opened", "resolved"]


@pytest.mark.parametrize("path", PAGES, ids=names)
def test_every_command_exists_with_its_options(path):
    for line in spoken(path.read_text()):
        words = shlex.split(line)[1:]
        command = get_command(app)
        while hasattr(command, "commands"):
            assert words, f"{line}: names no command"
            assert words[0] in command.commands, f"{line}: no such command"
            command = command.commands[words.pop(0)]
        # Raises where an option or an argument is wrong; runs nothing.
        command.make_context(line, words)


@pytest.mark.parametrize("path", PAGES, ids=names)
def test_every_link_leads_somewhere(path):
    for target in re.findall(r"\]\(([^)#\s]+)", path.read_text()):
        if "://" not in target:
            assert (path.parent / target).exists(), f"{path.name} links to {target}"


@pytest.mark.parametrize("path", PAGES, ids=names)
def test_every_setting_metric_and_variable_named_exists(path):
    text = path.read_text()
    for dotted in set(re.findall(rf"`((?:{ROOMS})\.[a-z_.]+?)(?::[^`]*)?`", text)):
        section = PipelineConfig
        for part in dotted.split("."):
            assert part in getattr(section, "model_fields", {}), f"{path.name}: no setting {dotted}"
            section = section.model_fields[part].annotation
    rooms = "|".join({name.partition("_")[0] for name in METRICS})
    for metric in set(re.findall(rf"\b{PREFIX}((?:{rooms})(?:_[a-z]+)*)\b", text)):
        base = re.sub(r"_(bucket|count|sum)$", "", metric)
        assert {metric, base} & METRICS.keys(), f"{path.name}: no metric {PREFIX}{metric}"
    for variable in set(re.findall(r"\bKAFKA_[A-Z_]+", text)):
        known = _TEXTS.keys() | _NUMBERS.keys() | OTHER_VARIABLES
        if not variable.endswith("_"):
            assert variable.removesuffix("_FILE") in known or variable in known, variable


@pytest.mark.parametrize("path", [README, ROOT / "docs/add-a-detector.md"], ids=lambda p: p.name)
def test_every_pipeline_shown_is_valid(path):
    for text in blocks(path, "yaml"):
        parse_pipeline(text, name=path.name)


def test_the_page_on_silences_shows_files_and_programs_that_run():
    page = ROOT / "docs" / "silences-and-feedback.md"
    (text,) = blocks(page, "yaml")
    config = parse_config(text, AlertingConfig, name=page.name)
    assert len(config.silences) == 3
    (program,) = blocks(page, "python")
    made: dict[str, Any] = {"__name__": "bot"}
    exec(compile(program, page.name, "exec"), made)  # noqa: S102 - our own page
    for topic in re.findall(r'"(streamad\.checkout\.[a-z]+)"', program):
        assert topic == config.topic("incidents")


def test_the_page_on_budgets_shows_a_file_that_is_valid():
    page = ROOT / "docs" / "page-budget.md"
    (text,) = blocks(page, "yaml")
    config = parse_config(text, AlertingConfig, name=page.name)
    assert (config.budget.of("web"), config.budget.of("payments")) == (10.0, 3.0)


def test_the_page_on_alerts_shows_assets_that_weigh_as_it_reads():
    page = ROOT / "docs" / "alerts.md"
    (text,) = blocks(page, "yaml")
    config = parse_config(text, AlertingConfig, name=page.name)
    assets = Assets(config.assets)
    known = [{"service": "checkout", "key": "a"}, {"key": "test-1"}, {"key": "prod-1"}]
    assert [assets.weight_of(one) for one in known] == [4.0, 0.1, 1.0]


def test_the_readme_is_short_and_opens_with_what_it_is():
    lines = README.read_text().splitlines()
    assert len(lines) <= 175
    assert lines[0] == "# streamad"
    assert lines[2].startswith("streamad watches Kafka topics")


# Not to be run here: they want a broker or a minute. `make` targets are CI's.
NOT_RUN = ("streamad run", "streamad flink", "streamad explain", "streamad demo")


def test_the_commands_of_the_readme_run(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    shutil.copytree(ROOT / "docs/sample", tmp_path / "docs/sample")
    run = [line for line in spoken(README.read_text()) if not line.startswith(NOT_RUN)]
    assert len(run) >= 5
    for line in run:
        code = main(shlex.split(line)[1:])
        assert code == 0, f"{line}: {capsys.readouterr().err}"
    assert (tmp_path / "scores.csv").exists()
    assert (tmp_path / "models/hosts/manifest.json").exists()
    alerts = [orjson.loads(line) for line in (tmp_path / "alerts.jsonl").read_bytes().splitlines()]
    assert {one["key"] for one in alerts} == {"web-1/cpu", "web-2/requests"}


def test_the_sample_is_what_its_script_makes(tmp_path, monkeypatch):
    script = ROOT / "docs/sample/make.py"
    made = runpy.run_path(str(script))
    monkeypatch.setitem(made["main"].__globals__, "FILE", tmp_path / "hosts.csv")
    made["main"]()
    assert (tmp_path / "hosts.csv").read_bytes() == script.with_name("hosts.csv").read_bytes()


def test_the_python_of_the_readme_raises_an_alert_and_ends_it(tmp_path):
    (script,) = blocks(README, "python")
    (tmp_path / "embedded.py").write_text(script)
    told = subprocess.run(
        [sys.executable, "embedded.py"], cwd=tmp_path, check=True, capture_output=True, text=True
    )
    states = [line.split()[0] for line in told.stdout.splitlines()]
    assert states == ["opened", "resolved"]


def test_the_sample_that_watches_this_machine_feeds_both_pipelines():
    watch = runpy.run_path(str(ROOT / "docs/sample/watch_host.py"))
    busy = subprocess.Popen(["sh", "-c", "while :; do sleep 0.2; done"])
    with (
        socket.create_server(("127.0.0.1", 0)) as server,
        socket.create_connection(server.getsockname()),
    ):
        read = watch["main"](readings=10)
    busy.kill()
    busy.wait()
    assert 1 <= read[0].offset <= 10, "a reading in which nothing started is no message"
    for one in read:
        assert one.counts["windows"] == one.counts["points"] > 0, one.config.name


DETECTOR = ROOT / "docs" / "add-a-detector.md"


@pytest.fixture(scope="module")
def jump():
    code, test = blocks(DETECTOR, "python")
    compile(test, "test_jump.py", "exec")
    made: dict[str, object] = {"__name__": "my_package.jump"}
    exec(compile(code, "jump.py", "exec"), made)  # noqa: S102 - our own page
    return made["Jump"]


def test_the_detector_of_the_page_keeps_the_contract(jump):
    checks = list(yield_detector_checks(jump))
    assert len(checks) >= 17
    for check in checks:
        check(jump)


def test_the_entry_point_of_the_page_is_in_the_group_that_is_read():
    (text,) = blocks(DETECTOR, "toml")
    points = tomllib.loads(text)["project"]["entry-points"]
    assert points == {"streamad.detectors": {"jump": "my_package.jump:Jump"}}


# ---------------------------------------------------------------------- security.md


def test_the_security_page_speaks_of_every_topic_and_every_store():
    page = (ROOT / "docs" / "security.md").read_text()
    config = parse_pipeline(
        "name: shop\ninput: {topics: metrics, repartition: true}\nseries: {late: topic}\n"
    )
    for topic in output_topics(config, partitions=1):
        name = topic.name.replace("shop", "<name>").replace("metrics", "<topic>")
        shown = re.sub(r"^streamad\.<name>\..*\.(dlq|late)$", r"<topic>.\1", name)
        assert f"| `{shown}`" in page, topic.name
    for protocol in PROTOCOLS:
        assert f"`{protocol}`" in page


def test_the_access_rules_cover_every_topic_of_the_job():
    rules = "".join(blocks(ROOT / "docs" / "security.md", "sh"))
    config = parse_pipeline("name: shop\ninput: {topics: metrics}\n")
    allowed = re.findall(r"streamad-shop [^#]*?--topic (\S+)", rules)
    for topic in output_topics(config, partitions=1):
        assert any(
            topic.name == one or (one.endswith(".") and topic.name.startswith(one))
            for one in allowed
        ), topic.name
    for role in ("detect", "alert", "rekey"):
        assert group_of(config, role).startswith("streamad.shop.")


def test_flink_inside_the_command_listens_on_loopback_only(monkeypatch):
    given = {}

    def submit(*_, options, **__):
        given.update(options)
        raise KeyboardInterrupt

    monkeypatch.setattr(flink_run, "_submit", submit)
    with pytest.raises(KeyboardInterrupt):
        flink_run.run_here(parse_pipeline("name: a\n"), KafkaSettings(), stop=lambda: True)
    assert given["rest.bind-address"] == given["rest.address"] == "127.0.0.1"
