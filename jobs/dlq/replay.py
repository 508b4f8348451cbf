"""Dead letters: show why records were refused, and send them through again once that is mended.

A replay remembers, reason by reason, how far it came: as offsets of a consumer group per reason,
committed in the transaction that holds the replayed records. So a replay that is killed, run again
or narrowed to one reason sends no letter twice and forgets none.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from connectors.records.dead_letters import Letter, from_record
from streamad.config import PipelineConfig
from streamad.ports import Log, Outgoing, Source
from streamad.records import Rejected
from streamad.runtime.decoding import REPLAYED_FOR

REPLAYED = "streamad.replayed"
"""Header of a replayed record: how often it was."""

MAX_ATTEMPTS = 3
"""A record that failed again so often is left where it is: it would come back for ever."""

_DIGITS = 10
"""No count has so many; a number of thousands of digits is not even read."""

UNREADABLE = "not_a_dead_letter"
FOREIGN = "of_other_pipelines"
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
                return int(value) if value and value.isdigit() and len(value) < _DIGITS else 0
        return 0

    def is_of(self, pipeline: str) -> bool:
        """Say whether a pipeline wrote it, or nobody knows who did."""
        return self.letter.pipeline in {"", pipeline}

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

    merged : letters about further rows of a message that was sent as a whole already; refused :
    letters that name another target than the pipeline's input; over : pages of incidents that are
    over since; foreign : letters of other pipelines that read the same input; odd : records that
    are no letters
    """

    replayed: Counter[str] = field(default_factory=Counter)
    before: Counter[str] = field(default_factory=Counter)
    merged: Counter[str] = field(default_factory=Counter)
    given_up: Counter[str] = field(default_factory=Counter)
    gone: Counter[str] = field(default_factory=Counter)
    refused: Counter[str] = field(default_factory=Counter)
    over: Counter[str] = field(default_factory=Counter)
    foreign: int = 0
    odd: int = 0

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


def summary(
    found: Iterable[Found | Rejected], *, pipeline: str, keep: int
) -> tuple[Counter[str], list[Found]]:
    """Count a pipeline's dead letters by reason and keep the last ``keep`` of them.

    Those of other pipelines that read the same input count as `FOREIGN`.
    """
    counts: Counter[str] = Counter()
    last: list[Found] = []
    for one in found:
        if isinstance(one, Rejected):
            counts[UNREADABLE] += 1
            continue
        if not one.is_of(pipeline):
            counts[FOREIGN] += 1
            continue
        counts[one.letter.reason] += 1
        last = [*last[1 - keep :], one] if keep > 1 else [one] * keep
    return counts, last


# ---------------------------------------------------------------------- replay


def replay(  # noqa: PLR0913 - all by keyword
    found: Iterable[Found | Rejected],
    desk: Desk,
    sender: Sender,
    *,
    pipeline: str,
    reason: str | None = None,
    limit: int | None = None,
    dry_run: bool = False,
) -> Replay:
    """Send dead letters through again, once each.

    found : in the order of their partitions' offsets; sender : makes the records that are sent;
    pipeline : whose letters, and who alone is to read them again: others that read the input had
    what they could use; reason : only these; limit : at most so many
    """
    made, batch = Replay(), _Batch()
    done: dict[str, Mapping[Source, int]] = {}
    last: Found | None = None
    for one in _chosen(found, pipeline, reason, into=made):
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
        batch.add(one, sender.outgoing(one, made))
        if batch.full and not dry_run:
            desk.send(batch.records, batch.done)
            batch = _Batch()
    if batch.done and not dry_run:
        desk.send(batch.records, batch.done)
    return made


def _chosen(
    found: Iterable[Found | Rejected], pipeline: str, reason: str | None, *, into: Replay
) -> Iterator[Found]:
    """Yield a pipeline's letters of a reason, and count what is no letter, or another's."""
    for one in found:
        if isinstance(one, Rejected):
            into.odd += 1
        elif not one.is_of(pipeline):
            into.foreign += 1
        elif reason in {None, one.letter.reason}:
            yield one


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


class Sender(Protocol):
    """Makes records of letters; counts those that are sent, and those that are not."""

    def outgoing(self, one: Found, into: Replay) -> Outgoing | None:
        """Return the record a letter is sent as; None where it is not."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class InputSender:
    """Sends letters back to the input they came from.

    targets : partitions that may be sent to: a letter names what its writer liked, and we may write
    where that writer may not; originals : reads what letters only point at (another log than the
    one the letters are read from)
    """

    pipeline: str
    targets: Collection[Source]
    originals: Log
    max_attempts: int = MAX_ATTEMPTS

    def outgoing(self, one: Found, into: Replay) -> Outgoing | None:
        """Return the record a letter is sent as; None where it is not."""
        letter = one.letter
        if Source(letter.topic, letter.partition) not in self.targets:
            into.refused[letter.reason] += 1
            return None
        if one.attempts >= self.max_attempts:
            into.given_up[letter.reason] += 1
            return None
        value, key = letter.value, letter.key
        if letter.pointer or letter.key_pointer:
            original = _original(letter, self.originals)
            if original is None:
                into.gone[letter.reason] += 1
                return None
            value = original[0] if letter.pointer else value
            key = original[1] if letter.key_pointer else key
        into.replayed[letter.reason] += 1
        ours = ((REPLAYED, str(one.attempts + 1).encode()), (REPLAYED_FOR, self.pipeline.encode()))
        names = {name for name, _ in ours}
        kept = tuple((name, text or b"") for name, text in letter.headers if name not in names)
        return Outgoing(
            topic=letter.topic,
            value=value,
            key=key,
            headers=(*kept, *ours),
            # Where its key's other records are, whatever partitioner the producer used.
            partition=letter.partition,
        )


def _original(letter: Letter, log: Log) -> tuple[bytes, bytes | None] | None:
    """Read value and key of the record a letter points at; None where retention deleted it."""
    source = Source(letter.topic, letter.partition)
    first, stop = log.bounds(letter.topic).get(source, (0, 0))
    if not first <= letter.offset < stop:
        return None
    for messages in log.read(source, letter.offset, letter.offset + 1):
        for payload, raw in zip(messages.payloads, messages.raw, strict=True):
            return None if payload is None else (payload, raw.key)
    return None
