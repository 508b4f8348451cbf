"""Kill, freeze and double the processes of a pipeline: ``make chaos SEED=7 MINUTES=30``."""

from __future__ import annotations

import argparse
import shutil
import time
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from streamad.testing.kafka_broker import DEFAULT_LIBS
from tests.chaos.chaos import Chaos

LOGS = Path(".cache/chaos")


def main() -> int:
    """Run, and print what was done and what came of it."""
    parser = argparse.ArgumentParser(prog="make chaos", description=__doc__)
    parser.add_argument("--seed", type=int, default=1, help="of the acts and of the input")
    parser.add_argument("--minutes", type=float, default=2.0, help="how long acts go on")
    parser.add_argument(
        "--calm-clock", action="store_true", help="without series.silence: alerts are compared too"
    )
    options = parser.parse_args()
    console, began_s = Console(stderr=True), time.monotonic()
    logs = LOGS / f"seed-{options.seed}"
    shutil.rmtree(logs, ignore_errors=True)
    chaos = Chaos(
        seed=options.seed,
        minutes=options.minutes,
        libs=DEFAULT_LIBS,
        logs=logs,
        silence=not options.calm_clock,
    )
    columns = (
        TextColumn("chaos"),
        BarColumn(),
        TextColumn("{task.description}"),
        TimeRemainingColumn(),
    )
    broken = ""
    with Progress(*columns, console=console, disable=not console.is_terminal) as bar:
        task = bar.add_task("starting", total=1.0)
        try:
            chaos.run(tell=lambda done, what: bar.update(task, completed=done, description=what))
        except AssertionError as error:
            broken = f"{error}"
    acts = ", ".join(f"{n} {name}" for name, n in chaos.acts.most_common())
    ends = ", ".join(f"{n} {name}" for name, n in chaos.endings.most_common())
    sizes = ", ".join(f"{n:,} {name}" for name, n in chaos.sizes.items())
    console.print(f"seed {options.seed}, {time.monotonic() - began_s:.0f} s: {acts}", markup=False)
    console.print(f"processes that ended: {ends or 'none'}", markup=False)
    console.print(f"caught up {chaos.settled_s:.0f} s after the last act; {sizes}", markup=False)
    if broken:
        console.print(f"NOT as a calm run: {broken}\nlogs of each process: {logs}", markup=False)
        return 1
    console.print("what was written is what a calm run writes")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
