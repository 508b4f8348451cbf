"""Vocabularies: every value has an id in range, whatever it is, and nothing grows."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streamad.errors import ArtifactError, TrainingError, WindowError
from streamad.events.rows import EventRows
from streamad.events.vocabulary import FIRST, MISSING, UNKNOWN, Vocabulary, VocabularySize


def rows(**fields) -> EventRows:
    frame = pl.DataFrame(fields, strict=False)
    return EventRows(np.arange(len(frame), dtype=np.int64), frame)


def texts(*values) -> EventRows:
    return rows(a=pl.Series(values, dtype=pl.String))


def test_frequent_texts_have_ids_of_their_own_and_rare_ones_share_buckets():
    known = Vocabulary.fit(texts(*["b"] * 3, *["a"] * 5, "once", None))
    first = FIRST + known.buckets
    ids = known.encode(texts("a", "b", None, "once")).ravel().tolist()
    assert ids[:3] == [first, first + 1, MISSING]
    assert FIRST <= ids[3] < first
    assert known.text_of(0, first) == "a"
    assert known.text_of(0, MISSING) == "missing"


def test_a_text_never_seen_is_unknown_where_no_rare_one_shares_its_bucket():
    known = Vocabulary.fit(texts(*["a"] * 5, *["b"] * 5))
    assert known.encode(texts("c", "", "A", "a\0", "aa")).ravel().tolist() == [UNKNOWN] * 5


def test_numbers_get_cells_and_frequent_ones_their_own():
    rng = np.random.default_rng(0)
    values = np.where(rng.random(5000) < 0.5, 0.0, rng.exponential(10, 5000) + 1)
    known = Vocabulary.fit(rows(n=values))
    zero, low, some = known.encode(rows(n=[0.0, 0.5, 25.0])).ravel()
    assert len({zero, low, some}) == 3
    assert known.text_of(0, int(zero)) == "0"
    assert known.counts[zero] == (values == 0).sum()
    assert known.text_of(0, int(low)).startswith("over 0 to ")
    outside = known.encode(rows(n=[-1.0, 1e9, np.inf, -np.inf, None, np.nan])).ravel()
    assert outside.tolist() == [UNKNOWN] * 4 + [MISSING] * 2


def test_few_different_numbers_are_values_each():
    known = Vocabulary.fit(rows(n=[6.0, 17.0, 6.0, 1.0]))
    ids = known.encode(rows(n=[1.0, 6.0, 17.0])).ravel()
    assert [known.text_of(0, int(i)) for i in ids] == ["1", "6", "17"]


def test_ties_do_not_make_empty_or_equal_cells():
    known = Vocabulary.fit(rows(n=[0.0] * 1000 + [float(i) for i in range(40)]))
    assert (np.diff(known.edges) > 0).all()
    assert known.counts.sum() == pytest.approx(1040 + known.counts[UNKNOWN])


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.one_of(st.none(), st.text(max_size=12)), min_size=1, max_size=40),
    st.lists(st.one_of(st.none(), st.text(max_size=12)), max_size=20),
)
def test_any_text_has_an_id_in_range_alone_and_in_a_batch(trained, seen):
    known = Vocabulary.fit(texts(*trained), size=VocabularySize(buckets=3))
    items = texts(*seen, *trained)
    ids = known.encode(items)
    assert ids.dtype == np.int32
    assert ((ids >= 0) & (ids < known.sizes)).all()
    alone = [known.encode(items[i : i + 1])[0, 0] for i in range(len(items))]
    assert ids.ravel().tolist() == alone


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.one_of(st.none(), st.floats()), min_size=1, max_size=40),
    st.lists(st.one_of(st.none(), st.floats()), max_size=20),
)
def test_any_number_has_an_id_in_range(trained, seen):
    known = Vocabulary.fit(rows(n=pl.Series(trained, dtype=pl.Float64)))
    ids = known.encode(rows(n=pl.Series([*seen, *trained], dtype=pl.Float64)))
    assert ((ids >= 0) & (ids < known.sizes)).all()


def test_a_million_new_values_are_bounded():
    many = texts(*(f"value-{i}" for i in range(1_000_000)), "a", "a")
    known = Vocabulary.fit(many, size=VocabularySize(buckets=8))
    assert known.n_ids <= FIRST + 8 + 1
    twice = rows(a=pl.concat([many.fields["a"], many.fields["a"]]))
    capped = Vocabulary.fit(twice, size=VocabularySize(max_values=100, buckets=8))
    assert capped.n_ids == FIRST + 8 + 100
    assert sum(array.nbytes for array in capped.state().values()) < 10_000
    before = capped.state()["counts"].copy()
    capped.encode(texts(*(f"other-{i}" for i in range(1_000_000))))
    assert np.array_equal(before, capped.state()["counts"])


def test_state_comes_back():
    items = rows(a=["x", "y", "x", "z", None], n=[1.0, 2.0, 2.5, None, 7.0])
    known = Vocabulary.fit(items)
    other = Vocabulary.from_state(known.state())
    assert other.names == ("a", "n")
    assert np.array_equal(known.encode(items), other.encode(items))
    assert np.array_equal(known.counts, other.counts)


DAMAGE = {
    "a text that ends beyond the blob": ("ends", lambda a: a + 1000),
    "texts that end before they begin": ("ends", lambda a: a[::-1].copy()),
    "more texts than there are": ("n_texts", lambda a: a + 1),
    "fewer than none": ("n_texts", lambda a: -a),
    "no buckets": ("buckets", lambda a: a * 0),
    "far too many buckets": ("buckets", lambda a: a * 10**9),
    "cells that fall": ("edges", lambda a: a[::-1].copy()),
    "cells that are not finite": ("edges", lambda a: a * np.nan),
    "too few counts": ("counts", lambda a: a[1:]),
    "negative counts": ("counts", lambda a: -a),
    "names that are no names": ("names", lambda a: a[1:]),
    "kinds of other fields": ("numbers", lambda a: a[1:]),
    "a scalar": ("ends", lambda a: a[0]),
}


@pytest.mark.parametrize("what", DAMAGE)
def test_damage_is_refused(what: str):
    state = Vocabulary.fit(rows(a=["x", "y", "x", "y", "yy", "yy"], n=[1.0, 2, 3, 4, 5, 6])).state()
    name, spoil = DAMAGE[what]
    with pytest.raises(ArtifactError):
        Vocabulary.from_state({**state, name: spoil(state[name])})


@pytest.mark.parametrize("name", ["names", "blob", "counts", "edges"])
def test_a_missing_part_is_refused(name: str):
    state = Vocabulary.fit(texts("a", "b")).state()
    del state[name]
    with pytest.raises(ArtifactError):
        Vocabulary.from_state(state)


def test_fields_are_found_by_name_and_must_be_of_their_kind():
    known = Vocabulary.fit(rows(a=["x", "x"], n=[1.0, 2.0]))
    straight = known.encode(rows(a=["x"], n=[1.0]))
    assert np.array_equal(straight, known.encode(rows(n=[1.0], a=["x"])))
    assert known.encode(rows(a=[None], n=[None])).tolist() == [[MISSING, MISSING]]
    with pytest.raises(WindowError, match="'n'"):
        known.encode(rows(a=["x"]))
    with pytest.raises(WindowError, match="numbers in training"):
        known.encode(rows(a=["x"], n=["1"]))
    with pytest.raises(TrainingError):
        Vocabulary.fit(texts())


def test_ids_are_the_same_in_another_process():
    script = (
        "import numpy as np, polars as pl\n"
        "from streamad.events.rows import EventRows\n"
        "from streamad.events.vocabulary import Vocabulary\n"
        "a = pl.DataFrame({'a': [f'v{i}' for i in range(200)]})\n"
        "items = EventRows(np.zeros(200, np.int64), a)\n"
        "print(Vocabulary.fit(items).encode(items).ravel().tolist())\n"
    )
    ran = [
        subprocess.run(
            [sys.executable, "-c", script],
            capture_output=True,
            check=True,
            text=True,
            env={"PYTHONHASHSEED": seed, "PYTHONPATH": ":".join(sys.path)},
        ).stdout
        for seed in ("1", "2")
    ]
    assert ran[0] == ran[1]
