"""Silences of Alertmanager: which are about us, what becomes of them, and when they are over."""

from __future__ import annotations

import json
import threading

import pytest

from connectors.kafka.client import KafkaSettings
from connectors.pagers.alertmanager_silences import ABSENCES, MAX_SILENCES, AlertmanagerSilences
from connectors.pagers.base import Answer
from connectors.pagers.secrets import Secrets
from jobs.plain import page
from streamad.alerting.config import AlertingConfig
from streamad.incidents import ALL_TENANTS, Feedback, Silence

NOW = 1_772_400_000_000  # 2026-03-01 21:20:00 UTC
INCIDENT = "0123456789abcdef0123456789abcdef"


def matcher(name, value, *, regex=False, equal=True):
    return {"name": name, "value": value, "isRegex": regex, "isEqual": equal}


def given(name="s1", *matchers, state="active", ends="2026-03-01T23:00:00.000Z", updated="20:00"):
    return {
        "id": name, "status": {"state": state}, "updatedAt": f"2026-03-01T{updated}:00.123456789Z",
        "startsAt": "2026-03-01T20:00:00.000Z", "endsAt": ends, "createdBy": "ann",
        "comment": "new kernel", "matchers": list(matchers) or [matcher("group", "payments")],
    }  # fmt: skip


def answer(*silences):
    return Answer(status=200, body=json.dumps(silences).encode())


class Reader:
    """Replicas that answer what a test says, and all that was written."""

    def __init__(self, pager="am"):
        tree = {
            "name": pager, "kind": "alertmanager", "urls": ["http://a", "http://b"],
            "labels": {"team": "x"},
        }  # fmt: skip
        config = AlertingConfig.model_validate({"name": "shop", "findings": "f", "pagers": [tree]})
        (one,) = config.pagers
        self.silences = AlertmanagerSilences(one, Secrets(one), name="shop")
        self.written = []

    def turn(self, *answers, alerts=(), now_ms=NOW):
        found, complete, self.failure = self.silences.silences(answers)
        self.asks = self.silences.asks_for_alerts(found)
        taken = self.silences.take(found, alerts, complete=complete, now_ms=now_ms)
        self.silences.keep(taken)
        self.written += taken
        return taken


@pytest.fixture
def reader():
    return Reader()


def test_a_silence_is_taken_once_with_the_matchers_of_the_desk(reader):
    one = given(
        "s1", matcher("alertname", "Streamad.*", regex=True), matcher("team", "x"),
        matcher("severity", "critical", equal=False), matcher("tenant", "acme"),
        matcher("entity_host", 'web-"1"\\d', regex=True), matcher("streamad", "shop"),
    )  # fmt: skip
    (made,) = reader.turn(answer(one), answer(one))
    assert isinstance(made, Silence)
    assert made.matchers == ('severity!="critical"', 'entity_host=~"web-\\"1\\"\\\\d"')
    assert (made.tenant, made.by) == ("acme", "ann (Alertmanager)")
    assert made.name == "Alertmanager: new kernel"
    assert made.ends_ms - made.starts_ms == 3 * 3_600_000
    assert reader.turn(answer(one)) == []
    # A process that starts has what was written from the topic.
    after = Reader()
    after.silences.keep(reader.written)
    assert after.turn(answer(one)) == []


@pytest.mark.parametrize(
    "about",
    [
        matcher("alertname", "NodeDown"),
        matcher("streamad", "other"),
        matcher("team", "y"),
        matcher("job", "node"),
        matcher("severity|team", "x"),
        matcher("group", "(?=a)", regex=True),
        {"name": "group"},
        None,
    ],
)
def test_silences_of_others_and_unreadable_ones_are_passed_over(reader, about):
    both = [matcher("group", "payments"), about]
    assert reader.turn(answer(given("s1", *both))) == []
    assert reader.failure == ""


def test_a_silence_without_labels_of_ours_is_about_all_that_it_mutes(reader):
    (made,) = reader.turn(answer(given("s1", matcher("job", "node", equal=False))))
    assert (made.matchers, made.tenant) == ((), ALL_TENANTS)


@pytest.mark.parametrize(
    "about", [matcher("tenant", "a|b", regex=True), matcher("incident", "x", equal=False)]
)
def test_what_the_desk_cannot_match_is_left_out_and_never_widened(reader, about, caplog):
    for _ in range(2):
        assert reader.turn(answer(given("s1", about))) == []
        assert reader.silences.n_left_out == 1
    assert caplog.text.count("is not taken") == 1


