"""Damaged messages of every kind, for as long as a test run allows; `make fuzz` goes further."""

from __future__ import annotations

import sys
import time
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

import bombs
import harness

SECONDS = 2.5
"""Per kind; a run of a few thousand messages."""

FEWEST, FEWEST_ROWS = 500, 100


def few_rows(tally: harness.Tally, kind: str) -> bool:
    return tally.rows <= FEWEST_ROWS and tally.messages[kind] < 4 * FEWEST


@pytest.fixture(autouse=True)
def time_to_spare(monkeypatch):
    """Other tests work beside these and share their caches; `make fuzz` keeps to the limit."""
    monkeypatch.setattr(harness, "MAX_CPU_S", 2.5 * harness.MAX_CPU_S)


@pytest.mark.parametrize("kind", harness.KINDS)
def test_damaged_messages_break_no_promise(kind: str):
    fuzzer = harness.Fuzzer(seed=20260301)
    until_s = time.process_time() + SECONDS
    # On a slow machine longer: what is asserted below needs some messages, and some good rows.
    while (
        time.process_time() < until_s
        or fuzzer.tally.messages[kind] < FEWEST
        or (kind in harness.MAPS and few_rows(fuzzer.tally, kind))
    ):
        fuzzer.batch(kind)
    if kind in harness.MAPS:
        # Neither all good nor all bad: the damage is of the kind that gets far.
        assert fuzzer.tally.rows > FEWEST_ROWS
        assert len(fuzzer.tally.reasons) >= 4


def test_a_run_is_a_matter_of_its_seed():
    tallies = []
    for seed in (1, 1, 2):
        fuzzer = harness.Fuzzer(seed)
        list(fuzzer.run(32, ["json", "prometheus"]))
        tallies.append((fuzzer.tally.rows, fuzzer.tally.bytes_in, fuzzer.tally.reasons))
    assert tallies[0] == tallies[1] != tallies[2]


CORPUS = list(harness.corpus())


@pytest.mark.parametrize(("kind", "text"), [c[1:] for c in CORPUS], ids=[c[0] for c in CORPUS])
def test_what_once_broke_a_promise_keeps_it(kind: str, text: bytes):
    fuzzer = harness.Fuzzer(seed=0)
    for fields in harness.MAPS[kind]:
        fuzzer.check_message(kind, fields, text)


@pytest.mark.parametrize("name", list(bombs.BOMBS))
def test_no_message_takes_minutes_or_gigabytes(name: str):
    kind, make = bombs.BOMBS[name]
    message = make()
    fuzzer = harness.Fuzzer(seed=0)
    for fields in harness.MAPS[kind][:2]:
        decoded = fuzzer.check_message(kind, fields, message)
        assert "oversized" not in {r.reason for r in decoded.rejected} or "arrow" in name


@pytest.mark.parametrize(
    ("name", "what"),
    [
        ("raises", "raised"),
        ("vanishes", "vanished"),
        ("is slow", "took"),
        ("gives more than it got", "rejections"),
    ],
)
def test_the_harness_finds_what_it_is_for(monkeypatch, name: str, what: str):
    whole = harness.codec_of("json", harness.FieldMap()).inner

    class Codec:
        def decode(self, payloads, offsets, broker_ms):
            if name == "raises":
                raise LookupError
            made = whole.decode(payloads, offsets, broker_ms)
            if name == "vanishes":
                made.rejected.clear()
            if name == "is slow":
                monkeypatch.setattr(harness, "MAX_CPU_S", -1)
            if name == "gives more than it got":
                made.rejected.extend(made.rejected * 200)
            return made

    monkeypatch.setattr(harness, "codec_of", lambda *_: Codec())
    with pytest.raises(harness.FoundError, match=what):
        harness.Fuzzer(seed=0).check_message("json", harness.FieldMap(), b"1")
