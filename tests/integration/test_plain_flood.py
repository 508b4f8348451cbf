"""A flood of new users among events: bounded, counted, and nothing of it lost."""

from __future__ import annotations

import json
import time
from collections import Counter
from contextlib import closing

from jobs.memory import bounded
from jobs.plain.loops import detect_loop
from streamad.ports import NullTelemetry

MOST, FLOOD, KNOWN = 2_000, 20_000, 5


class Counts(NullTelemetry):
    """Counters by name and labels."""

    def __init__(self) -> None:
        self.total: Counter[str] = Counter()

    def count(self, name: str, n: float = 1, **labels: str) -> None:
        self.total["/".join((name, *labels.values()))] += int(n)


def test_a_flood_of_new_users_is_bounded_and_counted(pipeline):
    job = pipeline(
        partitions=1,
        input={"records": "events", "fields": {"key": "user", "categories": ["action"]}},
        detector="rare_events",
        series={"max_keys": MOST},
    )
    job.tree["windows"] = {}
    now = time.time_ns() // 1_000_000 - 60_000
    known = [f"known-{n % KNOWN}" for n in range(300)]
    users = [*known, *(f"new-{n}" for n in range(FLOOD)), *known]
    rows = [{"user": user, "ts": now + n, "action": "login"} for n, user in enumerate(users)]
    with closing(job.producer()) as producer:
        for at in range(0, len(rows), 400):
            lines = [json.dumps(row) for row in rows[at : at + 400]]
            producer.send(job.input, value="\n".join(lines).encode(), partition=0)
        producer.flush()
    job.create()
    counts = Counts()
    loop, kafka = detect_loop(job.config, job.settings, member="m", telemetry=counts)
    with closing(kafka):
        job.turn(loop, "detect")
        (shard,) = loop.shards.values()
        assert shard.state.n_keys == MOST
        # Not set: it follows from the memory of the process, and is what partitions are judged by.
        assert shard.judge.config.series.max_memory == bounded(job.config, 1).series.max_memory
        loop.drain()
    refused = FLOOD + KNOWN - MOST
    assert counts.total["detect_points_total"] == len(rows)
    assert counts.total["input_rejected_total/key_limit"] == refused
    scored = Counter(key for key, _, _ in job.scores())
    # Who was known before is judged on, and each of the others once or not at all, as counted.
    assert scored.total() == len(rows) - refused
    assert {scored[f"known-{n}"] for n in range(KNOWN)} == {2 * 300 // KNOWN}
    assert {n for key, n in scored.items() if key.startswith("new")} == {1}
    # Letters do not multiply a flood: one a message, with the number of its rows.
    letters = job.dead()
    assert {reason for reason, _ in letters} == {"key_limit"}
    assert len(letters) <= FLOOD // 400 + 1