def test_a_silence_ends_when_it_is_expired_or_replicas_have_lost_it(reader):
    silences = [given(f"s{n}") for n in range(3)]
    assert len(reader.turn(answer(*silences))) == 3
    expired = given("s0", state="expired", ends="2026-03-01T21:00:00.000Z", updated="21:00")
    (over,) = reader.turn(answer(expired, silences[1]), answer(*silences))
    assert over.id == reader.written[0].id
    assert over.ends_ms <= NOW
    # s2 is missing: a replica that is away may have it.
    for _ in range(ABSENCES + 1):
        assert reader.turn(answer(expired, silences[1]), Answer(failure="gone")) == []
    assert reader.failure == "gone"
    for _ in range(ABSENCES - 1):
        assert reader.turn(answer(expired, silences[1])) == []
    (lost,) = reader.turn(answer(expired, silences[1]))
    assert (lost.id, lost.ends_ms) == (reader.written[2].id, NOW)
    assert reader.turn(answer(expired, silences[1])) == []
    # What ends by itself needs no word.
    assert reader.turn(answer(), now_ms=NOW + 7_200_000) == []
    # A replica that comes back with an old version changes nothing; a longer one is news.
    assert reader.turn(answer(silences[0]), now_ms=NOW) == []
    (longer,) = reader.turn(answer(given("s1", ends="2026-03-02T23:00:00.000Z", updated="21:10")))
    assert longer.id == reader.written[1].id


def test_a_silence_on_an_incident_expects_it_until_the_end(reader):
    labels = {"streamad": "shop", "incident": INCIDENT, "tenant": "acme", "group": "payments"}
    one = given("s1", matcher("incident", INCIDENT), matcher("group", "payments"))
    muted = [{"labels": labels, "status": {"silencedBy": ["s1", "s9"]}}, {"labels": 3}, None]
    alien = {**muted[0], "labels": {**labels, "streamad": "other"}}
    alerts = [answer(*muted, alien), Answer(failure="gone")]
    (made,) = reader.turn(answer(one), alerts=alerts)
    assert reader.asks
    assert isinstance(made, Feedback)
    assert (made.subject, made.verdict, made.tenant) == (INCIDENT, "expected", "acme")
    assert made.until_ms == NOW + 100 * 60_000
    assert reader.turn(answer(one), alerts=alerts) == []
    (over,) = reader.turn(answer(given("s1", *one["matchers"], state="expired", updated="21:00")))
    assert over.withdraws(NOW)
    assert over.id not in {made.id}
    assert not reader.asks


def test_no_more_are_taken_than_the_desk_has_room_for(reader):
    many = [given(f"s{n:03}", updated=f"20:{n % 60:02}") for n in range(MAX_SILENCES + 30)]
    assert len(reader.turn(answer(*many))) == MAX_SILENCES
    assert reader.silences.n_left_out == 30
    assert reader.turn(answer(*reversed(many))) == []


@pytest.mark.parametrize(
    ("body", "why"),
    [
        (b'[{"id": "s1", "mat', "expected a JSON list"),
        (b'{"silences": []}', "expected a JSON list"),
        (b"[" * 100_000, "expected a JSON list"),
    ],
)
def test_an_answer_that_is_no_list_ends_no_silence(reader, body, why):
    reader.turn(answer(given()))
    for _ in range(ABSENCES + 1):
        assert reader.turn(Answer(status=200, body=body)) == []
        assert why in reader.failure
    bad = Answer(status=500, body=b"oops")
    assert reader.turn(bad) == []
    assert "500" in reader.failure


def test_another_pagers_silences_are_not_ended(reader):
    reader.turn(answer(given()))
    other = Reader("second")
    other.silences.keep(reader.written)
    for _ in range(ABSENCES + 1):
        assert other.turn(answer()) == []


def test_the_page_role_reads_silences_where_a_pager_asks_for_it(monkeypatch):
    tree = {"kind": "alertmanager", "urls": ["http://127.0.0.1:9"]}
    pagers = [{"name": "a", **tree}, {"name": "b", "read_silences": "30s", **tree}]
    config = AlertingConfig.model_validate({"name": "shop", "findings": "f", "pagers": pagers})
    stop, read = threading.Event(), []

    class Watch:
        def __init__(self, config, pager, settings, **more):
            read.append(pager.name)

        def run(self, stop):
            stop.set()

    monkeypatch.setattr(page, "SilenceWatch", Watch)
    monkeypatch.setattr(page, "_topics_ready", lambda *args: True)
    monkeypatch.setattr(page, "_work", lambda *args: stop.wait(30))
    page.run_page(config, KafkaSettings(bootstrap="127.0.0.1:9"), environment={}, stop=stop)
    assert read == ["b"]
    assert stop.is_set()
