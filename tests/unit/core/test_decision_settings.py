"""State is bound to the settings that change decisions: the list of them is neither short nor long.

Proved twice: by noting what the detect operator reads, and by changing every setting there is.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np
import pytest

from jobs.build import make_detector
from streamad.config import (
    DECISION_SETTINGS,
    LIGHT_SETTINGS,
    PipelineConfig,
    binds_state,
    changes_decisions,
    parse_pipeline,
)
from streamad.config.input import OWN_FIELDS
from streamad.config.section import Section
from streamad.detectors.knn import KNN
from streamad.errors import StateError
from streamad.modalities.graphs import GraphsOfEdges
from streamad.operators.call import DetectOutput
from streamad.operators.detect import DetectOperator
from streamad.operators.shard import ShardState
from streamad.records import FLAG_SUPPRESSED
from streamad.runtime import snapshots
from streamad.testing.batches import make_columns

# With as much set as there is, so that little of the operator is passed by.
CONFIG = parse_pipeline("""
name: hosts
input:
  topics: [metrics]
  fields: {key: [host, metric], variate: what, variates: [load], tags: [env]}
windows: {size: 16}
detector: {name: knn, params: {history: 512}}
series:
  step: 1s
  lateness: 2s
  gaps: {max_share: 0.3}
  silence: 30s
  ttl: 2m
  max_keys: 4
  select: {exclude: ["*idle"], tags: {env: prod}}
scoring:
  min_windows: 8
  first_day: 1m
  direction: above
  min_effect: {absolute: 0.5}
  candidate: 0.01
  exit: 0.05
