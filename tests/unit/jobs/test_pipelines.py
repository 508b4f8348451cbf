"""The example pipelines are right, read the messages they speak of, and explain themselves."""

from pathlib import Path

import numpy as np
import orjson
import pytest

from jobs.offline.replay import codec_of
from jobs.validate import check
from streamad.config import load_pipeline

FOLDER = Path(__file__).resolve().parents[3] / "jobs" / "pipelines"
FILES = sorted(FOLDER.glob("*.yaml"))


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_an_example_is_valid_in_any_environment(path: Path):
    config = load_pipeline(path, environment={})
    operator = check(path, config, strict=True)
    assert operator.degraded == ""
    assert config.name == path.stem


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_an_example_begins_by_saying_what_it_is_for(path: Path):
    lines = path.read_text().splitlines()
    assert lines[0].startswith("# ")
    assert sum(line.strip().startswith("#") for line in lines) >= 3


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_the_message_an_example_shows_is_read_by_it(path: Path):
    """Comments drift; the messages in them are decoded by the very pipeline below."""
    config = load_pipeline(path, environment={})
    shown = [
        line.removeprefix("#").strip().encode()
        for line in path.read_text().splitlines()
        if line.startswith("#   {")
    ]
    if config.input.format != "json" or not shown:
        pytest.skip("shows no JSON")
    assert all(orjson.loads(message) for message in shown)
    offsets = np.arange(len(shown), dtype=np.int64)
    decoded = codec_of(config).decode(shown, offsets, offsets)
    assert decoded.rejected == []
    assert len(decoded.batch) == len(shown)
