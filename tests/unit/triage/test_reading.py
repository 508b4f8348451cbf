"""Alerts out of their topic: what else is there is left out."""

from __future__ import annotations

import numpy as np
import pytest

from connectors.memory import MemoryTopics
from connectors.records import cloudevents
from jobs.triage.reading import alerts_of
from streamad.errors import ConfigError
from streamad.ports import Outgoing
from streamad.testing.alert_classes import TROUBLES, make_alerts


def test_a_topic_is_read_whole_and_what_is_no_alert_is_left_out():
    alerts = make_alerts(TROUBLES[0], 12, rng=np.random.default_rng(0))
    topics = MemoryTopics(partitions=3)
    for alert in alerts:
        event = cloudevents.encode(alert)
        topics.write(Outgoing(topic="t", key=event.key, value=event.value, headers=event.headers))
        topics.write(Outgoing(topic="t", key=event.key, value=None, headers=event.headers))
        topics.write(Outgoing(topic="t", key=b"x", value=b"{", headers=event.headers))
    found = list(alerts_of(topics, "t", since_ms=None))
    assert sorted(one.id for one in found) == sorted(one.id for one in alerts)
    assert {one.id: one for one in found} == {one.id: one for one in alerts}


def test_a_topic_that_is_not_there_is_named():
    with pytest.raises(ConfigError, match=r"there is no topic streamad\.x\.alerts on this cluster"):
        list(alerts_of(MemoryTopics(), "streamad.x.alerts", since_ms=None))
