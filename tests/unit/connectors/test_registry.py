"""A schema registry: what is asked, what is answered, and what a person is shown of it."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import orjson
import pytest

from connectors.memory import MemoryTopics
from connectors.records import cloudevents
from connectors.records.alerts import KafkaAlertRecords, state_topic
from connectors.records.wire import frame_of
from connectors.registry.client import Registry
from connectors.registry.settings import RegistrySettings
from connectors.registry.subjects import frames_by, schema_of_role, subject_of
from jobs import cli
from jobs.plain.frames import frames_of, registry_preflight, subjects_of
from streamad.alerting.config import AlertingConfig
from streamad.config import PipelineConfig
from streamad.errors import ConfigError, SourceUnavailableError
from streamad.incidents import PageRequest
from streamad.testing.registry_server import RegistryServer
from tests.unit.pagers.made import DIGEST, INCIDENT

SECRET = "hunter2-of-the-registry"  # noqa: S105 - of nobody
FRAMED = AlertingConfig.model_validate(
    {"name": "shop", "findings": "f", "output": {"format": "confluent"}}
)
ALERTS, INCIDENTS = "streamad.shop.alerts", "streamad.shop.incidents"


@pytest.fixture
def server() -> Iterator[RegistryServer]:
    with RegistryServer() as made:
        yield made


def settings(server: RegistryServer, **given: Any) -> RegistrySettings:
    return RegistrySettings(**{"urls": (server.url,), "timeout": 1_000, **given})


def env(server: RegistryServer, **given: str) -> dict[str, str]:
    return {"SCHEMA_REGISTRY_URL": server.url, **given}


def test_each_topic_has_a_subject_and_each_schema_an_id(server: RegistryServer):
    frames = frames_of(FRAMED, ["alert"], env(server))
    assert set(server.subjects) == {f"{ALERTS}-value", f"{INCIDENTS}-value"}
    ids = {text: number for number, text in server.by_id.items()}
    assert frames == {
        topic: frame_of(ids[schema_of_role(role)])
        for topic, role in ((ALERTS, "alerts"), (INCIDENTS, "incidents"))
    }
    assert server.problems == []
    assert all(one.body["schemaType"] == "JSON" for one in server.taken)


def test_an_id_is_asked_for_once_and_later_needs_no_registry(server: RegistryServer):
    registry, schema = Registry(settings(server)), schema_of_role("alerts")
    first = registry.register("a-value", schema)
    server.fail("500")
    assert registry.register("a-value", schema) == registry.look_up("a-value", schema) == first
    assert server.attempts == 1


def test_plain_json_asks_no_registry():
    plain = AlertingConfig.model_validate({"name": "shop", "findings": "f"})
    assert frames_of(plain, ["alert"], {}) == {}


def test_a_pipeline_asks_for_what_its_roles_write(server: RegistryServer):
    config = PipelineConfig.model_validate({"name": "p", "output": {"format": "confluent"}})
    assert set(frames_of(config, ["detect"], env(server))) == {"streamad.p.findings"}
    assert set(frames_of(config, ["rekey", "detect", "alert"], env(server))) == {
        "streamad.p.findings", "streamad.p.alerts", "streamad.p.incidents",
    }  # fmt: skip


REQUEST = PageRequest(
    incident="a" * 32, pager="p", key="k", change="open", since_offset=3, name="shop", time_ms=5
)
RECORDS = {"incident": INCIDENT, "digest": DIGEST, "page": REQUEST}


@pytest.mark.parametrize("kind", RECORDS)
def test_every_record_of_the_incidents_topic_fits_its_one_schema(kind: str):
    schema = json.loads(schema_of_role("incidents"))
    validator = jsonschema.Draft7Validator(schema)
    value = orjson.loads(cloudevents.encode(RECORDS[kind]).value)
    validator.validate(value)
    del value[next(iter(value))]
    assert not validator.is_valid(value), "a schema that anything fits is none"


def test_both_dialects_read_our_schemas_alike():
    words: set[str] = set()

    def collect(part: Any) -> None:
        if not isinstance(part, dict):
            return
        words.update(part)
        for word in ("items", "additionalProperties"):
            collect(part.get(word))
        for one in (*part.get("properties", {}).values(), *part.get("oneOf", ())):
            collect(one)
        for one in part.get("anyOf", ()):
            collect(one)

    for role in ("findings", "alerts", "incidents"):
        collect(json.loads(schema_of_role(role)))
    assert words <= {
        "$schema", "title", "description", "type", "properties", "required", "enum", "anyOf",
        "oneOf", "items", "additionalProperties",
    }, "these words mean the same in draft 7 and in 2020-12; look the others up"  # fmt: skip


def test_what_is_written_begins_with_the_frame_of_its_topic(server: RegistryServer):
    frames = frames_of(FRAMED, ["alert"], env(server))
    topics = MemoryTopics()
    topics.make(state_topic(FRAMED))
    records = KafkaAlertRecords(FRAMED, topics, wall_ms=lambda: 0, frames=frames)
    (written,) = records.incidents([INCIDENT], [])
    assert written.value is not None
    assert written.value.startswith(frames[INCIDENTS])
    assert cloudevents.decode(written.value, written.headers) == INCIDENT


@pytest.mark.parametrize(
    ("mode", "error", "why"),
    [
        ("500", SourceUnavailableError, "status 500"),
        ("429", SourceUnavailableError, "status 429"),
        ("hang", SourceUnavailableError, "no answer within 0.3 s"),
        ("drip", SourceUnavailableError, "no answer within 0.3 s"),
        ("garbage", SourceUnavailableError, "127.0.0.1"),
        ("html", ConfigError, "leads to no schema registry"),
        ("redirect", ConfigError, "got a redirect (302), which is not followed"),
        ("401", ConfigError, "see SCHEMA_REGISTRY_BASIC_AUTH_USER_INFO"),
        ("400", ConfigError, "expected an id, got status 400"),
    ],
)
def test_a_registry_that_fails_is_told_from_one_that_refuses(
    server: RegistryServer, mode: Any, error: type[Exception], why: str
):
    server.fail(mode)
    registry = Registry(settings(server, timeout=300))
    with pytest.raises(error) as raised:
        registry.register("a-value", schema_of_role("alerts"))
    assert why in str(raised.value)
    assert "\n" not in str(raised.value)
    server.recover()
    assert registry.register("a-value", schema_of_role("alerts")) in server.by_id


def test_the_next_instance_is_asked_where_one_is_down(server: RegistryServer):
    with RegistryServer() as other:
        other.down()
        registry = Registry(settings(server, urls=(other.url, server.url)))
        assert registry.register("a-value", schema_of_role("alerts")) in server.by_id
        other.up()


def test_a_link_local_address_is_never_asked():
    registry = Registry(RegistrySettings(urls=("http://169.254.169.254:8081",)))
    with pytest.raises(SourceUnavailableError, match="where nothing is sent"):
        registry.register("a-value", schema_of_role("alerts"))


def test_an_incompatible_schema_is_refused_with_what_to_do(server: RegistryServer):
    fewer = {"type": "object", "properties": {"id": {"type": "string"}}}
    old = json.dumps({"$schema": "http://json-schema.org/draft-07/schema#", **fewer})
    for topic in (ALERTS, INCIDENTS):
        Registry(settings(server)).register(subject_of(topic), old)
    with pytest.raises(
        ConfigError, match=r"status 409 .* set the subject's compatibility to FORWARD"
    ):
        frames_of(FRAMED, ["alert"], env(server))
    problems = registry_preflight(FRAMED, env(server))
    assert [one.level for one in problems] == ["error", "error"]
    server.level = "FORWARD"
    assert {one.level for one in registry_preflight(FRAMED, env(server))} == {"error", "warning"}, (
        "an object is no choice of three"
    )


def test_a_schema_that_is_none_is_refused(server: RegistryServer):
    with pytest.raises(ConfigError, match=r"status 422 \(Invalid schema\)"):
        Registry(settings(server)).register("a-value", '{"type": 7}')


def test_schemas_that_must_be_there_already_are_looked_up(server: RegistryServer, tmp_path, capsys):
    given = {"format": "confluent", "register_schemas": False}
    config = FRAMED.model_copy(update={"output": FRAMED.output.model_copy(update=given)})
    with pytest.raises(ConfigError, match="streamad topics schemas FILE --register"):
        frames_of(config, ["alert"], env(server))
    assert {one.level for one in registry_preflight(config, env(server))} == {"error"}
    assert not server.subjects, "looking changes nothing"
    for one in subjects_of(config):
        Registry(settings(server)).register(one.name, one.schema)
    assert frames_of(config, ["alert"], env(server)) == frames_of(FRAMED, ["alert"], env(server))
    assert registry_preflight(config, env(server)) == []


def test_the_command_prints_and_registers_schemas(
    server: RegistryServer, tmp_path: Path, capsys, monkeypatch
):
    file = tmp_path / "alerting.yaml"
    file.write_text("name: shop\nfindings: f\noutput: {format: confluent}\n")
    assert cli.main(["topics", "schemas", str(file)]) == 0
    printed = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [one["subject"] for one in printed] == [f"{ALERTS}-value", f"{INCIDENTS}-value"]
    assert not server.attempts
    assert cli.main(["topics", "schemas", str(file), "--register"]) == 2
    assert "set SCHEMA_REGISTRY_URL" in capsys.readouterr().err
    monkeypatch.setenv("SCHEMA_REGISTRY_URL", server.url)
    assert cli.main(["topics", "schemas", str(file), "--register"]) == 0
    made = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [one["id"] for one in made] == list(server.by_id)
    assert [one["schema"] for one in made] == [one["schema"] for one in printed]


# ------------------------------------------------------------------ secrets


@pytest.mark.parametrize(
    "given",
    [
        {"SCHEMA_REGISTRY_BASIC_AUTH_USER_INFO": f"ann:{SECRET}"},
        {"SCHEMA_REGISTRY_BEARER_TOKEN": SECRET},
        {"SCHEMA_REGISTRY_BEARER_TOKEN_FILE": "token"},
    ],
)
def test_credentials_are_sent_and_shown_nowhere(tmp_path: Path, caplog, given: dict[str, str]):
    (tmp_path / "token").write_text(f"{SECRET}\n")
    given = {n: str(tmp_path / v) if n.endswith("_FILE") else v for n, v in given.items()}
    wanted = "Basic YW5uOmh1bnRlcjItb2YtdGhlLXJlZ2lzdHJ5"
    wanted = wanted if "BASIC" in next(iter(given)) else f"Bearer {SECRET}"
    with RegistryServer(authorization=wanted) as server, caplog.at_level(logging.DEBUG):
        read = RegistrySettings.from_environment(env(server, **given))
        assert frames_by(Registry(read), {ALERTS: "alerts"}, register=True)
        server.authorization = "another"
        with pytest.raises(ConfigError) as raised:
            Registry(read).register("b-value", schema_of_role("alerts"))
        shown = f"{read!r} {raised.value} {caplog.text}"
    assert SECRET not in shown
    assert wanted.rpartition(" ")[2] not in shown


def test_an_answer_that_repeats_a_secret_does_not_bring_it_into_the_error(server, monkeypatch):
    def repeats(*_: Any) -> tuple[int, Any]:
        return 403, {"message": f"user ann with {SECRET}\x1b[2J is not allowed"}

    monkeypatch.setattr(server, "_work_off", repeats)
    with pytest.raises(ConfigError) as raised:
        Registry(settings(server, user_info=f"ann:{SECRET}")).register("a-value", "{}")
    assert SECRET not in str(raised.value)
    assert "\x1b" not in str(raised.value)
    assert "is not allowed" in str(raised.value)


@pytest.mark.parametrize(
    ("given", "why"),
    [
        ({}, "set SCHEMA_REGISTRY_URL"),
        ({"SCHEMA_REGISTRY_URL": " , "}, "set SCHEMA_REGISTRY_URL"),
        ({"SCHEMA_REGISTRY_URL": "registry:8081"}, "begins with https:// or http://"),
        ({"SCHEMA_REGISTRY_URL": "file:///etc/passwd"}, "begins with https:// or http://"),
        ({"SCHEMA_REGISTRY_URL": f"https://ann:{SECRET}@r"}, "credentials go into"),
        ({"SCHEMA_REGISTRY_URL": f"https://r?token={SECRET}"}, "must not hold a secret"),
        (
            {
                "SCHEMA_REGISTRY_URL": "http://registry:8081",
                "SCHEMA_REGISTRY_BEARER_TOKEN": SECRET,
            },
            "would be sent over plain HTTP",
        ),
        (
            {
                "SCHEMA_REGISTRY_URL": "https://r",
                "SCHEMA_REGISTRY_BEARER_TOKEN": SECRET,
                "SCHEMA_REGISTRY_BASIC_AUTH_USER_INFO": f"a:{SECRET}",
            },
            "expected one of them",
        ),
        (
            {
                "SCHEMA_REGISTRY_URL": "https://r",
                "SCHEMA_REGISTRY_BASIC_AUTH_USER_INFO": SECRET,
            },
            "expected user:password",
        ),
        (
            {
                "SCHEMA_REGISTRY_URL": "https://r",
                "SCHEMA_REGISTRY_BEARER_TOKEN": f"{SECRET}\r\nX: y",
            },
            "control characters",
        ),
        (
            {"SCHEMA_REGISTRY_URL": "https://r", "SCHEMA_REGISTRY_BEARER_TOKEN_FILE": "/none"},
            "SCHEMA_REGISTRY_BEARER_TOKEN_FILE cannot be read",
        ),
    ],
)
def test_wrong_settings_are_refused_in_a_line_without_the_secret(given: dict[str, str], why: str):
    with pytest.raises(ConfigError) as raised:
        RegistrySettings.from_environment(given)
    assert why in str(raised.value)
    assert SECRET not in str(raised.value)
    assert "\n" not in str(raised.value)


def test_a_registry_without_credentials_may_speak_plain_http():
    read = RegistrySettings.from_environment({"SCHEMA_REGISTRY_URL": "http://a:1/, http://b:2"})
    assert read.urls == ("http://a:1", "http://b:2")
    allowed = {"SCHEMA_REGISTRY_BEARER_TOKEN": SECRET, "SCHEMA_REGISTRY_ALLOW_HTTP": "true"}
    assert RegistrySettings.from_environment({"SCHEMA_REGISTRY_URL": "http://a:1", **allowed})


@pytest.mark.parametrize("found", [None, "7", -1, 2**31, True, 1.5])
def test_an_id_that_is_none_is_refused(server, monkeypatch, found: Any):
    monkeypatch.setattr(server, "_work_off", lambda *_: (200, {"id": found}))
    with pytest.raises(ConfigError, match=r"expected .*id.*NUMBER"):
        Registry(settings(server)).register("a-value", "{}")
