"""Bring JSON messages of any shape to one value a line."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import orjson
from numpy.typing import NDArray

from connectors.codecs.json_wrappers import BLANK, bare, framing
from connectors.codecs.rows import shorten
from streamad.records import Rejected

OPEN, CLOSE, BREAK = ord("{"), ord("}"), ord("\n")


@dataclass(slots=True)
class Messages:
    """Payloads that still count, their places in the batch and their sizes in bytes."""

    texts: list[bytes]
    place: NDArray[np.int32]
    sizes: NDArray[np.int64]

    def replace(self, texts: list[bytes]) -> Messages:
        """Return the same messages with other texts."""
        return Messages(texts, self.place, _sizes(texts))

    def keep(self, mask: NDArray[np.bool_]) -> Messages:
        """Return the messages of ``mask`` alone."""
        texts = [text for text, kept in zip(self.texts, mask.tolist(), strict=True) if kept]
        return Messages(texts, self.place[mask], self.sizes[mask])

    def refuse(self, index: int, reason: str, detail: str) -> Rejected:
        """Reject one message as a whole."""
        place, text = int(self.place[index]), self.texts[index]
        return Rejected(message=place, reason=reason, detail=shorten(detail), payload=text)


def _sizes(texts: Sequence[bytes | None]) -> NDArray[np.int64]:
    return np.fromiter(map(len, texts), np.int64, len(texts))  # type: ignore[arg-type]


@dataclass(slots=True)
class Lines:
    """One JSON value a line: the joined text, and which message and row each line is."""

    joined: bytes
    starts: NDArray[np.int64]
    owner: NDArray[np.int64]
    place: NDArray[np.int32]
    row: NDArray[np.int32]
    quick: bool = False
    split: list[bytes] | None = None
    ended: NDArray[np.uint8] | None = None

    def __len__(self) -> int:
        return len(self.starts)

    @property
    def message(self) -> NDArray[np.int32]:
        """Return the place of each line's message in the batch."""
        return self.place[self.owner]

    def texts(self) -> list[bytes]:
        """Return the lines as texts (split only when something is wrong)."""
        if self.split is None:
            self.split = self.joined.split(b"\n") if len(self) else []
        return self.split

    def _text(self) -> NDArray[np.uint8]:
        """Return the joined text with a line break behind it."""
        if self.ended is None:
            self.ended = np.frombuffer(self.joined + b"\n", np.uint8)
        return self.ended

    def pick(self, lines: NDArray[np.int64]) -> bytes:
        """Return some lines, joined."""
        texts = self.texts()
        return b"\n".join([texts[line] for line in lines.tolist()])

    def count_rows(self, lines: NDArray[np.int64], number: NDArray[np.int64]) -> None:
        """Count the rows anew, where some ``lines`` hold ``number`` rows each."""
        sizes = np.ones(len(self), np.int64)
        sizes[lines] = number
        starts = np.cumsum(sizes) - sizes
        self.row = (starts - starts[np.searchsorted(self.owner, self.owner)]).astype(np.int32)

    def odd(self) -> NDArray[np.bool_]:
        """Say which lines do not begin like an object."""
        odd: NDArray[np.bool_] = self._text()[self.starts] != OPEN
        return odd

    def open_ended(self) -> NDArray[np.bool_]:
        """Say which lines do not look like an object from one end to the other."""
        text = self._text()
        ends = np.append(self.starts[1:], len(text)) - 2
        found: NDArray[np.bool_] = (text[self.starts] != OPEN) | (text[ends] != CLOSE)
        return found

    def doubtful(self) -> NDArray[np.int64]:
        """Return the lines that are looked at by themselves first, where some cannot be read."""
        doubtful = self.open_ended()
        if b"\\u" in self.joined:
            doubtful |= np.array([b"\\u" in line for line in self.texts()])
        return np.flatnonzero(doubtful)


