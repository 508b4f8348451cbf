"""A stage for each test."""

from __future__ import annotations

import pytest

from tests.unit.alerts.made import Stage


@pytest.fixture
def stage() -> Stage:
    return Stage()
