"""Measure HypAD: VUS-PR on the rows after ``train_end``, fitted on those before, per half.

    python -m tests.bench.hypad_quality --data signals --half odd --out hypad.jsonl

A series is of the half that the SHA-256 of its name is: HypAD's score was chosen on ``even``;
``odd`` was looked at once. Of each set three series at the most are taken (in the order of another
hash), of each series the training part and ``--rows`` rows after it. Protocol and window sizes are
those of ``quality.py``, with windows of 16 samples at the least. Random and ``|z|`` stand beside.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import time
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from streamad.detectors.hypad import HypAD
from streamad.evaluation.vus import vus
from tests.bench.quality import contract_scores, read_series, window_size

MOST_OF_A_SET = 3


def hashed(text: str) -> int:
    """Return the SHA-256 of a text as a number."""
    return int(hashlib.sha256(text.encode()).hexdigest(), 16)


def chosen(data: Path, half: str) -> list[dict[str, Any]]:
    """Return the rows of the index that are measured."""
    index = pl.read_csv(data / "index.csv").filter(
        (pl.col("test_anomalies") > 0) & ((pl.col("dims") == 1) | (pl.col("set") == "nasa"))
    )
    ours = [
        row
        for row in index.iter_rows(named=True)
        if hashed(row["series"]) % 2 == ("even", "odd").index(half)
    ]
    ours.sort(key=lambda row: f"{hashed('x' + row['series']):064x}")
    taken: Counter[str] = Counter()
    kept = []
    for row in ours:
        taken[row["set"]] += 1
        if taken[row["set"]] <= MOST_OF_A_SET:
            kept.append(row)
    return kept


def measure(row: dict[str, Any], given: argparse.Namespace) -> dict[str, Any] | None:
    """Return one series' line, or None where nothing is to be found in it."""
    values, labels = read_series(given.data / row["file"])
    begin = row["train_end"]
    values, labels = values[: begin + given.rows], labels[begin : begin + given.rows]
    if not labels.any():
        return None
    detector = HypAD(
        size=max(window_size(values, begin), HypAD.info.min_size), combination=given.combination
    )
    started = time.process_time()
    found, _, _ = contract_scores(detector, values, begin)
    seconds = time.process_time() - started
    away = np.abs(values[begin:, 0].astype(np.float64) - np.median(values[:begin]))
    scores = {
        "hypad": found.astype(np.float64),
        "abs_z": away,
        "random": np.random.default_rng(0).random(len(away)),
    }
    made = {name: vus(labels, one, window=int(row["window"])).pr for name, one in scores.items()}
    return {"set": row["set"], "series": row["series"], **made, "cpu_s": seconds}


def main() -> None:
    """Measure what is not measured yet, and print the means."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--half", choices=("even", "odd"), default="odd")
    parser.add_argument("--combination", default="certain")
    parser.add_argument("--rows", type=int, default=12_000)
    parser.add_argument("--out", type=Path, required=True, help="goes on where it is")
    given = parser.parse_args()
    lines = given.out.read_text().splitlines() if given.out.exists() else []
    done = {one["series"] for one in map(json.loads, lines)}
    for row in chosen(given.data, given.half):
        if row["series"] in done:
            continue
        line = measure(row, given)
        if line is not None:
            with given.out.open("a") as file:
                file.write(json.dumps(line) + "\n")
            print(line, flush=True)
    table = pl.read_ndjson(given.out)
    names = ("hypad", "abs_z", "random", "cpu_s")
    means = [pl.col(name).mean().round(3) for name in names]
    print(table.select(pl.len(), *means))
    print(table.group_by("set").agg(pl.len(), *means).sort("set"))


if __name__ == "__main__":
    main()
