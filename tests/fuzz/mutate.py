"""Damage to messages: to their bytes, to the structure of JSON, and to protobuf's fields."""

from __future__ import annotations

import json
import random
from typing import Any

NUMBERS = (
    "0", "-0", "-0.0", "1", "-1", "0.5", "1e30", "-1e31", "1e308", "1e309", "1e-400", "5e-324",
    "1700000000000", "1700000000000.5", "1700000000", "1.7e12", "-1700000000000", "7258118400000",
    "9007199254740993", "9223372036854775807", "9223372036854775808", "-9223372036854775809",
    "18446744073709551615", "18446744073709551616", "1" * 40, "0.1e1", "01", "+1", ".5", "1.", "1e",
    "NaN", "Infinity", "-Infinity", "nan",
)  # fmt: skip
TEXTS = (
    '""', '"a"', '" "', '"1"', '"1700000000000"', '"2026-03-01T00:00:00Z"', '"2026-03-01 00:00"',
    '"0001-01-01T00:00:00+23:59"', '"9999-12-31T23:59:59.999999999Z"', '"["', '"{"', '"[1]"',
    '"{\\"a\\":1}"', '"},{"', '"\\u0000"', '"\\ud800"', '"\\ud83d\\ude00"', '"\\udc00\\ud800"',
    '"\\n"', '"\\\\"', '"a/b"', '"/"', '"\N{GRINNING FACE}"', '"\\u2028"', '"NaN"', '"Infinity"',
    '"1e999"', '"0x10"', '"1_0"', '"\N{ARABIC-INDIC DIGIT THREE}"', "'a'", '"\t"', '"\x7f"',
)  # fmt: skip
OTHERS = ("null", "true", "false", "[]", "{}", "[[]]", "[{}]", "[null]", '{"":{}}', "", "undefined")
NAMES = (
    "key", "ts", "value", "host", "disk", "dc", "metric", "v", "", "a", "a.b", "labels", "kind",
    "resourceMetrics", "scopeMetrics", "metrics", "dataPoints", "attributes", "stringValue",
)  # fmt: skip
MAX_BYTES = 4 << 20
DEPTHS = (3, 64, 126, 250, 254, 255, 256, 300, 600, 1019, 1022, 1023, 1024, 1030, 5000)


class Raw(str):
    """A piece of JSON text that is written as it is."""

    __slots__ = ()


class Members(list[Any]):
    """The members of an object: unlike a dict it may hold one twice."""


def thaw(value: Any) -> Any:
    """Turn parsed JSON into lists that can be changed."""
    if isinstance(value, dict):
        return Members([name, thaw(item)] for name, item in value.items())
    return [thaw(item) for item in value] if isinstance(value, list) else value


def write(value: Any, rng: random.Random) -> str:
    """Write what `thaw` gave, with odd spaces now and then."""
    space = rng.choice(("", "", "", "", " ", "\n", "\r\n", "\t"))
    if isinstance(value, Raw):
        return value
    if isinstance(value, Members):
        inside = (f"{json.dumps(name)}:{space}{write(item, rng)}" for name, item in value)
        return "{" + f",{space}".join(inside) + "}"
    if isinstance(value, list):
        return "[" + f",{space}".join(write(item, rng) for item in value) + "]"
    return json.dumps(value)


def odd_value(rng: random.Random) -> Raw:
    """Return a value that decoders may stumble over."""
    kind = rng.randrange(10)
    if kind == 0:
        depth = rng.choice(DEPTHS)
        opened, closed = rng.choice((("[", "]"), ('{"a":', "}")))
        return Raw(opened * depth + ("1" if closed == "}" else "") + closed * depth)
    if kind == 1:
        character = rng.choice(("k", "é", "\N{GRINNING FACE}", "\\u0001"))
        return Raw('"' + character * rng.choice((511, 512, 513, 4000)) + '"')
    if kind == 2:
        return Raw("[" + ",".join(rng.choices(NUMBERS, k=rng.choice((1, 2, 3, 120)))) + "]")
    return Raw(rng.choice((NUMBERS, NUMBERS, TEXTS, TEXTS, OTHERS)[rng.randrange(5)]))


def nodes(value: Any) -> list[tuple[Any, int]]:
    """Return every place in a value that can be changed, as its parent and index."""
    found = []
    waiting = [value]
    while waiting and len(found) < 400:
        node = waiting.pop()
        if isinstance(node, list):
            found += [(node, index) for index in range(len(node))]
            waiting += [item[1] if isinstance(node, Members) else item for item in node]
    return found


def change_json(text: bytes, rng: random.Random) -> bytes:
    """Change the structure of a JSON message; text that is no JSON comes back as it is."""
    try:
        value = thaw(json.loads(text))
    except (ValueError, RecursionError):
        return text
    for _ in range(rng.choice((1, 1, 1, 2, 3, 8))):
        places = nodes(value)
        if not places:
            return write(odd_value(rng), rng).encode("utf-8", "surrogatepass")
        parent, index = places[rng.randrange(len(places))]
        if isinstance(parent, Members):
            _change_member(parent, index, rng)
        else:
            _change_item(parent, index, rng)
    made = write(value, rng).encode("utf-8", "surrogatepass")
    # Repeated pieces within repeated pieces outgrow what a broker takes.
    return made if len(made) <= MAX_BYTES else text


