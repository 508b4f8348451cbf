"""A snapshot takes little memory beside the state, going out and coming back."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from connectors.memory import MemoryTopics
from connectors.snapshot_stores import FileSnapshots, TopicSnapshots
from jobs.build import build_detect
from streamad.config import parse_pipeline
from streamad.ports import Snapshot, Source
from streamad.runtime import snapshots

ROOT = Path(__file__).resolve().parents[3]
HERE = Source("in", 0)
CONFIG = "name: t\ndetector: knn\nseries: {max_keys: 100000}\n"
MIB = 2**20

MEASURE = """
import re, sys
from tests.unit.runtime.test_snapshot_memory import filled, operator
from streamad.runtime import snapshots

def peak():
    # Of this program alone: what getrusage counts begins with the process it was started from.
    status = open("/proc/self/status").read()
    return int(re.search(r"VmHWM:\\s+(\\d+) kB", status)[1]) * 1024

op = operator()
small = filled(op, 10)
op.new_state().restore(*small.save(op.identity), identity=op.identity)
list(snapshots.Chunks(small, identity=op.identity))
begin = peak()
state = filled(op, int(sys.argv[1]))
held = peak()
chunks = snapshots.Chunks(state, identity=op.identity)
for _ in chunks:
    pass
written = peak()
kept = snapshots.encode(state, identity=op.identity)
n_bytes = chunks.n_bytes
del state, chunks
again = op.new_state()
snapshots.restore(again, kept, identity=op.identity)
print(held - begin, written - held, peak() - held, n_bytes, op.new_state().bytes_per_key)
"""


def operator():
    return build_detect(parse_pipeline(CONFIG))


def filled(op, n):
    """Return a state of keys whose memory is noise: what compresses least."""
    state = op.new_state()
    rng = np.random.default_rng(1)
    for start in range(0, n, 500):
        names = [f"host-{number}.example" for number in range(start, min(n, start + 500))]
        codes = state.keys.add(names)
        state.add(codes.tolist(), [True] * len(names), [{}] * len(names))
        size = (len(codes), *state.memory.samples.shape[1:])
        state.memory.samples[codes] = rng.normal(size=size)
        state.memory.n_samples[codes] = 7
    return state


@pytest.mark.skipif(sys.platform != "linux", reason="peaks are read from /proc")
def test_beside_the_state_there_are_some_slices_of_it_at_the_most():
    n = 8_000
    run = subprocess.run(
        [sys.executable, "-c", MEASURE, str(n)], cwd=ROOT, text=True, capture_output=True,
        timeout=600, check=True,
    )  # fmt: skip
    held, writing, reading, n_bytes, per_key = map(int, run.stdout.split())
    assert held > 100 * MIB
    # Growth included: there is no time at which there are two copies of a table.
    assert held <= n * per_key + 32 * MIB
    assert writing < 32 * MIB
    # Coming back there is the snapshot as it is stored, too.
    assert reading < n_bytes + 64 * MIB


@pytest.mark.parametrize("n", [0, 1, 700])
def test_what_was_written_comes_back(n):
    op = operator()
    state = filled(op, n)
    kept = snapshots.encode(state, identity=op.identity)
    again = op.new_state()
    snapshots.restore(again, kept, identity=op.identity)
    assert again.keys.decode(again.keys.live()).to_list() == [
        f"host-{number}.example" for number in range(n)
    ]
    assert all(len(chunk) == snapshots.CHUNK_BYTES for chunk in kept[:-1])
    header, _, arrays = state.save(op.identity)
    for made in (again, op.adopt(state)):
        theirs = made.save(op.identity)
        assert theirs[0] == header
        assert theirs[2].keys() == arrays.keys()
        for name, array in arrays.items():
            np.testing.assert_array_equal(theirs[2][name], array, name)


def test_keys_that_are_there_stay_where_fewer_are_allowed():
    op = operator()
    state = filled(op, 50)
    fewer = op.under(op.config.decision_settings() | {"series.max_keys": 20})
    made = fewer.adopt(state)
    assert made.n_keys == 50
    assert (made.memory.n_samples[made.keys.live()] == 7).all()


def snapshot(offset: int, parts: list[bytes]) -> Snapshot:
    return Snapshot(offset=offset, log_offset=0, checksum="c", chunks=iter(parts))


def test_a_snapshot_that_was_given_up_costs_no_whole_one():
    topics = MemoryTopics()
    topics.make("state", 1)
    store = TopicSnapshots("state", topics)
    for offset, parts in ((1, [b"a"] * 3), (2, [b"b"] * 4)):
        for record in store.records(HERE, snapshot(offset, parts)):
            topics.write(record)
        store.save(HERE, snapshot(offset, parts))
    # Twice the process loses the partition in the middle, and stays.
    for _ in range(2):
        for record, _ in zip(store.records(HERE, snapshot(3, [b"c"] * 9)), range(5), strict=False):
            topics.write(record)
        found = store.load(HERE, up_to=9)
        assert found is not None
        assert (found.offset, found.chunks) == (2, [b"b"] * 4)
    for record in store.records(HERE, snapshot(4, [b"d"])):
        topics.write(record)
    store.save(HERE, snapshot(4, [b"d"]))
    for there in (store, TopicSnapshots("state", topics)):
        found = there.load(HERE, up_to=9)
        assert found is not None
        assert (found.offset, found.chunks) == (4, [b"d"])
    # Nothing of what was given up stays in the topic once it is compacted.
    assert all(one.value != b"c" for one in topics.compacted("state").values())


def test_files_are_written_as_they_are_made(tmp_path: Path):
    store = FileSnapshots(str(tmp_path), pipeline="p")
    assert list(store.records(HERE, snapshot(5, [b"x"]))) == []
    store.save(HERE, snapshot(5, [b"x", b"y"]))
    found = store.load(HERE, up_to=5)
    assert found is not None
    assert found.chunks == [b"x", b"y"]
