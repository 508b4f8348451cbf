"""Measure incidents: how many there are, what is joined wrongly, and the rank of the true cause.

    python tests/bench/incidents.py [--petshop high_traffic.parquet --about petshop.json]

Made faults: a layered graph of services with shared stores; a fault begins at one and travels to
its callers, which deviate less or more than it; alerts come late by the lag of a detector, some
causes are silent instead of strange, and some have no series. Beside: alerts that have nothing to
do with it, and, half the time, a second fault: no service fails of both, or calls one that fails
of the other. "per fault" counts the incidents that hold alerts of a fault, "pairs joined" the
second faults that were made one incident with the first.

PetShop (CC-BY-4.0, amazon-science/petshop-root-cause-analysis): 26 injected faults; the product's
detectors judge each series. ``--about`` is JSON: ``columns`` (column to service and metric),
``edges`` (caller, callee), ``roots`` (the injected service, in the order of the file).

The baseline of joining joins what overlaps in time; those of ranking are the same without the
topology, the strongest alert (silence has the strength of the boundary), and chance.
"""

from __future__ import annotations

import argparse
import json
import math
import random
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from jobs.build import build_detect
from streamad.alerting.config import AlertingConfig
from streamad.config import PipelineConfig
from streamad.incidents import Affected
from streamad.operators.detect import Position
from streamad.paging.desk import Desk
from streamad.paging.incidents import causes
from streamad.paging.incidents.habits import Habits
from streamad.paging.incidents.linking import Linker
from streamad.paging.incidents.links import GROUP, Linking, Mark
from streamad.paging.incidents.topology import Topology
from streamad.records import Finding
from streamad.testing.batches import make_columns

MINUTE = 60_000
STEP_MS = 5 * MINUTE
METRICS = ("latency", "errors", "requests")


class TimeOnly(Linker):
    """The baseline: what overlaps in time is one incident."""

    def _marks(self, tenant: str, member: Affected) -> tuple[Mark, ...]:
        del member
        return ((GROUP, tenant, "", ""),)

    def _probes(self, habits: Habits, tenant: str, member: Affected) -> Iterator[Mark]:
        del habits, member
        yield (GROUP, tenant, "", "")


@dataclass
class Case:
    """Findings of known faults; ``of`` maps the id of an alert to its fault, -1 of none."""

    findings: list[Finding]
    of: dict[str, int]
    roots: list[str]
    topology: Topology


@dataclass
class Result:
    """What became of cases."""

    n_alerts: int = 0
    n_faults: int = 0
    n_incidents: int = 0
    n_split: int = 0
    n_mixed: int = 0
    n_foreign: int = 0
    ranks: dict[str, list[float]] = field(default_factory=dict)

    def line(self, name: str) -> dict[str, Any]:
        """Return a row of the table."""
        return {
            "joined by": name,
            "alerts": self.n_alerts,
            "faults": self.n_faults,
            "incidents": self.n_incidents,
            "per fault": round(self.n_split / max(self.n_faults, 1), 2),
            "pairs joined": self.n_mixed,
            "of no fault joined": self.n_foreign,
        }


# ---------------------------------------------------------------------- made faults


