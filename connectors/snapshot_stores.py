"""Where snapshots are kept: a compacted Kafka topic, or a folder anything fsspec can reach.

Both keep two: while one is written the other is whole. A manifest, written last, says which.
"""

from __future__ import annotations

import hashlib
import json
import logging
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from streamad.errors import StateError
from streamad.ports import Log, Outgoing, Snapshot, Source

logger = logging.getLogger(__name__)

FORMAT = 1
MAX_CHUNKS = 100_000
"""Of a snapshot: 90 GB."""

_NUMBER = re.compile(r"\d{1,6}", re.ASCII)


@dataclass(slots=True)
class _Slots:
    """What is known of a partition's two slots."""

    current: str = "B"
    counts: dict[str, int] = field(default_factory=dict)


class TopicSnapshots:
    """Snapshots in a compacted topic, under ``<topic>/<partition>/<A|B>/<chunk>``.

    Parameters
    ----------
    topic : str
        The state topic of the pipeline.
    log : Log
        How it is read.
    """

    def __init__(self, topic: str, log: Log) -> None:
        self._topic, self._log = topic, log
        self._slots: dict[Source, _Slots] = {}
        self._newest: dict[Source, int] = {}
        self._number = len(log.bounds(topic))

    def records(self, source: Source, snapshot: Snapshot) -> Iterator[Outgoing]:
        """Yield what must go into transactions for this snapshot; the last is the manifest."""
        slots = self._slots.setdefault(source, _Slots())
        slot = "A" if slots.current == "B" else "B"
        before, chunks = slots.counts.get(slot, 0), _Counted(snapshot.chunks)
        for number, chunk in enumerate(chunks):
            slots.counts[slot] = max(before, number + 1)
            yield self._record(source, f"{source}/{slot}/{number}", chunk)
        # What is left of a larger snapshot of this slot.
        for number in range(chunks.number, before):
            yield self._record(source, f"{source}/{slot}/{number}", None)
        slots.counts[slot] = chunks.number
        manifest = _manifest(source, snapshot, chunks) | {"slot": slot}
        yield self._record(source, f"{source}/manifest", json.dumps(manifest).encode())

    def save(self, source: Source, snapshot: Snapshot) -> None:
        """Note that what went out with the records is whole: the next one takes the other slot."""
        del snapshot
        slots = self._slots.setdefault(source, _Slots())
        slots.current = "A" if slots.current == "B" else "B"

    def newest(self, source: Source) -> int | None:
        """Return the offset of the last snapshot written, as the last `load` found it."""
        return self._newest.get(source)

    def load(self, source: Source, *, up_to: int, hint: int = 0) -> Snapshot | None:
        """Return the newest whole snapshot at or before an offset."""
        self._newest.pop(source, None)
        bounds = self._log.bounds(self._topic)
        if not bounds:
            return None
        state = Source(self._topic, source.partition % self._number)
        first, after = bounds[state]
        found = None
        if first < hint < after:
            found = self._scan(source, state, (hint, after), up_to)
        return found or self._scan(source, state, (first, after), up_to)

    def _scan(
        self, source: Source, state: Source, span: tuple[int, int], up_to: int
    ) -> Snapshot | None:
        prefix = f"{source}/"
        chunks: dict[str, dict[int, bytes]] = {"A": {}, "B": {}}
        manifests: dict[str, dict[str, Any]] = {}
        for messages in self._log.read(state, *span):
            for record, value in zip(messages.raw, messages.payloads, strict=True):
                name = (record.key or b"").decode(errors="replace")
                if value is None or not name.startswith(prefix):
                    continue
                slot, _, number = name.removeprefix(prefix).partition("/")
                if slot in chunks and _NUMBER.fullmatch(number):
                    chunks[slot][int(number)] = value
                elif name == f"{prefix}manifest" and (manifest := _read_manifest(value, state)):
                    # In the order of writing: after the offset was moved back, that of offsets
                    # would prefer what is of the time before.
                    manifests.pop(manifest["slot"], None)
                    manifests[manifest["slot"]] = manifest
        for manifest in reversed(manifests.values()):
            self._newest.setdefault(source, manifest["offset"])
            slot = manifest["slot"]
            if (found := _whole(manifest, chunks[slot], up_to)) is not None:
                counts = {name: len(kept) for name, kept in chunks.items()}
                self._slots[source] = _Slots(current=slot, counts=counts)
                return found
        return None

    def _record(self, source: Source, key: str, value: bytes | None) -> Outgoing:
        return Outgoing(
            topic=self._topic,
            key=key.encode(),
            value=value,
            partition=source.partition % self._number,
        )


