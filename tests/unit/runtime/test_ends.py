"""Marks of transactions behind the last record are passed over, once each time it falls quiet."""

from __future__ import annotations

from streamad.ports import Source
from streamad.runtime.ends import Ends

HERE, THERE = Source("in", 0), Source("in", 1)


class Broker:
    def __init__(self, *answers: int | None) -> None:
        self.answers, self.asked = list(answers), []

    def ask(self, source: Source, position: int) -> int | None:
        self.asked.append((source, position))
        return self.answers.pop(0)


def test_it_is_asked_once_a_quiet_spell_and_not_before_it():
    broker = Broker(8, 12)
    ends = Ends(broker.ask, quiet_s=10)
    ends.heard(HERE, 100)
    assert ends.passed(HERE, 7, 109) is None
    assert broker.asked == []
    assert ends.passed(HERE, 7, 110) == 8
    assert ends.passed(HERE, 8, 500) is None
    assert broker.asked == [(HERE, 7)]
    ends.heard(HERE, 600)
    assert ends.passed(HERE, 11, 610) == 12


def test_where_nothing_stands_behind_the_position_nothing_is_passed():
    ends = Ends(Broker(7).ask, quiet_s=10)
    ends.heard(HERE, 0)
    assert ends.passed(HERE, 7, 10) is None


def test_a_broker_that_is_silent_is_asked_again_after_a_while():
    broker = Broker(None, 8)
    ends = Ends(broker.ask, quiet_s=10)
    ends.heard(HERE, 0)
    assert ends.passed(HERE, 7, 10) is None
    assert ends.passed(HERE, 7, 19) is None
    assert len(broker.asked) == 1
    assert ends.passed(HERE, 7, 20) == 8


def test_a_partition_nobody_works_on_is_not_asked_for():
    assert Ends(Broker().ask).passed(THERE, 7, 1e9) is None
