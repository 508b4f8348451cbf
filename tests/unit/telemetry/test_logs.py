"""Logs: one JSON line an event, and nothing in it that must not leave the process."""

from __future__ import annotations

import io
import json
import logging

import pytest

from jobs.logs import (
    HIDDEN,
    MAX_REMEMBERED,
    REPEAT_WINDOW_S,
    REPEATS,
    RepeatLimit,
    redacted,
    secrets_of,
    setup_logs,
)
from streamad.ports import Source


@pytest.fixture
def logged():
    """Set logs up into a buffer, and leave the process as it was."""
    root = logging.getLogger()
    names = ("streamad", "connectors", "jobs")
    before = root.handlers[:], root.level, [logging.getLogger(name).level for name in names]
    stream = io.StringIO()

    def start(log_format="json", **settings):
        setup_logs(log_format, stream=stream, **settings)
        return logging.getLogger("jobs.plain.run"), stream

    yield start
    root.handlers[:], root.level = before[0], before[1]
    for name, level in zip(names, before[2], strict=True):
        logging.getLogger(name).setLevel(level)


def lines(stream):
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def test_a_line_is_one_json_object_with_time_level_logger_message_and_fields(logged):
    logger, stream = logged()
    logger.warning("source unavailable", extra={"topic": "cpu", "retry_in_s": 2.5})
    (line,) = lines(stream)
    assert line.pop("ts").endswith("Z")
    assert line == {
        "level": "warning",
        "logger": "jobs.plain.run",
        "msg": "source unavailable",
        "topic": "cpu",
        "retry_in_s": 2.5,
    }


def test_an_exception_stays_on_its_line(logged):
    logger, stream = logged()
    logger.error("commit failed", exc_info=ValueError("line one\nline two"))
    (line,) = lines(stream)
    assert line["error"] == "ValueError: line one\nline two"
    assert line["trace"].startswith("ValueError: line one")


def test_secrets_are_hidden_by_value_by_field_and_by_shape(logged):
    environment = {"KAFKA_SASL_PASSWORD": "hunter22", "KAFKA_SASL_MECHANISM": "PLAIN"}
    logger, stream = logged(secrets=secrets_of(environment))
    logger.warning(
        "login of %s failed",
        "hunter22",
        extra={
            "sasl_plain_password": "x",
            "settings": {"url": "https://ann:s3cret@host/x", "routing_key": "abc"},
            "headers": ["Bearer abcdefgh12345"],
            "mechanism": "PLAIN",
        },
    )
    text = stream.getvalue()
    assert not any(secret in text for secret in ("hunter22", "s3cret", "abcdefgh12345", '"abc"'))
    (line,) = lines(stream)
    assert line["msg"] == f"login of {HIDDEN} failed"
    assert line["settings"] == {"url": f"https://{HIDDEN}@host/x", "routing_key": HIDDEN}
    assert line["mechanism"] == "PLAIN"


def test_a_secret_in_a_traceback_is_hidden(logged):
    logger, stream = logged(secrets=["hunter22"])
    logger.error("no", exc_info=RuntimeError("refused: hunter22"))
    assert "hunter22" not in stream.getvalue()


def test_raw_values_are_shown_at_debug_only(logged):
    logger, stream = logged(level="info")
    logger.info("rejected", extra={"payload": b"card 4111", "offset": 7})
    assert "4111" not in stream.getvalue()
    logger, stream = logged(level="debug")
    logger.info("rejected once more", extra={"payload": b"card 4111"})
    assert "4111" in stream.getvalue()


def test_a_repeated_line_is_limited_and_then_counted():
    now = [0.0]
    limit = RepeatLimit(clock=lambda: now[0])

    def passes(text):
        record = logging.LogRecord("jobs", logging.WARNING, "", 0, text, None, None)
        return limit.filter(record), getattr(record, "left_out", 0)

    assert [passes("broker away")[0] for _ in range(20)] == [True] * REPEATS + [False] * 15
    assert passes("something else") == (True, 0)
    now[0] = REPEAT_WINDOW_S
    assert passes("broker away") == (True, 15)
    assert passes("broker away") == (True, 0)


def test_messages_about_other_partitions_are_not_repeats():
    limit = RepeatLimit()

    def passes(partition):
        about = (Source("metrics", partition), 7)
        record = logging.LogRecord("jobs", logging.INFO, "", 0, "%s: %d keys", about, None)
        return limit.filter(record)

    assert all(passes(partition) for partition in range(48))
    assert [passes(3) for _ in range(REPEATS)] == [True] * (REPEATS - 1) + [False]


def test_what_is_remembered_of_repeats_is_bounded():
    limit = RepeatLimit()
    for number in range(2 * MAX_REMEMBERED):
        limit.filter(logging.LogRecord("jobs", logging.INFO, "", 0, f"event {number}", None, None))
    assert len(limit._seen) == MAX_REMEMBERED


def test_the_text_format_is_for_eyes(logged):
    logger, stream = logged("text")
    logger.info("began", extra={"topic": "cpu"})
    assert stream.getvalue().endswith(" info    began topic=cpu\n")


def test_other_packages_are_heard_from_warning_on(logged):
    _, stream = logged()
    logging.getLogger("kafka.conn").info("chatter")
    logging.getLogger("kafka.conn").warning("gone")
    assert [line["msg"] for line in lines(stream)] == ["gone"]


def test_a_tree_of_settings_can_be_shown():
    shown = redacted({"url": "http://h", "auth": {"api_key": "k", "tries": 3}, "on": True})
    assert shown == {"url": "http://h", "auth": {"api_key": HIDDEN, "tries": 3}, "on": True}


def test_a_secret_in_a_file_is_hidden_as_well(logged, tmp_path):
    (tmp_path / "password").write_text("hunter22\n")
    environment = {
        "KAFKA_SASL_PASSWORD_FILE": str(tmp_path / "password"),
        "KAFKA_SASL_TOKEN_FILE": str(tmp_path / "absent"),
    }
    logger, stream = logged(secrets=secrets_of(environment))
    logger.warning("login with hunter22 failed at https://host/x?sig=abcd")
    assert lines(stream)[0]["msg"] == "login with *** failed at https://host/x?***"


@pytest.mark.parametrize("log_format", ["json", "text"])
def test_a_key_cannot_give_orders_to_the_terminal_of_a_reader(logged, log_format):
    logger, stream = logged(log_format)
    key = "web\x1b[2J\x9b1m\u202e\nERROR forged\ud800"
    logger.warning("key %s", key, extra={"key": key})
    text = stream.getvalue()
    assert text.count("\n") == 1
    assert not any(char in text for char in "\x1b\x9b\u202e")
    assert "forged" in text
