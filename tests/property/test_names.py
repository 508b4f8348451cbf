"""Fields of a key are told apart again, whatever they hold."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from streamad.names import join_key, split_key

parts = st.lists(
    st.text(alphabet="a/\\\n", max_size=6) | st.text(max_size=6), min_size=2, max_size=4
)


@settings(max_examples=300, deadline=None, derandomize=True)
@given(parts)
def test_a_key_is_taken_apart_as_it_was_made(given_):
    assert split_key(join_key(given_), len(given_)) == given_


@settings(max_examples=300, deadline=None, derandomize=True)
@given(parts, parts)
def test_other_fields_make_another_key(one, other):
    if len(one) == len(other) and one != other:
        assert join_key(one) != join_key(other)
