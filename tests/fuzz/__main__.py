"""Fuzz for longer than a test run does: ``make fuzz MESSAGES=2000000 SEED=7``."""

from __future__ import annotations

import argparse
import hashlib
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

import harness
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TimeRemainingColumn

KEPT = Path(".cache/fuzz")


def main() -> int:
    """Run, and print what was seen; a message that breaks a promise is kept in a file."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--messages", type=int, default=200_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--kind", action="append", choices=harness.KINDS)
    options = parser.parse_args()
    console = Console(stderr=True)
    fuzzer, began_s = harness.Fuzzer(options.seed), time.monotonic()
    columns = (BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    try:
        with Progress("fuzz", *columns, console=console, disable=not console.is_terminal) as bar:
            task = bar.add_task("fuzz", total=options.messages)
            for done in fuzzer.run(options.messages, options.kind or harness.KINDS):
                bar.update(task, completed=done)
    except harness.FoundError as error:
        kept = KEPT / f"{error.kind}.{hashlib.sha256(error.payload).hexdigest()[:8]}"
        KEPT.mkdir(parents=True, exist_ok=True)
        kept.write_bytes(error.payload)
        console.print(f"{error}\nseed {options.seed}; the message is kept in {kept}", markup=False)
        return 1
    tally, taken_s = fuzzer.tally, time.monotonic() - began_s
    console.print(f"{tally.messages.total():,} messages in {taken_s:.0f} s, none failed")
    console.print(f"by kind: {dict(tally.messages)}")
    console.print(
        f"{tally.rows:,} rows, {tally.letters:,} dead-letter records; bytes in {tally.bytes_in:,}, "
        f"out {tally.bytes_out:,}; slowest batch {tally.slowest_s:.2f} s CPU; "
        f"peak {harness.peak_mb():.0f} MB"
    )
    console.print(f"by reason: {dict(tally.reasons.most_common())}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