class FileSnapshots:
    """Snapshots as files, ``<folder>/<topic>/<partition>/<offset>/``, on anything fsspec reaches.

    Parameters
    ----------
    url : str
        The folder, such as ``s3://bucket/streamad`` or ``file:///var/lib/streamad``.
    pipeline : str
        Keeps pipelines apart.
    """

    def __init__(self, url: str, *, pipeline: str) -> None:
        from fsspec.core import url_to_fs  # noqa: PLC0415 - slow; few need it

        self._fs, root = url_to_fs(url)
        self._root = f"{root.rstrip('/')}/{pipeline}"
        self._newest: dict[Source, int] = {}

    def records(self, source: Source, snapshot: Snapshot) -> list[Outgoing]:
        """Return nothing: files take no part in transactions."""
        del source, snapshot
        return []

    def save(self, source: Source, snapshot: Snapshot) -> None:
        """Write chunks, then the manifest under another name, then rename it; keep one older."""
        folder = f"{self._folder(source)}/{snapshot.offset:020d}"
        self._fs.makedirs(folder, exist_ok=True)
        chunks = _Counted(snapshot.chunks)
        for number, chunk in enumerate(chunks):
            self._fs.pipe_file(f"{folder}/{number:06d}", chunk)
        text = json.dumps(_manifest(source, snapshot, chunks)).encode()
        self._fs.pipe_file(f"{folder}/manifest.new", text)
        self._fs.mv(f"{folder}/manifest.new", f"{folder}/manifest.json")
        there = self._offsets(source)
        older = [one for one in there if one < snapshot.offset]
        # Later ones are of the time before the offset was moved back.
        for offset in [*older[:-1], *(one for one in there if one > snapshot.offset)]:
            self._fs.rm(f"{self._folder(source)}/{offset:020d}", recursive=True)

    def load(self, source: Source, *, up_to: int, hint: int = 0) -> Snapshot | None:
        """Return the newest whole snapshot at or before an offset."""
        del hint
        self._newest.pop(source, None)
        for offset in reversed(self._offsets(source)):
            folder = f"{self._folder(source)}/{offset:020d}"
            if not self._fs.exists(f"{folder}/manifest.json"):
                continue
            manifest = _read_manifest(self._fs.cat_file(f"{folder}/manifest.json"), folder)
            if manifest is None:
                continue
            self._newest.setdefault(source, offset)
            if offset > up_to:
                continue
            names = {n: f"{folder}/{n:06d}" for n in range(manifest["chunks"])}
            chunks = {n: self._fs.cat_file(name) for n, name in names.items() if self._there(name)}
            if (found := _whole(manifest, chunks, up_to)) is not None:
                return found
        return None

    def newest(self, source: Source) -> int | None:
        """Return the offset of the last snapshot written, as the last `load` found it."""
        return self._newest.get(source)

    def _there(self, name: str) -> bool:
        return bool(self._fs.exists(name))

    def _folder(self, source: Source) -> str:
        return f"{self._root}/{source.topic}/{source.partition}"

    def _offsets(self, source: Source) -> list[int]:
        folder = self._folder(source)
        self._fs.invalidate_cache(folder)
        if not self._fs.exists(folder):
            return []
        names = [
            str(path).rstrip("/").rpartition("/")[2] for path in self._fs.ls(folder, detail=False)
        ]
        return sorted(int(name) for name in names if name.isdigit())


class _Counted:
    """Chunks on their way: how many they were, and their sum."""

    def __init__(self, chunks: Iterable[bytes]) -> None:
        self._chunks, self._sum, self.number = chunks, hashlib.sha256(), 0

    def __iter__(self) -> Iterator[bytes]:
        for chunk in self._chunks:
            self._sum.update(chunk)
            self.number += 1
            yield chunk

    @property
    def sha256(self) -> str:
        return self._sum.hexdigest()


def _manifest(source: Source, snapshot: Snapshot, chunks: _Counted) -> dict[str, Any]:
    return {
        "format": FORMAT,
        "topic": source.topic,
        "partition": source.partition,
        "offset": snapshot.offset,
        "log_offset": snapshot.log_offset,
        "checksum": snapshot.checksum,
        "chunks": chunks.number,
        "sha256": chunks.sha256,
    }


_MANIFEST = {
    "format": int, "topic": str, "partition": int, "offset": int, "log_offset": int,
    "checksum": str, "chunks": int, "sha256": str,
}  # fmt: skip


def _read_manifest(text: bytes, where: object) -> dict[str, Any] | None:
    """Read a manifest; None, and a line in the log, where it is none."""
    try:
        manifest = json.loads(text)
        typed = all(type(manifest[name]) is kind for name, kind in _MANIFEST.items())
        fits = typed and 0 <= manifest["chunks"] <= MAX_CHUNKS
        fits = fits and manifest.get("slot", "A") in ("A", "B")
    except (ValueError, KeyError, TypeError, RecursionError):
        fits = False
    if not fits:
        logger.error("%s: a manifest cannot be read and is left out: %.80r", where, text)
        return None
    return dict(manifest)


def _whole(manifest: dict[str, Any], chunks: dict[int, bytes], up_to: int) -> Snapshot | None:
    """Return the snapshot a manifest speaks of, None where it is too new or torn."""
    if manifest["format"] != FORMAT:
        msg = f"snapshots are of format {manifest['format']}, this version reads {FORMAT}"
        raise StateError(msg)
    if manifest["offset"] > up_to:
        return None
    found = [chunks.get(number) for number in range(manifest["chunks"])]
    kept = [chunk for chunk in found if chunk is not None]
    if len(kept) < len(found) or _sha256(kept) != manifest["sha256"]:
        where = f"{manifest['topic']}/{manifest['partition']}"
        logger.warning("the snapshot of %s at %d is torn", where, manifest["offset"])
        return None
    return Snapshot(
        offset=manifest["offset"],
        log_offset=manifest["log_offset"],
        checksum=manifest["checksum"],
        chunks=kept,
    )


def _sha256(chunks: Sequence[bytes]) -> str:
    made = hashlib.sha256()
    for chunk in chunks:
        made.update(chunk)
    return made.hexdigest()