def lay_out(messages: Messages) -> Lines:
    """Join the messages and find where each line begins."""
    texts, sizes = messages.texts, messages.sizes
    joined = b"\n".join(texts)
    heads = np.cumsum(sizes + 1) - sizes - 1
    if joined.count(b"\n") == len(texts) - 1 or not texts:
        owner = np.arange(len(texts))
        return Lines(joined, heads, owner, messages.place, np.zeros(len(texts), np.int32))
    breaks = np.flatnonzero(np.frombuffer(joined, np.uint8) == BREAK)
    starts = np.concatenate([np.zeros(1, np.int64), breaks + 1])
    owner = np.searchsorted(heads, starts, side="right") - 1
    row = np.arange(len(starts)) - np.searchsorted(owner, owner, side="left")
    return Lines(joined, starts, owner, messages.place, row.astype(np.int32))


def admit(
    payloads: Sequence[bytes | None], rejected: list[Rejected], *, max_bytes: int
) -> Messages:
    """Leave out messages that are absent, empty or too large to be looked at."""
    try:
        sizes = _sizes(payloads)
    except TypeError:
        sizes = np.zeros(1, np.int64)
    if not len(sizes) or (sizes.min() > 0 and sizes.max() <= max_bytes):
        return Messages(list(payloads), np.arange(len(sizes), dtype=np.int32), sizes)  # type: ignore[arg-type]
    texts, place = [], []
    for index, payload in enumerate(payloads):
        if payload is None:
            reason, detail = "null_payload", "the message has no value"
        elif not payload:
            reason, detail = "empty_message", "the value has no bytes"
        elif len(payload) > max_bytes:
            reason, detail = "oversized", f"{len(payload)} bytes, at most {max_bytes} are read"
        else:
            texts.append(payload)
            place.append(index)
            continue
        rejected.append(Rejected(message=index, reason=reason, detail=detail))
    return Messages(texts, np.array(place, np.int32), _sizes(texts))


def gather(messages: Messages, *, max_rows: int, exact: bool) -> tuple[Lines, list[Rejected]]:
    """Bring every message to one object a line, and refuse those with too many.

    exact : cut arrays with a scanner, not at every ``},{``
    """
    refused: list[Rejected] = []
    quick = False
    lines = lay_out(messages)
    if (odd := lines.odd()).any():
        # Only these: what becomes of a message must not depend on its neighbours.
        texts = list(messages.texts)
        for index in np.unique(lines.owner[odd]).tolist():
            texts[index] = bare(texts[index])
        messages = messages.replace(texts)
        lines = lay_out(messages)
    if (odd := lines.odd()).any():
        owners = np.unique(lines.owner[odd]).tolist()
        messages, quick = _straighten(messages, owners, refused, max_rows=max_rows, exact=exact)
        lines = lay_out(messages)
    if len(lines) and int(lines.row.max()) >= max_rows:
        crowded = np.bincount(lines.owner) > max_rows
        refused += [
            messages.refuse(index, "too_many_rows", _too_many(max_rows))
            for index in np.flatnonzero(crowded).tolist()
        ]
        lines = lay_out(messages.keep(~crowded))
    lines.quick = quick
    return lines, refused


def _too_many(max_rows: int) -> str:
    return f"more than {max_rows} rows; split the message"


def _straighten(
    messages: Messages, odd: list[int], refused: list[Rejected], *, max_rows: int, exact: bool
) -> tuple[Messages, bool]:
    """Bring some messages to one value a line; say whether any array was cut the quick way."""
    texts: list[bytes] = list(messages.texts)
    keep = np.ones(len(texts), np.bool_)
    quick = False
    for index in odd:
        text = texts[index]
        if (told := framing(text)) is not None:
            keep[index] = False
            refused.append(messages.refuse(index, "invalid_json", told))
            continue
        if text[:1] == b"[":
            cut = None if exact else _cut_quickly(text)
            quick |= cut is not None
            lines = _cut_exactly(text, max_rows) if cut is None else cut
        else:
            lines = _unfold(text)
        if not lines:
            keep[index] = False
            refused.append(_refuse_whole(messages, index, lines))
        elif len(lines) > max_rows:
            keep[index] = False
            refused.append(messages.refuse(index, "too_many_rows", _too_many(max_rows)))
        else:
            texts[index] = b"\n".join(lines)
    return messages.replace(texts).keep(keep), quick


