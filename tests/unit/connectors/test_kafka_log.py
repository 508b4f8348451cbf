"""A broker that goes away: whatever is asked of its log, the answer is one the runtime retries."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NoReturn

import pytest
from kafka.errors import KafkaConnectionError

import connectors.kafka.log as module
from connectors.kafka.client import KafkaSettings
from connectors.kafka.log import KafkaLog
from streamad.errors import SourceUnavailableError
from streamad.ports import Source

SOURCE = Source("in", 0)
ASKED: dict[str, Callable[[KafkaLog], object]] = {
    "bounds": lambda log: log.bounds("in"),
    "offset_at": lambda log: log.offset_at(SOURCE, 0),
    "committed": lambda log: log.committed(SOURCE),
    "progress": lambda log: log.progress(SOURCE),
    "read": lambda log: next(log.read(SOURCE, 0, 1)),
}


class Away:
    """A client whose broker was there when it was made."""

    def __init__(self, *_: Any, **__: Any) -> None: ...

    def __getattr__(self, name: str) -> Callable[..., NoReturn]:
        def ask(*_: Any, **__: Any) -> NoReturn:
            raise KafkaConnectionError(name)

        return ask


def test_everything_that_can_be_asked_is_asked_here():
    assert set(ASKED) == {name for name in vars(KafkaLog) if name[0] != "_"} - {"close"}


@pytest.mark.parametrize("name", ASKED)
def test_a_broker_that_is_away_is_told_as_such(name: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(module, "KafkaConsumer", Away)
    monkeypatch.setattr(module, "reader", Away)
    log = KafkaLog(KafkaSettings(), group="g")
    with pytest.raises(SourceUnavailableError, match="Kafka cannot be read now"):
        ASKED[name](log)
