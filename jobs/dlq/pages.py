"""Replay the dead letters of pages: ask the pager for the page of an incident as it is by now.

The record of a dead letter is of the past. Sent again as it is, it would open an incident at every
pager that is long resolved. So a replay writes a request to one pager, with the key that its
receiver knows the page by; the pager looks the incident up and sends what is still true.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from connectors.records import cloudevents
from connectors.records.pages import CHANGE, KEY, PAGER
from connectors.records.wire import Frames
from jobs.desk.reading import Board, records
from jobs.dlq.replay import MAX_ATTEMPTS, REPLAYED, Found, Replay
from streamad.alerting.config import AlertingConfig
from streamad.incidents import Incident, PageRequest
from streamad.ports import Log, Outgoing, Source

MAX_NAME_CHARS = 200


@dataclass(slots=True, kw_only=True)
class PageSender:
    """Makes requests of dead letters of pages.

    incidents : reads the topic of incidents; frames : what stands before values for a schema
    registry
    """

    config: AlertingConfig
    incidents: Log
    wall_ms: Callable[[], int]
    max_attempts: int = MAX_ATTEMPTS
    frames: Frames = field(default_factory=dict)
    _board: Board | None = field(default=None, init=False)

    def outgoing(self, one: Found, into: Replay) -> Outgoing | None:
        """Return the request of a letter; None where there is nothing to ask for."""
        letter, topic = one.letter, self.config.topic("incidents")
        request = self._request(one)
        source = Source(letter.topic, letter.partition)
        if request is None or letter.topic != topic or source not in self.incidents.bounds(topic):
            into.refused[letter.reason] += 1
            return None
        if one.attempts >= self.max_attempts:
            into.given_up[letter.reason] += 1
            return None
        newest = self._known.incidents.get(request.incident)
        if newest is None:
            into.gone[letter.reason] += 1
            return None
        if newest.state == "resolved" and request.change != "resolve":
            into.over[letter.reason] += 1
            return None
        into.replayed[letter.reason] += 1
        event = cloudevents.encode(request)
        about = {
            PAGER: request.pager,
            KEY: request.key,
            CHANGE: request.change,
            REPLAYED: str(one.attempts + 1),
        }
        return Outgoing(
            topic=topic,
            key=event.key,
            value=self.frames.get(topic, b"") + event.value,
            headers=(*event.headers, *((name, text.encode()) for name, text in about.items())),
            # Where the incident's records are: the pager reads them in their order.
            partition=letter.partition,
        )

    @property
    def _known(self) -> Board:
        if self._board is None:
            self._board = Board()
            for incident in records(self.incidents, self.config.topic("incidents"), Incident):
                self._board.add(incident)
        return self._board

    def _request(self, one: Found) -> PageRequest | None:
        """Return what a letter asks for; None where it is none of a page of ours."""
        letter = one.letter
        given = {
            name: (text or b"").decode("utf-8", "replace")[:MAX_NAME_CHARS]
            for name, text in letter.headers
        }
        pager, key, change = (given.get(name, "") for name in (PAGER, KEY, CHANGE))
        if not key or pager not in {known.name for known in self.config.pagers}:
            return None
        read = cloudevents.decode(letter.value, letter.headers)
        if isinstance(read, Incident):
            incident, since = read.id, letter.offset
        elif isinstance(read, PageRequest):
            incident, since = read.incident, read.since_offset
        else:
            return None
        return PageRequest(
            incident=incident,
            pager=pager,
            key=key,
            change=change,
            since_offset=since,
            name=self.config.name,
            time_ms=self.wall_ms(),
        )
