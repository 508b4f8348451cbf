"""The search of nearest neighbours against the plain one, bit for bit."""

import numpy as np
import pytest

from streamad.detectors.knn.kernels import run_lengths
from streamad.detectors.knn.search import REFERENCE, search, steps_of

K = 3
NESTED = {
    "newest": [(60, 4), (56, 8), (48, 16)],
    "centred": [(29, 16), (0, 64)],
    "odd": [(21, 3), (14, 37), (3, 53)],
}


def plain(query, stretch, histories):
    """The k smallest sums over all usable places, each in float32, sample after sample."""
    start, length = stretch
    sums = [np.empty(0, np.float32)]
    for samples, runs, n in histories:
        places = np.flatnonzero(runs[: max(n - length + 1, 0)] >= length)
        total = np.zeros(len(places), np.float32)
        for v in range(len(query)):
            for i in range(length):
                if not np.isnan(query[v, start + i]):
                    apart = query[v, start + i] - samples[v, places + i]
                    total += apart * apart
        sums.append(total)
    nearest = np.full(K, np.inf, np.float32)
    found = np.sort(np.concatenate(sums))[:K]
    nearest[: len(found)] = found
    return nearest


def history(kind, n, n_variates, rng):
    steps = np.arange(n)
    samples = {
        "noise": rng.normal(size=(n_variates, n)),
        "season": np.sin(steps / 5) + 0.05 * rng.normal(size=(n_variates, n)),
        "repeats": np.sin(2 * np.pi * (steps % 20) / 20) * np.ones((n_variates, 1)),
        "spikes": rng.standard_t(1, size=(n_variates, n)),
        "constant": np.zeros((n_variates, n)),
    }[kind].astype(np.float32)
    usable = rng.random(n) > 0.003
    return samples, run_lengths(usable), n


@pytest.mark.parametrize("n_variates", [1, 3])
@pytest.mark.parametrize("kind", ["noise", "season", "repeats", "spikes", "constant"])
@pytest.mark.parametrize("nested", NESTED)
def test_the_search_finds_what_the_plain_one_finds_to_the_bit(nested, kind, n_variates):
    rng = np.random.default_rng(7)
    stretches = np.array(NESTED[nested], dtype=np.int32)
    lived, reference = (history(kind, n, n_variates, rng) for n in (700, 500))
    lived = (*lived[:2], 650)  # the newest samples are not to be seen
    steps = steps_of(stretches, n_variates)
    near = np.empty((len(stretches), K), np.float32)
    places = np.empty((len(stretches), K), np.int64)
    seeds = np.full((len(stretches), K), -1, dtype=np.int64)
    for begin in range(560, 572):
        query = lived[0][:, begin : begin + 64].copy()
        if begin % 4 == 0:
            query[:, rng.integers(64, size=9)] = np.nan
        search(query, stretches, steps, lived, reference, seeds, near, places)
        for s, stretch in enumerate(stretches):
            expected = plain(query, stretch, (lived, reference))
            np.testing.assert_array_equal(near[s], expected)
            own, far = places[s][places[s] < REFERENCE], places[s][places[s] >= REFERENCE]
            assert (lived[1][own] >= stretch[1]).all()
            assert (reference[1][far - REFERENCE] >= stretch[1]).all()
            assert len(set(places[s])) == K
        seeds = np.where(places >= 0, places + 1, -1)


def test_a_past_shorter_than_a_stretch_has_no_neighbours():
    stretches = np.array(NESTED["centred"], dtype=np.int32)
    rng = np.random.default_rng(1)
    lived, empty = history("noise", 40, 1, rng), history("noise", 0, 1, rng)
    lived = (lived[0], np.arange(40, 0, -1, dtype=np.int32), 40)
    near, places = np.empty((2, K), np.float32), np.empty((2, K), np.int64)
    seeds = np.full((2, K), -1, dtype=np.int64)
    query = rng.normal(size=(1, 64)).astype(np.float32)
    search(query, stretches, steps_of(stretches, 1), lived, empty, seeds, near, places)
    np.testing.assert_array_equal(near[0], plain(query, stretches[0], (lived, empty)))
    assert np.isinf(near[1]).all()
    assert (places[1] == -1).all()
