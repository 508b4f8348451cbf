"""What is wrong on a cluster before anything is read, by what the cluster says of its topics."""

from __future__ import annotations

from typing import Any

import pytest

from connectors.kafka.client import KafkaSettings
from jobs.plain import preflight as looked
from streamad.alerting.config import AlertingConfig

PAGER = {"name": "p", "kind": "webhook", "url": "https://h/", "secret": "x" * 16}
CONFIG = AlertingConfig.model_validate({"name": "shop", "findings": "f", "pagers": [PAGER]})


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> tuple[dict[str, int], dict[str, dict[str, str]]]:
    counts: dict[str, int] = {"f": 4}
    configs: dict[str, dict[str, str]] = {}
    monkeypatch.setattr(looked, "partition_counts", lambda settings: counts)

    def given(settings: Any, topics: Any) -> dict[str, dict[str, str]]:
        return {topic: configs.get(topic, {}) for topic in topics}

    monkeypatch.setattr(looked, "topic_configs", given)
    return counts, configs


def told(problems: list[looked.Problem]) -> str:
    return "\n".join(f"{one.level}: {one.text}" for one in problems)


@pytest.mark.parametrize(("number", "warned"), [(4, False), (1, True), (8, True)])
def test_feedback_needs_the_partitions_of_the_findings(cluster, number, warned):
    cluster[0]["streamad.shop.feedback"] = number
    text = told(looked.preflight(CONFIG, KafkaSettings()))
    assert ("warning: streamad.shop.feedback has" in text) is warned
    assert ("make the topic again with 4" in text) is warned


def test_topics_of_the_page_role_are_looked_at_where_there_are_pagers(cluster):
    counts, configs = cluster
    text = told(looked.page_preflight(CONFIG, KafkaSettings()))
    assert "warning: topic streamad.shop.page-state is missing" in text
    assert "warning: topic streamad.shop.incidents.dlq is missing" in text
    counts |= {"streamad.shop.page-state": 1, "streamad.shop.incidents.dlq": 1}
    configs["streamad.shop.page-state"] = {"cleanup.policy": "delete"}
    configs["streamad.shop.incidents.dlq"] = {"max.message.bytes": "1000"}
    text = told(looked.page_preflight(CONFIG, KafkaSettings()))
    assert "error: streamad.shop.page-state must be compacted" in text
    assert "error: streamad.shop.incidents.dlq takes records of at most 1000 bytes" in text
    none = CONFIG.model_copy(update={"pagers": ()})
    assert looked.page_preflight(none, KafkaSettings()) == []
