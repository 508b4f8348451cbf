"""APE's network and its training: the paper's form, kept."""

from __future__ import annotations

import math

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from streamad.networks.ape import ApeNetwork  # noqa: E402
from streamad.training.ape import (  # noqa: E402
    UNKNOWN,
    ApeRecipe,
    _Sampler,
    correction,
    noise_of,
    train_ape,
)

SIZES = [7, 9, 5]
SHORT = ApeRecipe(steps=60, batch=64)


def events(n: int = 400, seed: int = 0):
    rng = np.random.default_rng(seed)
    block = rng.integers(0, 2, n)
    return np.stack(
        [1 + 3 * block + rng.integers(0, 3, n), 1 + 4 * block, 1 + 2 * block], 1
    ).astype(np.int32)


def network(seed: int = 0) -> ApeNetwork:
    return ApeNetwork(SIZES, 4, bias=True, generator=torch.Generator().manual_seed(seed))


def test_the_energy_is_the_weighted_sum_over_pairs():
    net = network()
    with torch.no_grad():
        net.weights.copy_(torch.tensor([0.5, 2.0, 0.0]))
        net.biases.uniform_(-1, 1)
    rows = torch.tensor([[1, 9, 17], [0, 7, 20]])
    energy, _ = net(rows)
    for row, own in zip(rows, energy, strict=True):
        a, b, c = net.vectors[row]
        expected = 0.5 * (a @ b) + 2 * (a @ c) + net.biases[row].sum()
        assert torch.isclose(own, expected, atol=1e-6)


def test_a_replaced_value_costs_one_product_and_is_the_whole_energy():
    net = network()
    rows = torch.tensor([[1, 9, 17], [0, 7, 20]])
    energy, around = net(rows)
    new = torch.tensor([[10, 11], [12, 15]])
    quick = net.replaced(energy, around[:, 1], rows[:, 1], new)
    for k in range(2):
        whole = rows.clone()
        whole[:, 1] = new[:, k]
        assert torch.allclose(net(whole)[0], quick[:, k], atol=1e-6)


def test_weights_are_never_negative():
    codes = events()
    trained = train_ape(codes, np.ones(len(codes)), SIZES, seed=0, recipe=SHORT)
    assert (trained.weights >= 0).all()
    net = network()
    with torch.no_grad():
        net.weights.fill_(-1)
    net.clamp()
    assert (net.weights == 0).all()


def test_a_negative_differs_from_its_event_in_one_field_drawn_per_row():
    codes = events()
    mass = np.ones(len(codes))
    starts = np.cumsum([0, *SIZES[:-1]]).astype(np.int64)
    noise = noise_of(codes, mass, SIZES, ApeRecipe())
    rows, drawn = _Sampler(codes, mass, starts, noise, ApeRecipe()).batch(
        300, np.random.default_rng(0)
    )
    assert rows.shape == (300, 3)
    assert len(set(drawn.fields.tolist())) == 3
    first, last = starts[drawn.fields], starts[drawn.fields] + np.array(SIZES)[drawn.fields]
    values = drawn.values.numpy()
    assert ((values >= first[:, None]) & (values < last[:, None])).all()


def test_noise_is_a_distribution_per_field_and_only_of_values_that_occur():
    codes = events()
    noise = noise_of(codes, np.ones(len(codes)), SIZES, ApeRecipe())
    q, start = np.exp(noise.log_q.astype(np.float64)), 0
    for field, size in enumerate(SIZES):
        own = q[start : start + size]
        assert own.sum() == pytest.approx(1, abs=1e-5)
        assert own[UNKNOWN] > 0
        absent = np.setdiff1d(np.arange(1, size), codes[:, field])
        assert (own[absent] < 1e-9).all()
        start += size
    drawn = noise.draw(np.repeat([0, 1, 2], 3000), 1, np.random.default_rng(0)).ravel()
    seen = np.bincount(drawn[:3000], minlength=sum(SIZES))[: SIZES[0]] / 3000
    assert np.abs(seen - q[: SIZES[0]]).max() < 0.03


def test_the_correction_moves_by_log_k_only_where_k_changes():
    log_q = torch.tensor([-1.0, -2.0])
    assert torch.allclose(correction(log_q, 10) - correction(log_q, 5), torch.tensor(math.log(2.0)))
    assert torch.allclose(correction(log_q, 5).diff(), log_q.diff())


@pytest.mark.parametrize("loss", ["binary", "ranking"])
def test_training_lowers_the_loss_and_equal_seeds_are_equal(loss):
    codes = events()
    recipe = ApeRecipe(steps=150, batch=128, loss=loss)
    one, other, third = (
        train_ape(codes, np.ones(len(codes)), SIZES, seed=seed, recipe=recipe) for seed in (3, 3, 4)
    )
    assert one.losses[one.stopped] < one.losses[0]
    assert one.vectors.tobytes() == other.vectors.tobytes()
    assert one.weights.tobytes() == other.weights.tobytes()
    assert one.vectors.tobytes() != third.vectors.tobytes()


def test_ids_without_a_training_event_are_as_unknown_ones():
    codes = events()
    due = np.array([1e-4, 1e-3, 1e-2])
    plain = train_ape(codes, np.ones(len(codes)), SIZES, seed=0, recipe=SHORT)
    rarer = train_ape(codes, np.ones(len(codes)), SIZES, seed=0, due=due, recipe=SHORT)
    absent = SIZES[0] + np.setdiff1d(np.arange(1, SIZES[1]), codes[:, 1])
    assert len(absent)
    assert (rarer.vectors[absent] == rarer.vectors[SIZES[0] + UNKNOWN]).all()
    moved = rarer.biases[[0, 7, 16]] - plain.biases[[0, 7, 16]]
    assert np.allclose(moved, np.log(due / SHORT.mask), atol=1e-4)


def test_the_loss_is_finite_with_one_event_and_with_one_value():
    codes = np.ones((1, 3), np.int32)
    trained = train_ape(codes, np.ones(1), SIZES, seed=0, recipe=ApeRecipe(steps=5, batch=8))
    assert np.isfinite(trained.vectors).all()
    assert np.isfinite(trained.losses).all()
