"""What a command shows while it works."""

from __future__ import annotations

import numba
import pytest

from jobs import console


def test_the_wait_for_kernels_of_a_first_run_is_explained_once(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.setattr(console, "is_watched", lambda: True)
    with console.bar("scoring") as tell:
        for one in (lambda x: x + 1, lambda x: x + 2):
            numba.njit(one)(1)
        tell(1, 2)
    assert capsys.readouterr().err.count(console.FIRST_RUN) == 1
