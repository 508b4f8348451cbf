"""Prove that the base environment alone serves: run by `make test-base`, outside the repository.

The interpreter holds the wheel and requirements/base.txt, nothing else. It must import all that
does not belong to an extra, score with every detector of signals, and answer on the command line.
"""

from __future__ import annotations

import importlib
import importlib.util
import pkgutil
import subprocess
import sys
from pathlib import Path

import numpy as np

ABSENT = ("torch", "pyflink", "transformers", "onnx", "pytest")
# Rooms that belong to an extra; `tests/unit/test_house.py` knows the same.
EXTRA_ROOMS = (
    "streamad.networks",
    "streamad.training",
    "streamad.runtime.keyed.flink",
    "jobs.flink",
)


def say(line: str) -> None:
    """Print one line of the report."""
    sys.stdout.write(f"{line}\n")


def import_everything() -> int:
    """Import every module of the three packages that needs no extra."""
    count = 0
    for top in ("streamad", "connectors", "jobs"):
        package = importlib.import_module(top)
        assert package.__file__ is not None
        assert "site-packages" in package.__file__, f"{top} is not the installed one"
        for module in pkgutil.walk_packages(package.__path__, f"{top}.", onerror=lambda _: None):
            if not module.name.startswith(EXTRA_ROOMS) and not module.name.endswith("__main__"):
                importlib.import_module(module.name)
                count += 1
    return count


TRAINED_BY_TORCH = {"hypad"}
"""Detectors of signals that ``fit`` with torch alone; a unit test shows that they score without."""


def score_with_every_signal_detector() -> list[str]:
    """Fit and score; a detector that needs torch would fail here, and one that is trained by it
    names the extra to install."""
    from streamad.detectors import DETECTORS
    from streamad.errors import ConfigError

    scored = []
    for name in DETECTORS:
        kind = DETECTORS.load(name)
        if kind.info.modality != "signals":
            continue
        detector = kind()
        rng = np.random.default_rng(7)
        windows = rng.normal(size=(128, detector.size, 1)).astype(np.float32)
        try:
            detector.fit(windows)
        except ConfigError as error:
            if name in TRAINED_BY_TORCH and "pip install 'streamad-pipeline[train]'" in str(error):
                continue
            raise
        memory = detector.new_memory(1)
        slots = None
        if memory is not None:
            memory.reserve(1)
            slots = np.zeros(len(windows), np.int32)
        scores = detector.score(windows, memory=memory, slots=slots)
        assert scores.shape == (len(windows),), name
        assert np.isfinite(scores).all(), name
        scored.append(name)
    return scored


def main() -> None:
    """Run all of it; any failure is an exception."""
    there = [name for name in ABSENT if importlib.util.find_spec(name)]
    assert not there, f"the base environment holds {there}; it must not"
    say(f"imported {import_everything()} modules without {', '.join(ABSENT)}")
    scored = score_with_every_signal_detector()
    assert scored, "the registry names no detector of signals"
    say(f"scored with {', '.join(scored)}")
    command = Path(sys.executable).with_name("streamad")
    for arguments in (["--help"], ["detectors"]):
        ended = subprocess.run([command, *arguments], check=True, capture_output=True, text=True)
        assert ended.stdout.strip(), f"streamad {arguments} printed nothing"
        say(f"streamad {' '.join(arguments)}: {len(ended.stdout.splitlines())} lines")


if __name__ == "__main__":
    main()
