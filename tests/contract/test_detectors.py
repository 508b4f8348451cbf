import importlib.util

import pytest

from streamad.detectors import DETECTORS
from streamad.testing.checks import yield_detector_checks
from streamad.testing.item_checks import yield_item_checks
from tests.contract.inputs import QUICK


def checks_of(name):
    kind = DETECTORS.load(name)
    signals = kind.info.modality == "signals"
    return list((yield_detector_checks if signals else yield_item_checks)(kind))


def quick(name):
    """Return a detector's class; of signals' ones that train for long, one that does not."""
    kind = DETECTORS.load(name)
    if kind.info.modality != "signals" or name not in QUICK:
        return kind

    class Quick(kind):
        def __init__(self, *, size=None):
            super().__init__(size=size, **QUICK[name])

    return Quick


CHECKS = {name: checks_of(name) for name in DETECTORS}
PAIRS = [
    pytest.param(name, check, id=f"{name}-{check.__name__}")
    for name, checks in CHECKS.items()
    for check in checks
]


@pytest.mark.parametrize(("name", "check"), PAIRS)
def test_detector_keeps_the_contract(name, check):
    check(quick(name))


@pytest.mark.parametrize("name", list(DETECTORS))
def test_a_detector_is_called_what_the_table_calls_it(name):
    assert DETECTORS.load(name).info.name == name


def test_the_contract_is_not_empty():
    signals = {name for name in DETECTORS if DETECTORS.load(name).info.modality == "signals"}
    assert min(len(CHECKS[name]) for name in signals) >= 17
    assert min(map(len, CHECKS.values())) >= 9
    with_memory = {name for name in signals if DETECTORS.load(name)().new_memory(1) is not None}
    assert {"knn", "knn_fused"} <= with_memory
    assert all(len(CHECKS[name]) >= 22 for name in with_memory)
    populations = {n for n in DETECTORS if DETECTORS.load(n).info.scope == "partition"}
    assert all(len(CHECKS[name]) >= 12 for name in populations)
    assert {"robust_z", "knn", "knn_fused", "lof", "pca"} <= set(DETECTORS)


def test_every_place_in_the_table_exists():
    assert all(importlib.util.find_spec(place.partition(":")[0]) for place in DETECTORS.values())
