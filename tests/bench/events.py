"""Measure detectors of events on labelled data: AUC and AP per member and seed, and speed.

Run ``python tests/bench/events.py --data ../shared/data/events``. Two sets: ids2017_cat, fitted on
distinct events with their counts, and NSL-KDD, fitted on the normal rows of the 20 % file, all 41
fields, numbers in the cells the vocabulary chooses; neither the attack's name nor its difficulty is
a field. Test labels are read for the table alone. Without the data there is nothing to print.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl
from numpy.typing import NDArray
from sklearn.ensemble import IsolationForest
from sklearn.metrics import average_precision_score, roc_auc_score

from streamad.detectors.events.ape import Ape
from streamad.detectors.events.rare import RareEvents
from streamad.events.members import N_CLOSED, Members
from streamad.events.rows import EventRows
from streamad.training.ape import ApeRecipe, train_ape

CLOSED = (
    "marginal, distinct", "marginal, by count", "-PMI, distinct", "-PMI, by count",
    "rarest pair, distinct", "rarest pair, by count",
)  # fmt: skip
Scores = NDArray[np.float64]


@dataclass(frozen=True)
class Labelled:
    """Training events, how often each happened, test events and which of these are anomalies."""

    name: str
    train: EventRows
    counts: NDArray[np.float64] | None
    test: EventRows
    strange: NDArray[np.bool_]


def rows(fields: pl.DataFrame) -> EventRows:
    return EventRows(np.arange(len(fields), dtype=np.int64), fields)


def ids2017(data: Path) -> Labelled:
    train, test = (
        pl.read_csv(data / "ids2017_cat" / f"{part}.csv", infer_schema_length=0)
        for part in ("train", "test")
    )
    fields = [name for name in test.columns if name != "label"]
    return Labelled(
        "ids2017_cat",
        rows(train.select(fields)),
        train["count"].cast(pl.Float64).to_numpy(),
        rows(test.select(fields)),
        (test["label"] == "-1").to_numpy(),
    )


def nsl_kdd(data: Path) -> Labelled:
    folder = data / "nsl_kdd"
    names = pl.read_csv(folder / "field_names.csv", has_header=False)
    kinds = {
        name: pl.String if kind == "symbolic" else pl.Float64 for name, kind in names.iter_rows()
    }
    kinds = {name.strip(): kind for name, kind in kinds.items()}
    schema = {**kinds, "attack": pl.String, "difficulty": pl.Float64}
    train, test = (
        pl.read_csv(folder / name, has_header=False, schema=schema)
        for name in ("KDDTrain+_20Percent.txt", "KDDTest+.txt")
    )
    normal = train.filter(pl.col("attack") == "normal")
    fields = list(kinds)
    strange = (test["attack"] != "normal").to_numpy()
    return Labelled(
        "nsl_kdd", rows(normal.select(fields)), None, rows(test.select(fields)), strange
    )


def forest(one: Labelled, seed: int) -> Scores:
    """Isolation forest on one-hot ids of the same vocabulary."""
    members = fitted(RareEvents(seed=seed), one)
    vocabulary = members.vocabulary

    def one_hot(items: EventRows) -> NDArray[np.uint8]:
        made = np.zeros((len(items), vocabulary.n_ids), np.uint8)
        ids = vocabulary.encode(items).astype(np.int64) + vocabulary.starts
        np.put_along_axis(made, ids, 1, axis=1)
        return made

    model = IsolationForest(random_state=seed).fit(one_hot(one.train))
    return -model.score_samples(one_hot(one.test))


def fitted(detector: RareEvents, one: Labelled) -> Members:
    detector.fit(one.train, counts=one.counts)
    assert detector._members is not None
    return detector._members


def members_of(one: Labelled, seed: int) -> Iterator[tuple[str, Scores]]:
    """Yield the scores of everything, for one seed."""
    yield "random", np.random.default_rng(seed).random(len(one.test))
    yield "isolation forest, one-hot", forest(one, seed)
    rare = RareEvents(seed=seed)
    members = fitted(rare, one)
    codes = members.vocabulary.encode(one.test)
    closed = members.of(codes)
    for number, name in enumerate(CLOSED):
        yield name, closed[:, number]
    n_pairs = codes.shape[1] - 1
    yield "pair surprise, distinct", n_pairs * closed[:, 0] + closed[:, 2]
    yield "RareEvents (closed forms)", rare.score(one.test)
    ape = Ape(seed=seed)
    trained = fitted(ape, one)
    for kind in np.unique(trained.energies.kinds):
        at = N_CLOSED + np.flatnonzero(trained.energies.kinds == kind)
        scores = trained.of(trained.vocabulary.encode(one.test))
        name = ("paper's loss", "ranking loss")[int(kind)]
        yield f"  kept: {name}, one model", scores[:, at[0]]
    yield "Ape (shipped)", ape.score(one.test)


def measure(one: Labelled, n_seeds: int) -> None:
    found: dict[str, list[tuple[float, float]]] = {}
    for seed in range(n_seeds):
        for name, scores in members_of(one, seed):
            auc = float(roc_auc_score(one.strange, scores))
            ap = float(average_precision_score(one.strange, scores))
            found.setdefault(name, []).append((auc, ap))
    share = one.strange.mean()
    print(f"\n{one.name}: {len(one.train):,} training events, {len(one.test):,} test events, ")
    print(f"{share:.1%} of them anomalies; {n_seeds} seeds, mean +- standard deviation")
    print(f"  {'':32} {'AUC':>14} {'AP':>14}   seeds")
    for name, each in found.items():
        mean, spread = np.mean(each, axis=0), np.std(each, axis=0)
        print(
            f"  {name:32} {mean[0]:.3f} +- {spread[0]:.3f} {mean[1]:.3f} +- {spread[1]:.3f}   "
            f"{len(each)}"
        )


def single_models(one: Labelled, n_seeds: int) -> None:
    """Print single models of either loss, kept or not, trained as `Ape` trains its own."""
    members = fitted(RareEvents(), one)
    vocabulary = members.vocabulary
    counts = np.ones(len(one.train)) if one.counts is None else one.counts
    frame = one.train.fields.with_columns(mass=counts)
    once = frame.group_by(one.train.names, maintain_order=True).agg(pl.col("mass").sum())
    events = vocabulary.encode(rows(once.drop("mass")))
    rows_of = vocabulary.encode(one.test).astype(np.int64) + vocabulary.starts
    for loss, bias in (("binary", False), ("binary", True), ("ranking", True)):
        aucs = []
        for seed in range(n_seeds):
            recipe = ApeRecipe(loss=loss, bias=bias)
            sizes = vocabulary.sizes.tolist()
            mass = np.log1p(once["mass"].to_numpy())
            model = train_ape(events, mass, sizes, seed=seed, due=vocabulary.due, recipe=recipe)
            first, second = np.triu_indices(rows_of.shape[1], 1)
            energy = -model.biases[rows_of].sum(axis=1)
            for pair, (i, j) in enumerate(zip(first, second, strict=True)):
                together = model.vectors[rows_of[:, i]] * model.vectors[rows_of[:, j]]
                energy -= model.weights[pair] * together.sum(axis=1)
            aucs.append(float(roc_auc_score(one.strange, energy)))
        how = f"single APE, {loss}, {'bias' if bias else 'no bias'}"
        each = ", ".join(f"{auc:.3f}" for auc in aucs)
        print(f"  {how:32} {np.mean(aucs):.3f} +- {np.std(aucs):.3f} ({each})")


def speed(one: Labelled, n: int) -> None:
    """Print events per CPU second on one core."""
    chosen = np.random.default_rng(0).integers(0, len(one.train), n)
    items = one.train[chosen]
    print(f"\nspeed on {one.name}, m = {len(items.names)}, batches of {n:,}, events per CPU second")
    for make in (RareEvents, Ape):
        detector = make()
        members = fitted(detector, one)
        codes = members.vocabulary.encode(items)
        parts: dict[str, Callable[[], object]] = {
            "encode alone": lambda m=members: m.vocabulary.encode(items),
            "members alone": lambda m=members, c=codes: m.of(c),
            "score, all included": lambda d=detector: d.score(items),
        }
        for name, part in parts.items():
            part()
            times = []
            for _ in range(5):
                begun = time.process_time()
                part()
                times.append(time.process_time() - begun)
            print(f"  {detector.info.name:12} {name:22} {n / min(times):12,.0f}")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, default=Path("../shared/data/events"))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--single", action="store_true", help="single models of either loss, too")
    given = parser.parse_args()
    if not given.data.exists():
        print(f"{given.data} holds no data; give --data")
        return 0
    for load in (ids2017, nsl_kdd):
        one = load(given.data)
        measure(one, given.seeds)
        if given.single:
            single_models(one, given.seeds)
        speed(one, given.rows)
    return 0


if __name__ == "__main__":
    sys.exit(main())