def _change_member(parent: Members, index: int, rng: random.Random) -> None:
    name, value = parent[index]
    how = rng.randrange(7)
    if how <= 2:
        parent[index] = [name, odd_value(rng)]
    elif how == 3:
        del parent[index]
    elif how == 4:
        parent.insert(rng.randrange(len(parent) + 1), [name, rng.choice((odd_value(rng), value))])
    elif how == 5:
        parent[index] = [rng.choice(NAMES), value]
    else:
        parent[index] = [name, [value] * rng.choice((1, 2, 3, 130))]


def _change_item(parent: list[Any], index: int, rng: random.Random) -> None:
    how = rng.randrange(5)
    if how <= 1:
        parent[index] = odd_value(rng)
    elif how == 2:
        del parent[index]
    elif how == 3:
        parent.insert(rng.randrange(len(parent) + 1), parent[index])
    else:
        parent[index:index] = [parent[index]] * rng.choice((2, 130))


PIECES = (
    b"", b"\n", b"\r\n", b"\0", b"\xff", b"\xef\xbb\xbf", b"[", b"]", b"{", b"}", b",", b'"', b"\\",
    b"},{", b"}\n{", b"\xed\xa0\x80", b"\x80", b"\xff\xff\xff\xff", b"\x7f" + b"\xff" * 7,
    b"\x1f\x8b\x08", b"\x28\xb5\x2f\xfd", b"\x78\x9c", b"ARROW1",
)  # fmt: skip
BYTES = (0, 1, 0x7F, 0x80, 0xFF, 0x0A, 0x22)


def change_bytes(text: bytes, other: bytes, rng: random.Random) -> bytes:
    """Flip, cut, repeat, splice: what a bad wire or a wrong producer does."""
    made = bytearray(text)
    for _ in range(rng.choice((1, 1, 2, 4))):
        if made:
            _change_place(made, other, rng)
    return bytes(made)


def _change_place(made: bytearray, other: bytes, rng: random.Random) -> None:
    at = rng.randrange(len(made))
    to = min(len(made), at + rng.choice((1, 2, 4, 8, 40)))
    how = rng.randrange(8)
    if how <= 1:
        made[at] ^= 1 << rng.randrange(8)
    elif how == 2:
        made[at] = rng.choice(BYTES)
    elif how == 3:
        del made[at:to]
    elif how == 4:
        made[at:at] = rng.choice(PIECES)
    elif how == 5:
        made[at:at] = made[at:to] * rng.choice((1, 2, 150))
    elif how == 6:
        del made[at:]
    else:
        start = rng.randrange(len(other) + 1)
        made[at:to] = other[start : start + rng.choice((4, 40, 400))]


# ---------------------------------------------------------------------- protobuf


def varint(number: int) -> bytes:
    """Write a protobuf number."""
    made = bytearray()
    while number > 0x7F:
        made.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes([*made, number])


def fields_of(text: bytes) -> list[tuple[int, bytes]] | None:
    """Cut a protobuf message into (tag, value as on the wire); None where it is none."""
    found, at = [], 0
    while at < len(text):
        tag, at = _read(text, at)
        start, kind = at, tag & 7
        if kind == 2:
            size, at = _read(text, at)
            start, at = at, at + size
        elif kind == 0:
            at = _read(text, at)[1]
        elif kind in (1, 5):
            at += 8 if kind == 1 else 4
        else:
            return None
        if at > len(text) or not tag >> 3:
            return None
        found.append((tag, text[start:at]))
    return found


def _read(text: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while at < len(text) and shift < 70:
        value |= (text[at] & 0x7F) << shift
        at += 1
        if text[at - 1] < 0x80:
            return value, at
        shift += 7
    return 0, len(text) + 1


def join(fields: list[tuple[int, bytes]]) -> bytes:
    """Write what `fields_of` cut."""
    return b"".join(
        varint(tag) + (varint(len(value)) if tag & 7 == 2 else b"") + value for tag, value in fields
    )


def change_proto(text: bytes, rng: random.Random, depth: int = 0) -> bytes:
    """Change one field of a protobuf message, at any depth."""
    fields = fields_of(text)
    if not fields:
        return text + rng.choice((b"", b"\x0a\x00", b"\x0a\x02a", b"\x08\x01", rng.randbytes(5)))
    index = rng.randrange(len(fields))
    tag, value = fields[index]
    if tag & 7 == 2 and depth < 7 and rng.random() < 0.75:
        fields[index] = (tag, change_proto(value, rng, depth + 1))
        return join(fields)
    how = rng.randrange(4)
    if how == 0:
        del fields[index]
    elif how == 1:
        fields[index:index] = [fields[index]] * rng.choice((1, 3, 130))
    elif how == 2:
        fields[index] = (rng.randrange(1, 20) << 3 | tag & 7, value)
    else:
        fields[index] = _other_value(tag >> 3 << 3, value, rng)
    return join(fields)


DOUBLES = (b"\0" * 8, b"\xff" * 8, b"\0" * 6 + b"\xf0\x7f", b"\2" + b"\0" * 5 + b"\xf0\x7f")


def _other_value(field: int, value: bytes, rng: random.Random) -> tuple[int, bytes]:
    """Return a value of any wire type for a field; ``field`` is its tag without the type."""
    how = rng.randrange(4)
    if how == 0:
        text = rng.choice((b"", b"\xff", b"k" * 600, value * 3, rng.randbytes(9)))
        return field | 2, text
    if how == 1:
        return field, varint(rng.choice((0, 1, 2**31, 2**63, 2**64 - 1)))
    if how == 2:
        return field | 1, rng.choice((*DOUBLES, rng.randbytes(8)))
    nested = b"x"
    for _ in range(rng.choice((5, 60, 110))):
        nested = varint(field | 2) + varint(len(nested)) + nested
    return field | 2, nested
