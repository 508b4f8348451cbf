"""What an input, a person or a bad writer chose is shown on a terminal, and gives it no order."""

from __future__ import annotations

import json
import unicodedata
from dataclasses import replace
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from jobs.desk import showing
from jobs.desk.budget import account, lines_of
from streamad.alerting.config import AlertingConfig
from streamad.alerting.matchers import parse_matcher
from streamad.incidents import Affected, Cause, Digest, Feedback, Incident
from streamad.paging.budget import DAY_MS, GroupBudget
from streamad.records import Alert

T0 = 1_700_049_600_000
REVERSING = set("\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")
hostile = st.text(
    st.sampled_from("a[]/%{}\x1b\x07\x9b\n\r\t\0\u2028\u202e\u200b\ufeff\ud800;=\"'")
    | st.characters(),
    max_size=30,
)
names = st.dictionaries(hostile, hostile, max_size=3)
numbers = st.floats(allow_nan=True, allow_infinity=True)


@st.composite
def incidents(draw: Any) -> Incident:
    member = Affected(
        alert=draw(hostile), pipeline=draw(hostile), detector=draw(hostile), kind="anomaly",
        group=draw(hostile), key=draw(hostile), entity=draw(names), began_ms=T0, until_ms=T0,
        peak_severity=draw(numbers), strength=draw(numbers), summary=draw(hostile),
    )  # fmt: skip
    return Incident(
        id=draw(hostile), sequence=0, state=draw(st.sampled_from(["opened", "resolved"])),
        name=draw(hostile), tenant="t", group=draw(hostile), groups=(draw(hostile),),
        pipelines=(draw(hostile),), detectors=(draw(hostile),), entity=draw(names), began_ms=T0,
        until_ms=T0, opened_ms=T0, time_ms=T0, resolved_ms=draw(st.sampled_from([None, T0])),
        severity=draw(numbers), strength=draw(numbers), threshold=draw(numbers),
        paged_ms=draw(st.sampled_from([None, T0])), withheld=draw(hostile), leader=member.alert,
        members=(member,), n_members=1, n_open=1,
        causes=(Cause(entity=draw(hostile), reason=draw(hostile), score=1.0),),
        summary=draw(hostile), acknowledged=draw(hostile), verdict=draw(hostile),
        links=draw(names),
    )  # fmt: skip


@st.composite
def alerts(draw: Any) -> Alert:
    part = st.one_of(hostile, numbers)
    parts = st.dictionaries(hostile, part, max_size=2)
    return Alert(
        id=draw(hostile), sequence=0, state="opened", kind="anomaly", pipeline="p", detector="d",
        artifact="", tenant="t", group=draw(hostile), key=draw(hostile), entity=draw(names),
        opened_ms=T0, time_ms=T0, resolved_ms=None, window_start_ms=T0, window_end_ms=T0,
        score=draw(numbers), p_value=draw(numbers), severity=draw(numbers), peak_severity=1.0,
        threshold_p=0.1, observed=draw(parts), expected=draw(parts),
        explanation=draw(st.dictionaries(hostile, numbers, max_size=3)), summary=draw(hostile),
    )  # fmt: skip


def require_safe(lines: list[str]) -> None:
    for line in lines:
        wrong = [c for c in line if unicodedata.category(c) in ("Cc", "Zl", "Zp", "Cs")]
        assert not wrong, (line, wrong)
        assert not REVERSING & set(line)
        assert len(line) < 4_000


@settings(max_examples=150, deadline=None)
@given(incidents(), alerts(), hostile, hostile)
def test_no_text_reaches_a_terminal_as_an_order(
    incident: Incident, alert: Alert, by: str, comment: str
):
    answer = Feedback(
        id="i", subject=incident.id, verdict="real", by=by, time_ms=T0, comment=comment
    )
    digest = Digest(
        id="d", name="n", tenant="t", group=by, from_ms=T0, to_ms=T0, asked=1.0, spent=1,
        overdrawn=0, withheld={comment: 1}, threshold=1.0, incidents=(by,), summary=comment,
    )  # fmt: skip
    shown = showing.told(incident, {incident.leader: alert}, [answer], [incident])
    require_safe(shown)
    require_safe(showing.listed([incident]))
    require_safe([showing.line(one) for one in (incident, alert, digest, answer)])


@settings(max_examples=100, deadline=None)
@given(st.lists(st.tuples(hostile, hostile), max_size=6))
def test_a_ledger_of_any_names_is_shown_safely(entries: list[tuple[str, str]]):
    budget = GroupBudget(pages=10.0, since_ms=T0, at_ms=T0)
    for what, key in entries:
        budget.enter(what, key)
    config = AlertingConfig.model_validate({"name": "n", "findings": "f"})
    one = account("g\x1b[2J", [budget], config, first_day=0)
    require_safe(lines_of([one], today=T0 // DAY_MS))


@settings(max_examples=150, deadline=None)
@given(incidents())
def test_json_keeps_its_value_and_gives_no_order(incident: Incident):
    plain = json.loads(json.dumps(incident.summary))
    safe = replace(incident, summary=plain.encode("utf-8", "replace").decode())
    clean = replace(
        safe,
        **{
            name: getattr(safe, name).encode("utf-8", "replace").decode()
            for name in ("id", "name", "group", "withheld", "leader", "acknowledged", "verdict")
        },
        groups=(), pipelines=(), detectors=(), entity={}, members=(), causes=(), links={},
    )  # fmt: skip
    line = showing.json_line(clean)
    require_safe([line])
    assert json.loads(line)["summary"] == clean.summary


@settings(max_examples=200, deadline=None)
@given(hostile)
def test_a_mistaken_matcher_is_shown_safely(text: str):
    try:
        parse_matcher(text)
    except ValueError as error:
        require_safe([str(error)])
