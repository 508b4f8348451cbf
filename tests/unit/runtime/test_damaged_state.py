"""No number in a saved state, whatever it is, makes a kernel read where nothing is."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]


@pytest.mark.parametrize("detector", ["robust_z", "knn"])
def test_a_damaged_number_is_refused_or_harmless(detector: str):
    done = subprocess.run(
        [sys.executable, "-m", "tests.unit.runtime.damaged_state", detector],
        cwd=ROOT,
        env={**os.environ, "NUMBA_DISABLE_JIT": "1", "PYTHONWARNINGS": "ignore"},
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert "refused" in done.stdout