def made_graph(rng: random.Random, n: int) -> list[tuple[str, str]]:
    """Return layers of services, each calling a few of the layer below; stores are shared."""
    layers = [max(1, n // 12), n // 4, n // 3, n // 3]
    names: list[list[str]] = []
    for depth, size in enumerate(layers):
        names.append([f"s{depth}-{i}" for i in range(size)])
    return [
        (caller, callee)
        for upper, lower in pairwise(names)
        for caller in upper
        for callee in rng.sample(lower, min(len(lower), rng.choice((1, 2, 2, 3))))
    ]


def affected(rng: random.Random, edges: Sequence[tuple[str, str]], root: str) -> dict[str, int]:
    """Return the services that a fault reaches, with the steps from it."""
    found, edge = {root: 0}, [root]
    while edge:
        at = edge.pop(0)
        for caller in sorted({a for a, b in edges if b == at}):
            if caller not in found and rng.random() < 0.75:
                found[caller] = found[at] + 1
                edge.append(caller)
    return found


def made_case(seed: int) -> Case:
    """Return one or two faults in a graph, and alerts of no fault."""
    rng = random.Random(seed)  # noqa: S311 - made faults
    edges = made_graph(rng, 60)
    services = sorted({name for edge in edges for name in edge})
    below = [name for name in services if not name.startswith("s0")]
    case = Case([], {}, [], Topology(edges))
    taken: set[str] = set()
    for number in range(1 + seed % 2):
        reach = _fault(rng, edges, below, taken)
        if not reach:
            continue
        taken |= reach.keys()
        _spread(case, rng, edges, reach, number)
    for _ in range(rng.randint(3, 8)):
        name = rng.choice([one for one in services if one not in taken])
        _add(case, -1, f"{name}/{rng.choice(METRICS)}", rng.randint(-600_000, 600_000),
             10 ** -rng.uniform(4.1, 7), "anomaly")  # fmt: skip
    return case


def _fault(
    rng: random.Random, edges: Sequence[tuple[str, str]], below: list[str], taken: set[str]
) -> dict[str, int]:
    """Return the services of a fault that has nothing to do with those taken, its root first."""
    for _ in range(200):
        reach = affected(rng, edges, rng.choice(below))
        near = {b for a, b in edges if a in reach} | {a for a, b in edges if b in reach}
        if len(reach) >= 3 and not taken & (reach.keys() | near):
            return reach
    return {}


def _spread(
    case: Case,
    rng: random.Random,
    edges: Sequence[tuple[str, str]],
    reach: dict[str, int],
    number: int,
) -> None:
    """Add the alerts of a fault."""
    root = next(iter(reach))
    case.roots.append(root)
    strong = {root: rng.uniform(5, 11)}
    unseen = rng.random() < 0.1
    for name, steps in reach.items():
        if name != root:
            calls = [b for a, b in edges if a == name and b in strong]
            above = max((strong[b] for b in calls), default=strong[root])
            strong[name] = max(4.2, above * rng.uniform(0.55, 1.25))
        if name == root and unseen:
            continue
        silent = name == root and rng.random() < 0.2
        for metric in rng.sample(METRICS, 1 if silent else rng.randint(1, 3)):
            at = steps * rng.randint(0, 20_000) + rng.randint(0, 150_000)
            kind = "no_data" if silent else "anomaly"
            p = 10 ** -(strong[name] * rng.uniform(0.8, 1.0))
            _add(case, number, f"{name}/{metric}", at, p, kind)


def _add(case: Case, fault: int, key: str, at_ms: int, p: float, kind: str) -> None:
    at_ms += 1_700_049_600_000
    service, _, metric = key.partition("/")
    name = f"{fault}-{key}-{at_ms}"
    case.of[name] = fault
    case.findings.append(
        Finding(
            id=name,
            sequence=0,
            state="began",
            kind=kind,
            pipeline="p",
            detector="d",
            artifact="",
            tenant="default",
            group="p",
            key=key,
            entity={"service": service, "metric": metric},
            window_start_ms=at_ms - MINUTE,
            window_end_ms=at_ms,
            began_ms=at_ms,
            score=9.0,
            p_value=p,
            peak_score=9.0,
            peak_p_value=p,
            level=5.0,
            n_windows=1,
            explanation=None,
            input={"topic": "t", "partition": 0, "offset": 0},
        )
    )


# ---------------------------------------------------------------------- petshop


def petshop_cases(table: Path, about: dict[str, Any], detector: str) -> Iterator[Case]:
    """Yield each injected fault: the run without one before it, and its five rows."""
    frame = pl.read_parquet(table)
    columns = list(about["columns"].items())
    values = frame.select([name for name, _ in columns]).to_numpy()
    label = frame["label"].to_numpy()
    first = int(np.flatnonzero(label)[0]) - 1
    keys = [f"{service.replace('/', '|')}/{metric}" for _, (service, metric) in columns]
    config = PipelineConfig.model_validate(
        {
            "name": "petshop",
            "input": {"fields": {"key": ["service", "metric"]}},
            "detector": detector,
            "windows": {"size": 16},
            "series": {"ttl": "365d"},
        }
    )
    topology = Topology([(a.replace("/", "|"), b.replace("/", "|")) for a, b in about["edges"]])
    operator = build_detect(config)
    for number, root in enumerate(about["roots"]):
        rows = values[np.r_[:first, first + 5 * number : first + 5 * number + 5]]
        n = len(rows)
        times = np.repeat(
            1_700_000_000_000 // STEP_MS * STEP_MS + STEP_MS * np.arange(n), len(keys)
        )
        batch = make_columns(keys * n, times, rows.ravel())
        out = operator.process(
            operator.new_state(), batch, at=Position(topic="t", partition=0)
        )  # fmt: skip
        begin_ms = int(times[-1]) - 5 * STEP_MS
        findings = [f for f in out.findings if f.window_end_ms > begin_ms]
        yield Case(findings, {f.id: 0 for f in findings}, [root.replace("/", "|")], topology)


# ---------------------------------------------------------------------- measures


def measure(cases: Iterable[Case], linker: type[Linker], rng: random.Random) -> Result:
    """Run a desk over each case."""
    result = Result(ranks={"product": [], "without topology": [], "strongest": [], "random": []})
    config = AlertingConfig.model_validate({"name": "bench", "findings": "f"})
    for case in cases:
        desk = Desk(config, case.topology)
        desk._linker = linker(config.incidents, case.topology)
        state = desk.new_state()
        ordered = sorted(case.findings, key=lambda f: (f.window_end_ms, f.key))
        out = desk.process(state, [(f, f.window_end_ms) for f in ordered])
        opened = [alert for alert in out.alerts if alert.state == "opened"]
        # Members as the desk knows them last, by incident, the merged ones with what took them.
        groups = [list(life.members.values()) for life in state.incidents.values()]
        result.n_alerts += len(opened)
        result.n_faults += len(case.roots)
        result.n_incidents += len(groups)
        for members in groups:
            faults = Counter(case.of[member.alert] for member in members)
            real = [fault for fault in faults if fault >= 0]
            result.n_split += len(real)
            result.n_mixed += max(0, len(real) - 1)
            result.n_foreign += faults[-1] if real else 0
        for fault, root in enumerate(case.roots):
            biggest = max(groups, key=lambda ms: sum(case.of[m.alert] == fault for m in ms),
                          default=[])  # fmt: skip
            _rank(result, biggest, root, desk._linker, rng)
    return result


def _rank(
    result: Result, members: list[Affected], root: str, linker: Linker, rng: random.Random
) -> None:
    ranked = causes.suspects(members, linker.linking)
    plain = _without_topology(linker)
    alone = causes.suspects(members, plain)
    strongest = causes.suspects([replace(one, kind="anomaly") for one in members], plain)
    seen = [one for one in ranked if one.members]
    chance = rng.sample(seen, len(seen))
    orders = {
        "product": ranked, "without topology": alone, "strongest": strongest, "random": chance
    }  # fmt: skip
    for name, order in orders.items():
        values = [one.entity.shown for one in order]
        place = values.index(root) + 1 if root in values else math.inf
        result.ranks[name].append(place)


def _without_topology(linker: Linker) -> Linking:
    """Return the same entities with no topology: the strongest alert alone decides."""
    return Linking(linker._config)


def shares(ranks: Sequence[float]) -> dict[str, float]:
    """Return how often the cause was first, among three, and the mean of 1/rank."""
    n = max(len(ranks), 1)
    return {
        "first": round(sum(rank <= 1 for rank in ranks) / n, 3),
        "first 3": round(sum(rank <= 3 for rank in ranks) / n, 3),
        "first 5": round(sum(rank <= 5 for rank in ranks) / n, 3),
        "1/rank": round(sum(1 / rank for rank in ranks) / n, 3),
    }


def show(title: str, cases: list[Case]) -> None:
    """Print both tables of a set of cases."""
    lines, ranks = [], []
    grouped = [
        Case([replace(one, group="all") for one in case.findings], case.of, case.roots,
             case.topology)
        for case in cases
    ]  # fmt: skip
    ways = (("links", Linker, cases), ("links, one group", Linker, grouped),
            ("time alone", TimeOnly, cases))  # fmt: skip
    for name, linker, given in ways:
        result = measure(given, linker, random.Random(0))  # noqa: S311
        lines.append(result.line(name))
        ranks += [{"joined by": name, "ranked by": how, **shares(found)}
                  for how, found in result.ranks.items()]  # fmt: skip
    with pl.Config(tbl_cols=-1, tbl_rows=-1, tbl_width_chars=160, tbl_hide_dataframe_shape=True):
        print(title, pl.DataFrame(lines), pl.DataFrame(ranks), sep="\n")


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cases", type=int, default=300)
    parser.add_argument("--seed", type=int, default=10_000)
    parser.add_argument("--petshop", type=Path)
    parser.add_argument("--about", type=Path)
    parser.add_argument("--detector", default="robust_z,knn")
    given = parser.parse_args()
    show("made faults", [made_case(given.seed + i) for i in range(given.cases)])
    if given.petshop is not None:
        about = json.loads(given.about.read_text())
        for detector in given.detector.split(","):
            show(f"PetShop, {detector}", list(petshop_cases(given.petshop, about, detector)))


if __name__ == "__main__":
    main()
