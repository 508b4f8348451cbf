"""Make hosts.csv, a week of two hosts, each of which fails once, and logins.csv.

The latter is four weeks of a team's logins, in which three are not theirs.
"""

from __future__ import annotations

import csv
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np

FILE = Path(__file__).with_name("hosts.csv")
LOGINS = Path(__file__).with_name("logins.csv")
BEGIN = datetime(2026, 3, 2, tzinfo=UTC)
STEP, N = timedelta(minutes=10), 7 * 144


TEAM = {
    "alice": (("web-1", "web-2", "git"), ("laptop-1",)),
    "bob": (("db-1", "git"), ("laptop-2", "vpn")),
    "carol": (("web-2", "db-1", "git"), ("laptop-3", "vpn")),
    "deploy": (("web-1", "web-2"), ("ci",)),
}
"""Who logs in to what, from where."""
ODD = (
    (24, 3, "carol", "db-1", "185.220.101.7", "password"),
    (25, 14, "deploy", "db-1", "ci", "key"),
    (22, 11, "alice", "web-1", "laptop-2", "password"),
)
"""Day, hour, user, host, origin and method of what none of them did."""


def logins() -> None:
    """Write the logins."""
    rng = np.random.default_rng(11)
    rows = []
    for user, (hosts, origins) in TEAM.items():
        for day in range(28):
            if user != "deploy" and day % 7 > 4:
                continue
            for second in rng.integers(7 * 3600, 18 * 3600, 36):
                at = BEGIN + timedelta(days=day, seconds=int(second))
                host, origin = rng.choice(hosts), rng.choice(origins)
                method = "password" if user != "deploy" and rng.random() < 0.2 else "key"
                rows.append((at, user, host, origin, method))
    rows += [(BEGIN + timedelta(days=d, hours=h, minutes=17), *odd) for d, h, *odd in ODD]
    with LOGINS.open("w", newline="") as file:
        table = csv.writer(file, lineterminator="\n")
        table.writerow(["ts", "user", "host", "origin", "method"])
        table.writerows((f"{at:%Y-%m-%dT%H:%M:%SZ}", *row) for at, *row in sorted(rows))


def main() -> None:
    """Write the files."""
    logins()
    rng = np.random.default_rng(59)
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
