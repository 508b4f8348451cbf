"""CLAN: what is served is what was trained, damage is damage, and reasons name numbers."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest
import torch

from streamad.detectors.events.clan import Clan
from streamad.errors import ArtifactError, TrainingError, WindowError
from streamad.events.encoder import Encoder, nearest
from streamad.events.numbers import MOST, NumberScale
from streamad.events.rows import EventRows
from streamad.networks.clan import ClanNetwork
from streamad.training.clan import ClanRecipe, centres_of, clan_loss, damaged, export, train_clan


def flows(n: int, *, seed: int) -> EventRows:
    """Return flows of two kinds: short ones, and long ones with many bytes per packet."""
    draw = np.random.default_rng(seed)
    long = draw.random(n) < 0.4
    packets = np.where(long, draw.lognormal(6, 0.3, n), draw.lognormal(1, 0.3, n))
    each = np.where(long, draw.normal(1200, 50, n), draw.normal(90, 10, n))
    fields = {
        "proto": np.where(long, "tcp", "udp"), "packets": packets, "bytes": packets * each,
        "seconds": packets * draw.lognormal(-3, 0.2, n), "urgent": np.zeros(n),
    }  # fmt: skip
    return EventRows(np.arange(n, dtype=np.int64), pl.DataFrame(fields))


def changed(rows: EventRows, **fields: pl.Expr | float) -> EventRows:
    return EventRows(rows.time_ms, rows.fields.with_columns(**fields))


@pytest.fixture(scope="module")
def fitted() -> Clan:
    return Clan(n_seeds=2, steps=250).fit(flows(3_000, seed=0))


def test_what_is_served_is_what_was_trained():
    net = ClanNetwork(7, 16, 5, generator=torch.Generator().manual_seed(3))
    rows = np.random.default_rng(0).normal(size=(50, 7)).astype(np.float32)
    with torch.no_grad():
        wanted = net(torch.from_numpy(rows)).numpy()
    made = Encoder(**export(net)).directions(rows)
    np.testing.assert_allclose(made, wanted, atol=2e-6)
    far, which = nearest(made, made[:3].copy())
    np.testing.assert_allclose(far, ((1 - made @ made[:3].T) / 2).min(axis=1), atol=1e-6)
    assert which[:3].tolist() == [0, 1, 2]


def test_a_damaged_row_differs_in_some_numbers_and_stays_within_the_span():
    rows = torch.full((2_000, 6), 9.0)
    recipe = ClanRecipe(replaced=0.1, span=1.5)
    other = damaged(rows, recipe, torch.Generator().manual_seed(0))
    differ = other != rows
    assert differ.any(dim=1).all()
    assert 0.1 < float(differ.float().mean()) < 0.25
    assert 1.4 < float(other[differ].abs().max()) <= 1.5


def test_the_loss_by_hand():
    """Two rows at a right angle; of their copies one lies on the first row, one against both."""
    ordinary = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    strange = torch.tensor([[1.0, 0.0], [-(0.5**0.5), -(0.5**0.5)]])
    # D of the rows is 1/2 in both orders; of rows and copies: 0, .85, 1/2, .85, margin .75.
    wanted = 0.5 * 0.5 + 0.5 * (0.75 + 0.25) / 2
    assert float(clan_loss(ordinary, strange, 0.75)) == pytest.approx(wanted, abs=1e-6)


def test_training_parts_rows_from_damage_and_repeats():
    scale = NumberScale.fit(flows(2_000, seed=0), np.ones(2_000))
    rows, mass = scale.of(flows(2_000, seed=0)), np.ones(2_000)
    one, two = (train_clan(rows, mass, seed=5, recipe=ClanRecipe(steps=120)) for _ in range(2))
    assert all(np.array_equal(one[name], two[name]) for name in one)
    encoder = Encoder(**one)
    centres = centres_of(encoder.directions(rows), mass, 4, seed=1)
    fresh = scale.of(flows(500, seed=9))
    strange = damaged(torch.from_numpy(fresh), ClanRecipe(), torch.Generator().manual_seed(1))
    near = nearest(encoder.directions(fresh), centres)[0]
    far = nearest(encoder.directions(strange.numpy()), centres)[0]
    assert np.median(far) > np.quantile(near, 0.95)


def test_what_breaks_the_relation_of_numbers_is_strange(fitted: Clan):
    """Each number by itself is one of ordinary flows: only together they are not."""
    usual = fitted.score(flows(2_000, seed=1))
    small = flows(2_000, seed=2)[flows(2_000, seed=2).fields["proto"].to_numpy() == "udp"]
    leak = changed(small, bytes=pl.lit(500_000.0))
    assert 0.5 < np.quantile(usual, 0.9) < 1.6
    assert np.median(fitted.score(leak)) > 2.5
    assert np.median(fitted.score(leak)) > np.quantile(usual, 0.99)


def test_reasons_name_the_number_in_its_unit(fitted: Clan):
    small = flows(200, seed=3)[flows(200, seed=3).fields["proto"].to_numpy() == "udp"]
    why = fitted.explain(changed(small, seconds=pl.lit(9_000.0))[:20])
    for one in why:
        assert max(one.variates, key=one.variates.__getitem__) == "seconds"
        assert one.text.startswith("unlike ordinary rows: seconds is 9000, usually about ")
        assert one.observed["seconds"] == 9_000
        # Of short flows, not of all.
        assert isinstance(one.expected["packets"], float)
        assert one.expected["packets"] < 10


def test_numbers_are_folded_filled_and_bounded():
    rows = flows(1_000, seed=0)
    scale = NumberScale.fit(rows, np.ones(1_000))
    assert scale.names == ("packets", "bytes", "seconds", "urgent")
    made = scale.of(rows)
    np.testing.assert_allclose(made[:, :3].mean(axis=0), 0, atol=1e-5)
    np.testing.assert_allclose(made[:, :3].std(axis=0), 1, atol=1e-5)
    np.testing.assert_allclose(scale.back(made[:5, :2].astype(float).repeat(2, 1)[:, [0, 2, 0, 0]])
        [:, :2], rows.fields.select("packets", "bytes").to_numpy()[:5], rtol=1e-4)  # fmt: skip
    odd = changed(rows[:2], packets=pl.Series([None, np.inf]), urgent=pl.Series([3.0, np.nan]))
    assert scale.of(odd)[:, 0].tolist() == [0, MOST]
    assert scale.of(odd)[:, 3].tolist() == [pytest.approx(np.log(4)), 0]
    with pytest.raises(WindowError, match="have no number 'urgent'"):
        scale.of(EventRows(rows.time_ms, rows.fields.drop("urgent")))


def test_events_without_numbers_are_refused():
    texts = EventRows(np.arange(3), pl.DataFrame({"proto": ["tcp"] * 3}))
    with pytest.raises(TrainingError, match=r"fields with numbers, got 0 among proto; name them"):
        Clan().fit(texts)


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("into", lambda a: a[:, 1:]), ("out", lambda a: a * np.nan), ("centres", lambda a: a[:1]),
        ("units", lambda a: -a), ("whitening", lambda a: a[:1]),
        ("usual.middle", lambda a: a[:, 1:]),
        ("numbers.scale", lambda a: a * 0), ("skip", lambda a: a[0]),
    ],
)  # fmt: skip
def test_a_damaged_artifact_is_refused(fitted: Clan, name: str, change):
    state = fitted.state()
    state[name] = change(state[name])
    with pytest.raises(ArtifactError, match="fit it again"):
        Clan().load(state)


def test_rows_count_as_often_as_they_happened():
    rows = flows(400, seed=0)
    counts = np.where(rows.fields["proto"].to_numpy() == "udp", 1_000.0, 1.0)
    made = Clan(n_seeds=1, steps=60).fit(rows, counts=counts)
    # One decade is one in ten of what happened, not of the rows of the file.
    of_all = made.score(rows)
    assert 0.03 < np.average(of_all >= 1, weights=counts) < 0.2
    assert np.median(of_all[counts == 1]) > np.median(of_all[counts > 1])