alerts: {level: 0.001, group: env}
""")

OTHERS: dict[str, Any] = {
    "name": "services",
    "input.topics": ["events"],
    "input.format": "arrow",
    "input.fields.key": ["service"],
    "input.fields.time": "at",
    "input.fields.time_unit": "s",
    "input.fields.values": ["amount"],
    "input.fields.variate": "which",
    "input.fields.variates": ["memory"],
    "input.fields.tags": ["region"],
    "input.fields.where": {"kind": "load*"},
    "input.fields.rows": "metrics",
    "input.records": "edges",
    "input.fields.categories": ["process"],
    "input.fields.numbers": ["bytes"],
    "input.fields.source": "from",
    "input.fields.target": "to",
    "input.fields.source_type": "from_type",
    "input.fields.target_type": "to_type",
    "input.fields.weight": "bytes",
    "input.start": "earliest",
    "input.on_out_of_range": "latest",
    "input.repartition": True,
    "input.max_message_bytes": 1024,
    "input.max_rows_per_message": 1,
    "series.kind": "counter",
    "series.step": "2s",
    "series.aggregate": "max",
    "series.lateness": "1s",
    "series.late": "topic",
    "series.reorder": 8,
    "series.gaps.fill": "linear",
    "series.gaps.max_share": 0.1,
    "series.silence": "20s",
    "series.silence_by": "group",
    "series.gone_after": "2m",
    "series.ttl": "5m",
    "series.max_keys": 5,
    "series.max_memory": "1MiB",
    "series.max_ahead": "2h",
    "series.select.include": ["h1*"],
    "series.select.exclude": [],
    "series.select.tags": {},
    "windows.size": 32,
    "windows.stride": 2,
    "graphs.span": "2m",
    "graphs.slide": "30s",
    "graphs.max_nodes": 5,
    "graphs.max_edges": 5,
    "detector.name": "knn_fused",
    "detector.artifact": "elsewhere",
    "detector.params": {"history": 256},
    "detector.reload": "1m",
    "scoring.candidate": "1d",
    "scoring.exit": "1h",
    "scoring.min_windows": 16,
    "scoring.min_duration": 2,
    "scoring.cool_down": 9,
    "scoring.adopt_after": "1h",
    "scoring.memory": "7d",
    "scoring.timezone": "Europe/Berlin",
    "scoring.first_day": "2m",
    "scoring.update_every": 5,
    "scoring.direction": "both",
    "scoring.min_effect.absolute": 0.0,
    "scoring.min_effect.relative": 0.1,
    "alerts.level": "7d",
    "alerts.budget": "5 per week",
    "alerts.max_age": "2h",
    "alerts.update_every": "5m",
    "alerts.tenant": "shop",
    "alerts.group": "host",
    "alerts.runbook": "https://example.org/runbook",
    "alerts.links": {"logs": "https://logs.example.org/{host}"},
    "alerts.limit.per_key": 1,
    "alerts.limit.per_group": 1,
    "alerts.limit.within": "1d",
    "delivery.commit_interval": "1s",
    "delivery.snapshot_interval": "5m",
    "delivery.snapshot_store": "snapshots",
    "delivery.on_state_mismatch": "fresh",
    "delivery.max_poll_records": 1,
    "delivery.transaction_timeout": "20s",
    "flink.parallelism": 2,
    "flink.max_parallelism": 8,
    "flink.checkpoint_interval": "1s",
    "flink.checkpoint_dir": "checkpoints",
    "flink.state_backend": "hashmap",
    "flink.bundle_size": 1,
    "flink.bundle_time": "1s",
    "flink.linger": "1s",
    "flink.journal_bytes": 4096,
    "flink.transaction_timeout": "1m",
    "flink.connector_jar": "connector.jar",
    "flink.options": {"taskmanager.numberOfTaskSlots": "2"},
    "output.findings": "f",
    "output.alerts": "a",
    "output.scores": "s",
    "output.state": "t",
    "output.dead_letters": "d",
    "output.late": "l",
    "output.format": "confluent",
    "output.register_schemas": False,
}
"""Of every setting another valid value."""

FLOWS = parse_pipeline("""
name: flows
input: {topics: flows, records: edges, fields: {source: src, target: dst}}
detector: graph_vector
""")
AUDIT = parse_pipeline("""
name: audit
input: {topics: audit, records: events, fields: {categories: [user]}}
detector: rare_events
""")
BASES = {"events": AUDIT, "edges": FLOWS}
OF_OTHERS = {
    f"input.fields.{name}": BASES[kind] for kind in BASES for name in OWN_FIELDS[kind]
} | dict.fromkeys(("graphs.span", "graphs.slide", "graphs.max_nodes", "graphs.max_edges"), FLOWS)
"""Settings that records of measured values do not have, and a pipeline that has."""

NO_OTHER = {"flink.execution_mode"}
"""Settings with one valid value."""


def settings_of(section: Section, prefix: str = "") -> Iterator[str]:
    for name in type(section).model_fields:
        inner = getattr(section, name)
        if isinstance(inner, Section):
            yield from settings_of(inner, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}"


def base_of(path: str) -> PipelineConfig:
    return OF_OTHERS.get(path, CONFIG)


def changed(path: str) -> PipelineConfig:
    tree = base_of(path).model_dump(mode="json")
    if path == "input.records":
        # What records hold has fields of its own: one cannot change without the other.
        tree["input"]["fields"] = FLOWS.input.fields.model_dump(mode="json")
        tree["series"] = tree["scoring"] = {}
    *parts, last = path.split(".")
    section = tree
    for part in parts:
        section = section[part]
    assert section[last] != OTHERS[path], f"{path} has that value already"
    section[last] = OTHERS[path]
    return PipelineConfig.model_validate(tree)


class Watched:
    """A section of the configuration that notes the dotted path of whatever is read of it."""

    def __init__(self, section: Section, note: Callable[[str], None], prefix: str = "") -> None:
        self._section, self._note, self._prefix = section, note, prefix

    def __getattr__(self, name: str) -> Any:
        if name not in type(self._section).model_fields:
            found = getattr(type(self._section), name, None)
            if isinstance(found, property):
                return found.fget(self)
        value, path = getattr(self._section, name), f"{self._prefix}{name}"
        if isinstance(value, Section):
            return Watched(value, self._note, f"{path}.")
        self._note(path)
        return value


class Brittle(KNN):
    """Fails where the newest sample is a seventy-seven."""

    info = replace(KNN.info, name="brittle")

    def looks(self, windows, *, memory=None, slots=None):
        if (windows[:, -1] == 77).any():
            msg = "not that number"
            raise RuntimeError(msg)
        return super().looks(windows, memory=memory, slots=slots)


def rows() -> list[tuple[int, str, float, str]]:
    """All that can happen to a key: time, key, value, environment."""
    rng = np.random.default_rng(3)
    load = rng.normal(10, 1, 400)
    load[200:206] += 30
    load[260:266] -= 30
    load[300] = 77
    load[380:] += 30
    there = [("h1/load", 0, 400), ("h2/load", 0, 150), ("h2/load", 250, 600), ("h3/idle", 0, 9)]
    made = [
        (1 + t, key, float(load[t]) if key == "h1/load" else float(10 + t % 3), "prod")
        for key, first, past in there
        for t in range(first, past)
    ]
    made += [(100, "h4/load", 1.0, "test"), (101, "h5/load", 1.0, "prod")]
    made = sorted(made)
    made.insert(500, (5, "h1/load", 1.0, "prod"))
    return made


def process(config: PipelineConfig) -> DetectOutput:
    """Build an operator and let it see everything there is to see."""
    detector = Brittle(size=CONFIG.windows.size, **CONFIG.detector.params)
    op = DetectOperator(config, detector, groups={"h4/load": 0})
    op.covers("h1/load")
    state, seen = op.new_state(), DetectOutput()
    data = rows()
    for part in (data[:300], data[300:], [(10**6, "h1/load", 1.0, "prod")]):
        columns = [list(column) for column in zip(*part, strict=True)]
        times = 1_000 * np.array(columns[0])
        broker = int(times.max()) if len(part) > 1 else 0
        out = op.process(
            state,
            make_columns(columns[1], times, columns[2], broker_ms=broker, tags={"env": columns[3]}),
        )
        add(seen, out)
    add(seen, op.tick(state, 2 * 10**6))
    return seen


def fed(op: DetectOperator) -> ShardState:
    """Return a state that has seen something."""
    state = op.new_state()
    times, keys, values, tags = (list(column) for column in zip(*rows()[:300], strict=True))
    columns = make_columns(keys, 1_000 * np.array(times), values, tags={"env": tags})
    op.process(state, columns)
    return state


def add(seen: DetectOutput, out: DetectOutput) -> None:
    seen.findings += out.findings
    seen.scores += out.scores
    seen.rejected += out.rejected
    seen.late = np.append(seen.late, out.late)
    seen.counts += out.counts


def told(out: DetectOutput) -> list[Any]:
    """All that an operator yields, as values that can be compared."""
    columns = ("end_ms", "ordinal", "score", "p_value", "level", "newest", "newest_p")
    columns += ("newest_level", "severity", "flags")
    scores = [[getattr(log, name).tobytes() for name in columns] for log in out.scores]
    keys = [log.keys.to_list() for log in out.scores]
    return [out.findings, keys, scores, out.rejected, out.late.tolist(), dict(out.counts)]


@cache
def usual() -> DetectOutput:
    return process(CONFIG)


def test_the_rows_show_all_that_the_operator_does():
    out = usual()
    assert {(f.kind, f.state) for f in out.findings} == {
        ("anomaly", "began"),
        ("anomaly", "continues"),
        ("anomaly", "ended"),
        ("no_data", "began"),
        ("no_data", "ended"),
        ("error", "began"),
        ("clock", "began"),
    }
    assert {one.reason for one in out.rejected} == {"key_limit", "time_ahead"}
    assert len(out.late) == 1
    assert any((log.flags & FLAG_SUPPRESSED).any() for log in out.scores)
    assert {"deselected", "forgotten", "incomplete", "detector_errors"} <= set(out.counts)
    assert any("forgotten" in f.reason for f in out.findings if f.kind == "anomaly")


def test_the_operator_reads_no_setting_that_is_not_listed():
    read: set[str] = set()
    watched: Any = Watched(CONFIG, read.add)
    make_detector(watched)
    assert told(process(watched)) == told(usual())
    assert sorted(path for path in read if not changes_decisions(path)) == []
    flows: Any = Watched(FLOWS, read.add)
    GraphsOfEdges(flows, detector=None).windows()
    unread = [one for one in DECISION_SETTINGS if not any(_lies_in(path, one) for path in read)]
    assert unread == []


def test_there_is_another_value_of_every_setting():
    assert set(settings_of(CONFIG)) == OTHERS.keys() | NO_OTHER
    for one in DECISION_SETTINGS:
        assert any(_lies_in(path, one) for path in OTHERS), f"{one} names no setting"


@pytest.mark.parametrize("path", [path for path in OTHERS if not changes_decisions(path)])
def test_a_setting_that_is_not_listed_changes_nothing(path):
    config = changed(path)
    assert told(process(config)) == told(usual())
    assert config.decision_checksum() == CONFIG.decision_checksum()


@pytest.mark.parametrize("path", [path for path in OTHERS if changes_decisions(path)])
def test_state_is_bound_to_every_setting_that_is_listed(path):
    config, base = changed(path), base_of(path)
    assert config.decision_checksum() != base.decision_checksum()
    bound = config.state_checksum() != base.state_checksum()
    assert bound == binds_state(path)
    ours, theirs = base.decision_settings(), config.decision_settings()
    differing = [name for name in ours if ours[name] != theirs[name]]
    assert path in differing
    assert path == "input.records" or differing == [path]


def test_light_settings_are_settings_that_change_decisions():
    assert all(path in OTHERS and changes_decisions(path) for path in LIGHT_SETTINGS)


@pytest.mark.parametrize("path", LIGHT_SETTINGS)
def test_state_is_kept_and_known_settings_come_back(path):
    config = changed(path)
    assert config.under(CONFIG.decision_settings()) == CONFIG
    old, new = (DetectOperator(one, make_detector(one)) for one in (CONFIG, config))
    kept = snapshots.encode(fed(old), identity=old.identity)
    made = snapshots.made_by(kept)
    assert made is not None
    assert made.settings == CONFIG.decision_settings()
    back = new.under(made.settings)
    state = back.new_state()
    snapshots.restore(state, kept, identity=new.identity)
    ours = new.adopt(state)
    assert ours.n_keys > 0
    assert snapshots.encode(ours, identity=old.identity) == kept
    assert new.under(config.decision_settings()) is new


def test_settings_of_damaged_state_are_refused():
    op = DetectOperator(CONFIG, make_detector(CONFIG))
    with pytest.raises(StateError, match="settings that cannot be"):
        op.under({"series.silence": "for a while"})
    assert snapshots.made_by([b"nothing"]) is None


def _lies_in(path: str, one: str) -> bool:
    return path == one or path.startswith(f"{one}.")
