"""The page on pagers is so: its examples are read, its snippet verifies, its settings exist."""

from __future__ import annotations

import re
import time
from pathlib import Path
from typing import get_args

import pytest

from connectors.pagers import make_pager
from connectors.pagers.webhook import sign
from jobs.plain.page import page_topics
from streamad.alerting.config import AlertingConfig
from streamad.alerting.pagers import PagerConfig
from streamad.config import parse_config
from streamad.errors import ConfigError
from streamad.testing.pager_server import SECRET
from tests.docs.make import described
from tests.docs.pagers import EXAMPLES

PAGE = (Path(__file__).resolve().parents[3] / "docs" / "pagers.md").read_text()
SECRETS = dict.fromkeys(("PAGERDUTY_ROUTING_KEY", "WEBHOOK_SECRET", "APPRISE_KEY"), "x" * 32)
KINDS = get_args(get_args(PagerConfig)[0])


def test_every_example_is_a_valid_file_and_makes_a_pager():
    examples = re.findall(r"```yaml\n(.*?)```", PAGE, flags=re.DOTALL)
    assert len(examples) == len(KINDS) == len(EXAMPLES)
    kinds = set()
    for text in examples:
        config = parse_config(text, AlertingConfig, name="page", environment=SECRETS)
        assert "x" * 32 not in repr(config)
        assert "x" * 32 not in config.model_dump_json()
        for pager in config.pagers:
            make_pager(pager).close()
            kinds.add(pager.kind)
    assert len(kinds) == len(KINDS)


def test_every_setting_has_a_line():
    for section in KINDS:
        own = section.__annotations__.keys() & section.model_fields.keys()
        assert described(section).keys() == own


def test_the_snippet_verifies_what_is_sent():
    (text,) = re.findall(r"```python\n(.*?)```", PAGE, flags=re.DOTALL)
    names: dict = {}
    exec(text, names)  # noqa: S102 - our own page
    stamp, body = str(int(time.time())), b'{"a": 1}'
    headers = {
        "webhook-id": "m1",
        "webhook-timestamp": stamp,
        "webhook-signature": sign(SECRET, message_id="m1", timestamp=stamp, body=body),
    }
    assert names["verify"](SECRET, headers, body)
    assert not names["verify"](SECRET, headers, body + b" ")


def test_a_mistake_in_a_pager_is_named_with_its_line_and_without_the_secret():
    text = EXAMPLES["pagerduty"].replace("min_severity", "min_severty")
    with pytest.raises(ConfigError, match=r"page:\d+.*min_severty") as told:
        parse_config(text, AlertingConfig, name="page", environment=SECRETS)
    assert "x" * 32 not in str(told.value)
    text = EXAMPLES["slack"].replace("kind: slack", "kind: slak")
    with pytest.raises(ConfigError, match="slack"):
        parse_config(text, AlertingConfig, name="page", environment=SECRETS)


def test_the_security_page_has_the_topics_of_the_page_job():
    page = (Path(__file__).resolve().parents[3] / "docs" / "security.md").read_text()
    config = AlertingConfig(name="shop", findings=("f",))
    for topic in page_topics(config, 1):
        if not topic.name.endswith(".dlq"):
            assert f"| `{topic.name.replace('shop', '<name>')}`" in page
