"""Measure how fast each codec decodes: points a second, per shape of message and share of poison.

Run ``python tests/bench/decode.py``; one table is printed, the best of several rounds a line.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Iterator

import numpy as np
import orjson

from connectors.codecs import FieldMap, make_codec

POISON = b'{"key":"host-1/cpu","ts":17000000000'
START_MS = 1_700_000_000_000


def points(number: int) -> list[dict[str, object]]:
    """Return readings of 500 series."""
    noise = np.random.default_rng(7).normal(size=number).round(4).tolist()
    return [
        {"key": f"host-{i % 500:03d}/cpu", "ts": START_MS + i, "value": value}
        for i, value in enumerate(noise)
    ]


def groups(number: int, size: int) -> Iterator[list[dict[str, object]]]:
    """Yield the readings in groups of one message each."""
    rows = points(number)
    for start in range(0, number, size):
        yield rows[start : start + size]


def as_lines(number: int, size: int) -> list[bytes]:
    """One object a line."""
    return [b"\n".join(map(orjson.dumps, group)) for group in groups(number, size)]


def as_arrays(number: int, size: int) -> list[bytes]:
    """Arrays of objects."""
    return [orjson.dumps(group) for group in groups(number, size)]


def as_columns(number: int, size: int) -> list[bytes]:
    """Objects of arrays."""
    return [
        orjson.dumps({name: [row[name] for row in group] for name in group[0]})
        for group in groups(number, size)
    ]


def poisoned(messages: list[bytes]) -> list[bytes]:
    """Spoil one message in a thousand, at least one."""
    spoilt = list(messages)
    spoilt[::1000] = [POISON] * len(spoilt[::1000])
    return spoilt


def best_s(work: Callable[[], object], rounds: int) -> float:
    """Return the shortest of several runs."""
    taken = []
    for _ in range(rounds):
        began = time.perf_counter()
        work()
        taken.append(time.perf_counter() - began)
    return min(taken)


def cases(number: int) -> Iterator[tuple[str, str, FieldMap, list[bytes]]]:
    """Yield name, codec, fields and messages of each line of the table."""
    fields = FieldMap()
    yield "json, 1 a message", "json", fields, as_lines(number, 1)
    yield "json, 1 a message, 0.1 % poison", "json", fields, poisoned(as_lines(number, 1))
    yield "json lines, 500 a message", "json", fields, as_lines(number, 500)
    yield "json lines, 500, one poisoned", "json", fields, poisoned(as_lines(number, 500))
    yield "json arrays, 500 a message", "json", fields, as_arrays(number, 500)
    yield "json columns, 500 a message", "json", fields, as_columns(number, 500)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--points", type=int, default=20_000)
    parser.add_argument("--rounds", type=int, default=15)
    options = parser.parse_args()
    print(f"{'case':<36}{'million points/s':>18}{'us a point':>12}{'us a message':>14}")
    for name, codec_name, fields, messages in cases(options.points):
        codec = make_codec(codec_name, fields)
        offsets = np.arange(len(messages))
        taken = best_s(lambda c=codec, m=messages, o=offsets: c.decode(m, o, o), options.rounds)
        print(
            f"{name:<36}{options.points / taken / 1e6:>18.2f}{taken / options.points * 1e6:>12.2f}"
            f"{taken / len(messages) * 1e6:>14.2f}"
        )


if __name__ == "__main__":
    main()
