"""A pause in a file raises no clock alert; a row that stands alone ahead of the others does."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from jobs.build import build_detect
from jobs.offline.backtest import Backtest, replay
from jobs.offline.pauses import _resumed
from jobs.offline.replay import read_file
from streamad.config import PipelineConfig
from streamad.windows.arrays import NEVER

T0 = 1_700_000_000_000
HOUR = 3_600_000


def config() -> PipelineConfig:
    return PipelineConfig.model_validate(
        {
            "name": "p",
            "input": {"fields": {"key": "host", "time": "ts", "values": ["v"]}},
            "detector": "robust_z",
            "windows": {"size": 16},
        }
    )


def backtest(path: Path, times: list[int], keys: int = 5) -> Backtest:
    rng = np.random.default_rng(0)
    lines = [
        f'{{"host":"h{i % keys}","ts":{at},"v":{rng.normal():.3f}}}' for i, at in enumerate(times)
    ]
    path.write_text("\n".join(lines))
    return replay(build_detect(config()), read_file(path, config()))


def clock_alerts(made: Backtest) -> list[str]:
    return [finding.key for finding in made.findings if finding.kind == "clock"]


def days(n: int) -> list[int]:
    """Return times of working days of nine hours, every minute."""
    return [T0 + day * 24 * HOUR + at * 60_000 for day in range(n) for at in range(540)]


def test_a_pause_of_any_length_is_one(tmp_path: Path):
    made = backtest(tmp_path / "a.jsonl", days(4))
    assert not clock_alerts(made)
    assert not made.account.rejected
    assert made.account.judged == made.account.windows == 4 * 540 - 5 * 15
    # The same rows, as a topic would bring them: nobody knows what comes next.
    parts = [*read_file(tmp_path / "a.jsonl", config())]
    live = replay(
        build_detect(config()),
        [type(part)(source=part.source, decoded=part.decoded) for part in parts],
    )
    assert clock_alerts(live)
    assert live.account.rejected["time_ahead"]


def test_a_row_alone_ahead_of_the_others_has_a_wrong_clock(tmp_path: Path):
    times = days(2)
    times[100] += 365 * 24 * HOUR
    times[-1] += 365 * 24 * HOUR  # at the end nothing confirms it
    made = backtest(tmp_path / "a.jsonl", times)
    assert made.account.rejected == {"time_ahead": 2}
    assert clock_alerts(made) == ["h0", "h4"]


@pytest.mark.parametrize("cut", [1, 99, 100, 101, 103])
def test_it_does_not_matter_where_a_file_is_cut_into_batches(cut: int):
    times = np.concatenate([np.arange(100), 10_000 + np.arange(100)]).astype(np.int64)
    times[50] = 9_000
    shown = np.array([NEVER], np.int64)
    first, rest = times[:cut], times[cut:]
    found = _resumed(first, rest[:64], shown, 1_000)
    found += [cut + at for at in _resumed(rest, np.empty(0, np.int64), shown, 1_000)]
    assert found == [100]