def _refuse_whole(messages: Messages, index: int, lines: list[bytes] | None) -> Rejected:
    text = messages.texts[index]
    if lines is None:
        return messages.refuse(index, "invalid_json", f"no JSON array: {show_bytes(text)}")
    return messages.refuse(index, "empty_message", "no rows in the message")


def _cut_quickly(text: bytes) -> list[bytes] | None:
    """Cut a one-line array of objects at every ``},{``; right if every piece then is an object."""
    if not (text.startswith(b"[{") and text.endswith(b"}]")) or b"\n" in text:
        return None
    return text[1:-1].replace(b"}, {", b"}\n{").replace(b"},{", b"}\n{").split(b"\n")


def _cut_exactly(text: bytes, max_rows: int) -> list[bytes] | None:
    """Cut an array into the texts of its elements, None where it is no array.

    Of more than ``max_rows`` elements one more than that is returned, and the rest not looked at.

    Elements stay the bytes they were, so that they read the same in whichever way they were cut.
    Python's own scanner also reads NaN: such an element alone is rejected later, not the message.
    """
    decoded = text.decode("utf-8", "surrogateescape")
    scan = json.JSONDecoder().raw_decode
    skip = json.decoder.WHITESPACE.match  # type: ignore[attr-defined]
    elements: list[str] = []
    position = skip(decoded, 1).end()
    if decoded[position : position + 1] == "]":
        return [] if not decoded[position + 1 :].strip() else None
    try:
        while len(elements) <= max_rows:
            try:
                _, end = scan(decoded, position)
            except RecursionError:
                # How deep it reads depends on who calls; readers of the element decide on it.
                end = _end_of_nested(decoded, position)
            elements.append(decoded[position:end])
            position = skip(decoded, end).end()
            mark = decoded[position : position + 1]
            position = skip(decoded, position + 1).end()
            if mark == "]" and position == len(decoded):
                break
            if mark != ",":
                return None
    except ValueError:
        return None
    # A raw line break can only be space between tokens: inside a text JSON forbids it.
    return [element.replace("\n", " ").encode("utf-8", "surrogateescape") for element in elements]


_TOKEN = re.compile(r'"[^"\\]*(?:\\.[^"\\]*)*"|[\[\]{}]', re.DOTALL)


def _end_of_nested(text: str, position: int) -> int:
    """Return where the array or object at a position ends; raises ValueError where it does not."""
    depth = 0
    for token in _TOKEN.finditer(text, position):
        if token[0] in "[{":
            depth += 1
        elif token[0] in "]}":
            depth -= 1
            if not depth:
                return token.end()
    msg = "it does not end"
    raise ValueError(msg)


def _unfold(text: bytes) -> list[bytes]:
    """Return the lines of a message, or its one object where it is spread over several lines."""
    if b"\n" in text and is_json(text):
        return [text.replace(b"\n", b" ")]
    return [line for each in text.split(b"\n") if (line := each.strip(BLANK))]


def is_json(text: bytes) -> bool:
    """Return whether a line is JSON."""
    # A failing batch is looked at several times; what is large is parsed but once.
    return _is_large_json(text) if len(text) > LARGE_BYTES else _reads(text)


LARGE_BYTES = 65_536


@lru_cache(maxsize=4)
def _is_large_json(text: bytes) -> bool:
    return _reads(text)


def _reads(text: bytes) -> bool:
    try:
        orjson.loads(text)
    except ValueError:
        return False
    return True


def show_bytes(text: bytes) -> str:
    """Return how a text begins, for a rejection."""
    return shorten(repr(text[:80])[2:-1], 80)
