"""What comes from outside is shown without credentials and without what a terminal would obey."""

from __future__ import annotations

import json
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamad.shown import safe_json, safe_lines, safe_text, without_credentials
from tests.machine import least_cpu_s

REVERSING = set("\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")


def is_safe(text: str) -> bool:
    return not any(
        unicodedata.category(char) in ("Cc", "Zl", "Zp", "Cs") or char in REVERSING for char in text
    )


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("s3://KEY:SECRET@bucket/m", "s3://***@bucket/m"),
        ("s3://KEY:SE/CR@ET@bucket/m", "s3://***@bucket/m"),
        ("https://SECRET@host/m", "https://***@host/m"),
        ("https://host/m?sig=SECRET&x=1", "https://host/m?***"),
        ("https://host/m#access=SECRET", "https://host/m?***"),
        ("m https://h/m?sig=SECRET: not read", "m https://h/m?***: not read"),
        ("('https://h/m?sig=SECRET')", "('https://h/m?***')"),
        ("simplecache::s3://K:SECRET@b/m", "simplecache::s3://***@b/m"),
        ("Authorization: Bearer SECRET7890", "Authorization: Bearer ***"),
        ('x sasl.jaas.config="a SECRET b";', "x sasl.jaas.config=***;"),
        ("PlainLogin password='SECRET' username=ann", "PlainLogin password=*** username=ann"),
        ("fs.azure.account.key=SECRET", "fs.azure.account.key=***"),
        ("got eyJhbGciOiJI.eyJzdWIiOiIx.SECRET", "got ***"),
    ],
)  # fmt: skip
def test_credentials_are_left_out(text, shown):
    assert without_credentials(text) == shown


@pytest.mark.parametrize(
    "text",
    ["http://host:8080/a/b", "mail ann@example.org", "a?b=c", "s3://bucket/knn", "key=web-1, n=2"],
)
def test_what_holds_no_credentials_stays(text):
    assert without_credentials(text) == text


@pytest.mark.parametrize("piece", ["://", "://a:", "=", "a=", "://?", "bearer ", "eyJ", "."])
def test_no_text_takes_long(piece):
    text = f"{piece * (100_000 // len(piece))} @?"
    assert least_cpu_s(lambda: without_credentials(text), allowed_s=5) < 5


@given(st.text(), st.integers(0, 50))
def test_safe_text_is_one_bounded_line_and_stays_as_it_is(text, limit):
    shown = safe_text(text, limit)
    assert len(shown) <= limit
    assert is_safe(shown)
    assert safe_text(shown, limit) == shown


@given(st.text(st.characters(exclude_categories=["Cc", "Cf", "Zl", "Zp", "Cs"])))
def test_ordinary_text_of_any_language_is_not_changed(text):
    assert safe_text(text, len(text)) == text


@given(st.text())
def test_safe_lines_keep_their_line_ends_only(text):
    assert all(is_safe(line) for line in safe_lines(text).split("\n"))
    assert safe_lines(text).count("\n") == text.count("\n")


@given(st.dictionaries(st.text(), st.text(), max_size=4))
def test_safe_json_means_the_same(value):
    line = safe_json(json.dumps(value, ensure_ascii=False))
    assert json.loads(line) == value
    assert is_safe(line)


def test_a_terminal_is_not_given_orders():
    assert safe_text("a\x1b[2J\x9b1m\u202egpj.exe\r\n") == "a\\x1b[2J\\x9b1m\\u202egpj.exe\\r\\n"
