"""Dead letters: show why records were refused, and send them through again once that is mended.

A replay remembers, reason by reason, how far it came: as offsets of a consumer group per reason,
committed in the transaction that holds the replayed records. So a replay that is killed, run again
or narrowed to one reason sends no letter twice and forgets none.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from connectors.dead_letters import Letter, from_record
from streamad.config import PipelineConfig
from streamad.ports import Headers, Log, Outgoing, Source
from streamad.records import Rejected

REPLAYED = "streamad.replayed"
"""Header of a replayed record: how often it was."""

MAX_ATTEMPTS = 3
"""A record that failed again so often is left where it is: it would come back for ever."""

UNREADABLE = "not_a_dead_letter"
BATCH_RECORDS = 500
BATCH_BYTES = 4 * 2**20


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """A dead letter and where it lies."""

    source: Source
    offset: int
    letter: Letter

    @property
    def attempts(self) -> int:
        """Return how often the record was replayed before it failed again."""
        for name, value in self.letter.headers:
            if name == REPLAYED:
                return int(value) if value and value.isdigit() else 0
        return 0

    def repeats(self, other: Found) -> bool:
        """Say whether both hold the same message as a whole, for two of its rows."""
        mine, theirs = self.letter, other.letter
        return (
            mine.row is not None
            and (mine.topic, mine.partition, mine.offset, mine.reason)
            == (theirs.topic, theirs.partition, theirs.offset, theirs.reason)
            and mine.value == theirs.value
        )


class Desk(Protocol):
    """Where replayed records are written, together with how far the replay came."""

    def done(self, reason: str) -> Mapping[Source, int]:
        """Return up to which offset the letters of a reason were replayed, a partition."""
        ...

    def send(self, records: Sequence[Outgoing], done: Mapping[tuple[str, Source], int]) -> None:
        """Write records and progress, all or nothing."""
        ...


@dataclass(slots=True, kw_only=True)
class Replay:
    """What a replay did, or (``dry_run``) would do; counts by reason.

    merged : letters about further rows of a message that was sent as a whole already
    """

    replayed: Counter[str] = field(default_factory=Counter)
    before: Counter[str] = field(default_factory=Counter)
    merged: Counter[str] = field(default_factory=Counter)
    given_up: Counter[str] = field(default_factory=Counter)
    gone: Counter[str] = field(default_factory=Counter)

    @property
    def total(self) -> int:
        """Return how many records were sent."""
        return self.replayed.total()


# ---------------------------------------------------------------------- show


def dead_letter_topics(config: PipelineConfig) -> list[str]:
    """Return the dead-letter topics of a pipeline, one an input."""
    return [config.output.dead_letters.format(topic=topic) for topic in config.input.topics]


def letters(log: Log, topics: Iterable[str]) -> Iterator[Found | Rejected]:
    """Read dead letters from the first to where the topics end now, a partition at a time."""
    for topic in topics:
        for source, (first, stop) in sorted(log.bounds(topic).items()):
            for messages in log.read(source, first, stop):
                for i, raw in enumerate(messages.raw):
                    letter = from_record(raw.key, messages.payloads[i], raw.headers, message=i)
                    if isinstance(letter, Rejected):
                        yield letter
                        continue
                    offset = int(messages.offsets[i])
                    yield Found(source=source, offset=offset, letter=letter)


def summary(found: Iterable[Found | Rejected], *, keep: int) -> tuple[Counter[str], list[Found]]:
    """Count dead letters by reason and keep the last ``keep`` of them."""
    counts: Counter[str] = Counter()
    last: list[Found] = []
    for one in found:
        if isinstance(one, Rejected):
            counts[UNREADABLE] += 1
            continue
        counts[one.letter.reason] += 1
        last = [*last[1 - keep :], one] if keep > 1 else [one] * keep
    return counts, last


# ---------------------------------------------------------------------- replay


def replay(  # noqa: PLR0913 - all by keyword
    found: Iterable[Found | Rejected],
    desk: Desk,
    *,
    originals: Log,
    reason: str | None = None,
    limit: int | None = None,
    dry_run: bool = False,
    max_attempts: int = MAX_ATTEMPTS,
) -> Replay:
    """Send dead letters back to where they came from, once each.

    found : in the order of their partitions' offsets; originals : reads what letters only point
    at (another log than the one ``found`` is read from); reason : only these; limit : at most so
    many
    """
    made, batch = Replay(), _Batch()
    done: dict[str, Mapping[Source, int]] = {}
    last: Found | None = None
    chosen = (f for f in found if isinstance(f, Found) and reason in {None, f.letter.reason})
    for one in chosen:
        why = one.letter.reason
        if last is not None and one.repeats(last):
            batch.add(one, None)
            made.merged[why] += 1
            continue
        if limit is not None and made.total >= limit:
            break
        if why not in done:
            done[why] = desk.done(why)
        if one.offset < done[why].get(one.source, 0):
            made.before[why] += 1
            continue
        last = one
        batch.add(one, _outgoing(one, originals, max_attempts=max_attempts, into=made))
        if batch.full and not dry_run:
            desk.send(batch.records, batch.done)
            batch = _Batch()
    if batch.done and not dry_run:
        desk.send(batch.records, batch.done)
    return made


class _Batch:
    """Records of one transaction, and how far it comes."""

    def __init__(self) -> None:
        self.records: list[Outgoing] = []
        self.done: dict[tuple[str, Source], int] = {}
        self._n_bytes = 0

    def add(self, one: Found, record: Outgoing | None) -> None:
        """Take a letter; one that is not sent (None) counts as worked off all the same."""
        self.done[one.letter.reason, one.source] = one.offset + 1
        if record is not None:
            self.records.append(record)
            self._n_bytes += len(record.value or b"")

    @property
    def full(self) -> bool:
        """Say whether it is time for a transaction."""
        return len(self.records) >= BATCH_RECORDS or self._n_bytes >= BATCH_BYTES


def _outgoing(one: Found, originals: Log, *, max_attempts: int, into: Replay) -> Outgoing | None:
    letter = one.letter
    if one.attempts >= max_attempts:
        into.given_up[letter.reason] += 1
        return None
    value: bytes | None = letter.value
    if letter.pointer:
        value = _original(letter, originals)
        if value is None:
            into.gone[letter.reason] += 1
            return None
    into.replayed[letter.reason] += 1
    kept: Headers = tuple((name, text or b"") for name, text in letter.headers if name != REPLAYED)
    return Outgoing(
        topic=letter.topic,
        value=value,
        key=letter.key,
        headers=(*kept, (REPLAYED, str(one.attempts + 1).encode())),
        # Where its key's other records are, whatever partitioner the producer used.
        partition=letter.partition,
    )


def _original(letter: Letter, log: Log) -> bytes | None:
    """Read the record a pointer points at; None where retention has deleted it."""
    source = Source(letter.topic, letter.partition)
    first, stop = log.bounds(letter.topic).get(source, (0, 0))
    if not first <= letter.offset < stop:
        return None
    for messages in log.read(source, letter.offset, letter.offset + 1):
        for payload in messages.payloads:
            return payload
    return None
