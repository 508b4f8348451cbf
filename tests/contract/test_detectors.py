import importlib.util

import pytest

from streamad.detectors import DETECTORS
from streamad.testing.checks import yield_detector_checks

CHECKS = list(yield_detector_checks())


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
@pytest.mark.parametrize("name", list(DETECTORS))
def test_detector_keeps_the_contract(name, check):
    check(DETECTORS.load(name))


@pytest.mark.parametrize("name", list(DETECTORS))
def test_a_detector_is_called_what_the_table_calls_it(name):
    assert DETECTORS.load(name).info.name == name


def test_the_contract_is_not_empty():
    assert len(CHECKS) >= 20
    assert {"robust_z", "knn", "knn_fused", "lof", "pca"} <= set(DETECTORS)


def test_every_place_in_the_table_exists():
    assert all(importlib.util.find_spec(place.partition(":")[0]) for place in DETECTORS.values())
