"""What a partition's keys may take follows from the limit of the process, unless it is set."""

from __future__ import annotations

import os

import pytest

from jobs.memory import LEAST_BYTES, Limit, bounded, limit_of_process, per_partition
from streamad.config import parse_pipeline

MIB, GIB = 2**20, 2**30
PHYSICAL = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


@pytest.mark.parametrize("name", ["memory.max", "memory/memory.limit_in_bytes"])
def test_the_limit_of_the_control_group_is_the_process_s(tmp_path, name):
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).write_text(f"{PHYSICAL // 2}\n")
    assert limit_of_process(tmp_path) == (PHYSICAL // 2, True)


@pytest.mark.parametrize("text", ["max\n", f"{2**63 - 4096}\n", "", None])
def test_where_none_is_set_it_is_the_machine_s_memory(tmp_path, text):
    if text is not None:
        (tmp_path / "memory.max").write_text(text)
    assert limit_of_process(tmp_path) == (PHYSICAL, False)


@pytest.mark.parametrize(
    ("limit", "partitions", "expected"),
    [
        (Limit(2 * GIB, own=True), 1, 960 * MIB),
        (Limit(2 * GIB, own=True), 12, 121 * MIB),
        (Limit(2 * GIB, own=False), 1, 480 * MIB),
        (Limit(256 * MIB, own=True), 1, 40 * MIB),
        (Limit(64 * GIB, own=True), 4, 4 * GIB),
        (Limit(1 * GIB, own=True), 500, LEAST_BYTES),
        (Limit(2 * GIB, own=True), 0, 960 * MIB),
    ],
)
def test_partitions_share_what_the_process_leaves(limit, partitions, expected):
    assert per_partition(limit, partitions, most=4 * GIB) == expected


def test_a_setting_of_the_user_stays_and_nothing_else_changes():
    given = parse_pipeline("name: a\nseries: {max_memory: 3GiB, max_keys: 5}")
    assert bounded(given, 9) is given
    unset = parse_pipeline("name: a\nseries: {max_keys: 5}")
    made = bounded(unset, 1_000)
    assert made.series.max_memory == LEAST_BYTES < unset.series.max_memory
    assert made.series.max_keys == 5
    assert made.state_checksum() == unset.state_checksum()
