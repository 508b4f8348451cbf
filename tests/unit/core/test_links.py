"""Links of alerts: what producers sent is filled in, and cannot lead anywhere else."""

from __future__ import annotations

from urllib.parse import parse_qs, unquote, urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamad.alerting.config import AlertingConfig
from streamad.alerts.operator import AlertOperator
from streamad.config import parse_pipeline
from streamad.errors import ConfigError
from streamad.links import check_template, fill
from tests.unit.paging.findings import BEGIN_MS, MINUTE_MS, episode

PIPELINE = """
name: hosts
input: {{topics: metrics, fields: {{key: [host, metric], tags: [team]}}}}
alerts:
  runbook: https://wiki.example.org/hosts
  links: {{dashboard: "{link}"}}
"""


def filled(template: str, **entity: str) -> dict[str, str]:
    made = {"host": "web-1", "metric": "cpu", **entity}
    return fill(
        {"it": template}, entity=made, key="web-1/cpu", group="web", pipeline="hosts",
        span_ms=(0, 60_000),
    )  # fmt: skip


@given(st.text(max_size=200))
def test_whatever_a_key_holds_it_is_one_value_of_one_host(host: str):
    made = filled("https://g.example.org/d/{host}/x?h={host}&to={to_ms}#a={host}", host=host)
    if not host.strip("."):
        assert made == {}
        return
    url = urlsplit(made["it"])
    sent = host.encode("utf-8", "replace").decode()
    assert (url.scheme, url.netloc) == ("https", "g.example.org")
    assert parse_qs(url.query, keep_blank_values=True) == {"h": [sent], "to": ["60000"]}
    assert unquote(url.path) == f"/d/{sent}/x"
    assert url.path.count("/") == 3
    assert made["it"].isascii()
    assert not set(made["it"]) & set("<>\"' \\")


def test_an_alert_without_the_field_and_a_value_too_long_have_no_link():
    assert filled("https://x.example.org/{pod}") == {}
    assert filled("https://x.example.org/{host}", host="h" * 600) == {}
    assert filled("https://x.example.org/{host}/{key}")["it"].endswith("/web-1/web-1%2Fcpu")


def test_braces_written_twice_are_of_the_link():
    made = filled('https://l.example.org/explore?q={{host="{host}"}} |= x')
    assert made["it"] == "https://l.example.org/explore?q=%7Bhost=%22web-1%22%7D%20%7C=%20x"


@pytest.mark.parametrize(
    ("template", "wrong"),
    [
        ("ftp://x.example.org/{host}", "begins with https:// or http://"),
        ("https://{host}/x", "a host without placeholders"),
        ("https://grafana.{host}.example.org/", "a host without placeholders"),
        ("https://me:secret@x.example.org/", "must not hold a user name or password"),
        ("https://x.example.org/{host", "a lone '{'"),
        ("https://x.example.org/{}", "got {}"),
        ("https://x.example.org/" + "a" * 3000, "at most 2,000 characters, got 3,022"),
    ],
)
def test_what_is_no_template_is_refused(template: str, wrong: str):
    with pytest.raises(ValueError, match=wrong.replace("{", r"\{").replace("(", r"\(")):
        check_template(template)
    with pytest.raises(ConfigError, match="dashboard"):
        parse_pipeline(PIPELINE.format(link=template))


def test_a_placeholder_that_alerts_do_not_have_is_refused_with_the_nearest_name():
    with pytest.raises(ConfigError, match=r"\{hosts\}; did you mean \{host\}\?"):
        parse_pipeline(PIPELINE.format(link="https://g.example.org/{hosts}"))
    for name in ("metric", "team", "key", "from_iso"):
        parse_pipeline(PIPELINE.format(link=f"https://g.example.org/{{{name}}}"))


def test_too_many_links_are_refused():
    links = {f"l{n}": "https://g.example.org/" for n in range(17)}
    with pytest.raises(ValueError, match="at most 16 links, got 17"):
        AlertingConfig.model_validate({"name": "a", "findings": "f", "alerts": {"links": links}})


def test_alerts_link_to_their_event_and_widen_with_it():
    link = "https://g.example.org/d/{host}?var={metric}&from={from_ms}&to={to_ms}"
    operator = AlertOperator(parse_pipeline(PIPELINE.format(link=link)))
    found = episode("web-1/cpu", BEGIN_MS, 9.0, length_ms=90 * MINUTE_MS)
    opened, resolved = operator.process(operator.new_state(), [(f, f.window_end_ms) for f in found])
    assert opened.links["runbook"] == "https://wiki.example.org/hosts"
    begin = BEGIN_MS - 10 * MINUTE_MS
    first = f"https://g.example.org/d/web-1?var=cpu&from={begin}&to={BEGIN_MS}"
    assert opened.links["dashboard"] == first
    assert resolved.links["dashboard"].endswith(f"&to={BEGIN_MS + 90 * MINUTE_MS}")
