"""Make hosts.csv: a week of two hosts, every ten minutes; each of them fails once."""

from __future__ import annotations

import csv
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np

FILE = Path(__file__).with_name("hosts.csv")
BEGIN = datetime(2026, 3, 2, tzinfo=UTC)
STEP, N = timedelta(minutes=10), 7 * 144


def main() -> None:
    """Write the file."""
    rng = np.random.default_rng(7)
    day = np.sin(2 * np.pi * (np.arange(N) / 144 - 0.3))
    series = {}
    for host, load in (("web-1", 40.0), ("web-2", 34.0)):
        requests = rng.poisson(load * (10 + 5 * day)).astype(float)
        cpu = 5 + requests / load * 3 + rng.normal(0, 1.2, N)
        series[host, "cpu"], series[host, "requests"] = cpu, requests
    series["web-1", "cpu"][760:767] = 97 + rng.normal(0, 1, 7)
    series["web-2", "requests"][890:902] = 0
    with FILE.open("w", newline="") as file:
        rows = csv.writer(file, lineterminator="\n")
        rows.writerow(["ts", "host", "metric", "value"])
        for i in range(N):
            at = (BEGIN + i * STEP).strftime("%Y-%m-%dT%H:%M:%SZ")
            rows.writerows([at, *key, f"{values[i]:.1f}"] for key, values in series.items())


if __name__ == "__main__":
    main()
