"""Silences that people make in Alertmanager, as silences and feedback of ours.

Alertmanager mutes its own receivers by a silence. Read back, it withholds the page of all pagers,
costs no budget, and stands in the ledger. Two kinds come of it:

- One on the label ``incident``, as the button at an alert makes it, is about what happens now: the
  incident is *expected* until the silence ends.
- Any other is a silence of the desk, with the same matchers: labels are fields of an alert.

Of each silence the newest version of any replica counts. One that no replica knows any more, three
times in a row while all of them answer, is over.

The API: https://github.com/prometheus/alertmanager/blob/main/api/v2/openapi.yaml
"""

from __future__ import annotations

import logging
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, Final
from urllib.parse import quote

from connectors.pagers.alertmanager import ALERT_NAME, Login
from connectors.pagers.base import Answer, Request, by_api
from connectors.pagers.secrets import Secrets
from streamad.alerting.matchers import (
    ENTITY_PREFIX,
    MAX_MATCHERS,
    SEVERITY,
    Matcher,
    parse_matcher,
    parse_matchers,
)
from streamad.alerting.pagers import AlertmanagerConfig
from streamad.incidents import ALL_TENANTS, Feedback, Silence
from streamad.records import UNKNOWN_MS, stable_id
from streamad.shown import safe_text

logger = logging.getLogger(__name__)

MAX_ANSWER_BYTES: Final = 4 * 2**20
"""Larger lists of silences, or of silenced alerts, are not read."""
MAX_READ: Final = 20_000
"""Most silences, or silenced alerts, of a list that are looked at."""
MAX_SILENCES: Final = 50
"""Most silences of one Alertmanager that are in force or to come: the desk keeps 100 in all."""
MAX_EXPECTED: Final = 500
"""Most incidents that are expected by silences on them."""
ABSENCES: Final = 3
"""A silence that all replicas lack so often in a row is over."""
MAX_NAME_CHARS, MAX_BY_CHARS, MAX_COMMENT_CHARS = 128, 150, 2_000
INCIDENT: Final = "incident"
_ID = re.compile(r"[0-9A-Za-z-]{1,64}")
_INCIDENT = re.compile(r"[0-9a-f]{16,64}")
_FIELDS: Final = ("group", SEVERITY)
"""Labels that are fields of the desk's matchers by the same name, beside ``entity_<part>``."""

Taken = Feedback | Silence


@dataclass(frozen=True, slots=True, kw_only=True)
class Given:
    """A silence as Alertmanager has it; version_ms : when it was last changed."""

    id: str
    version_ms: int
    starts_ms: int
    ends_ms: int
    expired: bool
    matchers: tuple[Matcher, ...]
    by: str
    comment: str


class AlertmanagerSilences:
    """What is to be written to the feedback topic, by what the replicas answer.

    Pure but for secrets. `requests` and, where it asks for them, `alert_requests` are sent to the
    replicas; `take` returns records; `keep` notes those that were written. Records that were
    written by earlier processes are given to `keep`, too.

    Parameters
    ----------
    config : AlertmanagerConfig
        The pager.
    name : str
        Of the alerting file: the label ``streamad``.
    """

    def __init__(self, config: AlertmanagerConfig, secrets: Secrets, *, name: str) -> None:
        self._config, self._login, self._name = config, Login(config, secrets), name
        self._prefix = f"alertmanager-{stable_id(name, config.name)[:8]}-"
        self._constants = {
            "alertname": ALERT_NAME,
            "streamad": name,
            **{key: value for key, value in config.labels.items() if key != INCIDENT},
        }
        self._known: dict[str, Taken] = {}
        self._absent: Counter[str] = Counter()
        self._told: set[str] = set()
        self.n_left_out = 0
        """Silences about our alerts that could not be taken at the last time."""

    # ------------------------------------------------------------------ asked

    def requests(self) -> list[Request]:
        """Return a request for the silences of each replica. Raises SecretError."""
        return self._get("silences")

    def alert_requests(self) -> list[Request]:
        """Return a request for our silenced alerts of each replica. Raises SecretError."""
        ours = quote(f'streamad="{self._name}"', safe="")
        return self._get(f"alerts?active=false&inhibited=false&silenced=true&filter={ours}")

    def _get(self, path: str) -> list[Request]:
        headers = self._login.headers()
        return [
            Request(
                url=f"{url.rstrip('/')}/api/v2/{path}",
                method="GET",
                headers=headers,
                max_answer_bytes=MAX_ANSWER_BYTES,
            )
            for url in self._config.urls
        ]

    def silences(self, answers: Sequence[Answer]) -> tuple[dict[str, Given], bool, str]:
        """Return the silences about our alerts, whether all replicas answered, and why not."""
        newest: dict[str, Given] = {}
        lists, failure = _lists(answers)
        for read in lists:
            for one in map(_given, read):
                known = newest.get(one.id) if one is not None else None
                if one is None or (known is not None and known.version_ms >= one.version_ms):
                    continue
                newest[one.id] = one
        ours = {name: one for name, one in newest.items() if self._is_ours(one)}
        return ours, len(lists) == len(answers), failure

    def asks_for_alerts(self, found: Mapping[str, Given]) -> bool:
        """Return whether some silence in force is about single incidents."""
        return any(_on_incident(one) and not one.expired for one in found.values())

    # ------------------------------------------------------------------ taken

    def take(
        self,
        found: Mapping[str, Given],
        alerts: Sequence[Answer],
        *,
        complete: bool,
        now_ms: int,
    ) -> list[Taken]:
        """Return the records that are to be written.

        found, complete : of `silences`; alerts : what the replicas answered to `alert_requests`
        """
        wanted: dict[str, Taken] = {}
        self.n_left_out = 0
        for one in self._first(found, now_ms):
            if not _on_incident(one):
                self._want_silence(wanted, one)
        self._want_expected(wanted, found, alerts)
        changed = [one for name, one in wanted.items() if self._is_news(self._known.get(name), one)]
        return changed + self._ended(found, complete=complete, now_ms=now_ms)

    def keep(self, records: Iterable[Taken]) -> None:
        """Note records that are in the feedback topic, in its order; others' are passed over."""
        for one in records:
            if one.id.startswith(self._prefix):
                self._known[_place_of(one)] = one

    def _first(self, found: Mapping[str, Given], now_ms: int) -> list[Given]:
        """Return the silences in force or to come, those already taken first, and not too many."""
        current = [one for one in found.values() if not one.expired and one.ends_ms > now_ms]
        current.sort(key=lambda one: (self._id(one.id) not in self._known, one.version_ms, one.id))
        plain = [one for one in current if not _on_incident(one)]
        for one in plain[MAX_SILENCES:]:
            self._leave_out(one.id, f"more than {MAX_SILENCES} are in force or to come")
        return plain[:MAX_SILENCES]

    def _want_silence(self, wanted: dict[str, Taken], one: Given) -> None:
        try:
            tenant, matchers = self._translated(one)
        except ValueError as error:
            self._leave_out(one.id, str(error))
            return
        made = Silence(
            id=self._id(one.id),
            name=f"Alertmanager: {one.comment or ' '.join(matchers)}"[:MAX_NAME_CHARS],
            matchers=matchers,
            starts_ms=one.starts_ms,
            ends_ms=one.ends_ms,
            by=_by(one),
            time_ms=one.version_ms,
            tenant=tenant,
            comment=one.comment,
        )
        wanted[_place_of(made)] = made

    def _want_expected(
        self, wanted: dict[str, Taken], found: Mapping[str, Given], alerts: Sequence[Answer]
    ) -> None:
        lists, _ = _lists(alerts)
        for alert in (alert for read in lists for alert in read):
            labels, names = _silenced(alert)
            incident = labels.get(INCIDENT, "")
            if labels.get("streamad") != self._name or not _INCIDENT.fullmatch(incident):
                continue
            for one in (found[name] for name in names if name in found):
                if one.expired or not _on_incident(one):
                    continue
                made = Feedback(
                    id=f"{self._id(one.id)}-{incident}-{one.version_ms}",
                    subject=incident,
                    verdict="expected",
                    by=_by(one),
                    time_ms=one.version_ms,
                    until_ms=one.ends_ms,
                    tenant=labels.get("tenant", ""),
                    group=labels.get("group", ""),
                    comment=one.comment,
                )
                n_expected = sum(isinstance(other, Feedback) for other in wanted.values())
                if n_expected >= MAX_EXPECTED:
                    self._leave_out(one.id, f"more than {MAX_EXPECTED} incidents at once")
                    return
                wanted[_place_of(made)] = made

    def _is_news(self, known: Taken | None, one: Taken) -> bool:
        """Return whether a record says more than the one that was written before."""
        if known is None:
            return True
        if known.time_ms > one.time_ms:
            return False
        return _ends_ms(known) != _ends_ms(one) or (
            isinstance(known, Silence)
            and isinstance(one, Silence)
            and (known.starts_ms, known.matchers) != (one.starts_ms, one.matchers)
        )

    def _ended(self, found: Mapping[str, Given], *, complete: bool, now_ms: int) -> list[Taken]:
        """Return the ends of what was taken and is over before its time."""
        ended: list[Taken] = []
        current = {self._id(name): one for name, one in found.items()}
        for place, known in list(self._known.items()):
            if _ends_ms(known) <= now_ms:
                if _ends_ms(known) < now_ms - 86_400_000:
                    del self._known[place]
                continue
            one = current.get(_origin(known))
            if one is not None:
                self._absent.pop(place, None)
                if not one.expired:
                    continue
                version_ms = max(one.version_ms, known.time_ms)
            elif complete:
                self._absent[place] += 1
                if self._absent[place] < ABSENCES:
                    continue
                version_ms = known.time_ms
            else:
                continue
            self._absent.pop(place, None)
            ended.append(_over(known, version_ms, now_ms))
        return ended

    # ------------------------------------------------------------------ matchers

    def _is_ours(self, one: Given) -> bool:
        """Return whether a silence can match our alerts, by the labels that all of them have."""
        for matcher in one.matchers:
            value = self._constants.get(matcher.name)
            if value is None and not _varies(matcher.name):
                value = ""  # No alert of ours has this label.
            if value is not None and not matcher.matches(value):
                return False
        return bool(one.matchers)

    def _translated(self, one: Given) -> tuple[str, tuple[str, ...]]:
        """Return the tenant and the desk's matchers of a silence; raises ValueError."""
        tenant, kept = ALL_TENANTS, []
        for matcher in one.matchers:
            if matcher.name in self._constants or not _varies(matcher.name):
                continue
            if matcher.name == INCIDENT:
                msg = f"a matcher that leaves out incidents, {_text(matcher)}, cannot be taken over"
                raise ValueError(msg)
            if matcher.name != "tenant":
                kept.append(_text(matcher))
            elif matcher.sign == "=":
                tenant = matcher.value
            else:
                msg = f'a matcher on the tenant must be tenant="NAME", got {_text(matcher)}'
                raise ValueError(msg)
        parse_matchers(tuple(kept))
        return tenant, tuple(kept)

    def _id(self, silence: str) -> str:
        return f"{self._prefix}{stable_id(silence)[:16]}"

    def _leave_out(self, silence: str, why: str) -> None:
        self.n_left_out += 1
        if silence not in self._told and len(self._told) < MAX_READ:
            self._told.add(silence)
            logger.warning(
                "pager %s: silence %s of Alertmanager is not taken: %s",
                self._config.name, silence, safe_text(why, 300),
            )  # fmt: skip


def _varies(label: str) -> bool:
    """Return whether a label has the value of the alert."""
    return label in (*_FIELDS, "tenant", INCIDENT) or label.startswith(ENTITY_PREFIX)


def _on_incident(one: Given) -> bool:
    return any(matcher.name == INCIDENT and matcher.sign in ("=", "=~") for matcher in one.matchers)


def _text(matcher: Matcher) -> str:
    value = matcher.value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
    return f'{matcher.name}{matcher.sign}"{value}"'


def _by(one: Given) -> str:
    return f"{one.by or 'somebody'} (Alertmanager)"


def _ends_ms(one: Taken) -> int:
    return one.ends_ms if isinstance(one, Silence) else one.until_ms


def _origin(one: Taken) -> str:
    """Return the part of a record's id that is of the silence it comes from."""
    return "-".join(one.id.split("-")[:3])


def _place_of(one: Taken) -> str:
    """Return what a record replaces: the silence, or the silence on one incident."""
    return _origin(one) if isinstance(one, Silence) else f"{_origin(one)}/{one.subject}"


def _over(known: Taken, version_ms: int, now_ms: int) -> Taken:
    if isinstance(known, Silence):
        starts_ms = min(known.starts_ms, now_ms)
        return replace(known, starts_ms=starts_ms, ends_ms=now_ms, time_ms=version_ms)
    # Before it was written, by any clock: a time that is past withdraws it.
    until_ms = max(known.time_ms, UNKNOWN_MS + 1)
    return replace(known, id=f"{known.id}-end", until_ms=until_ms, time_ms=version_ms)


# ---------------------------------------------------------------------- what Alertmanager answers


def _lists(answers: Sequence[Answer]) -> tuple[list[list[Any]], str]:
    """Return the lists that replicas answered, and why another one did not."""
    lists, failure = [], ""
    for answer in answers:
        outcome = by_api(answer)
        read = answer.json() if outcome.result == "ok" else None
        if isinstance(read, list):
            lists.append(read[:MAX_READ])
        elif outcome.result == "ok":
            failure = f"expected a JSON list of at most {MAX_ANSWER_BYTES} bytes, got none"
        else:
            failure = outcome.detail
    return lists, failure


def _given(read: Any) -> Given | None:
    """Read a silence; None: it is none that can be understood."""
    try:
        name, matchers = read["id"], read["matchers"]
        if not _ID.fullmatch(name) or not 0 < len(matchers) <= MAX_MATCHERS:
            return None
        return Given(
            id=name,
            version_ms=_time_ms(read["updatedAt"]),
            starts_ms=_time_ms(read["startsAt"]),
            ends_ms=_time_ms(read["endsAt"]),
            expired=read["status"]["state"] == "expired",
            matchers=tuple(map(_matcher, matchers)),
            by=safe_text(str(read.get("createdBy", "")), MAX_BY_CHARS),
            comment=safe_text(str(read.get("comment", "")), MAX_COMMENT_CHARS),
        )
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError):
        return None


def _matcher(read: Mapping[str, Any]) -> Matcher:
    """Read a matcher; raises ValueError, KeyError or TypeError where it is none of ours."""
    sign = "=" if read.get("isEqual", True) else "!"
    sign += "~" if read["isRegex"] else "" if sign == "=" else "="
    given = Matcher(str(read["name"]), sign, str(read["value"]))  # type: ignore[arg-type] # of four
    return parse_matcher(_text(given))


def _silenced(read: Any) -> tuple[dict[str, str], list[str]]:
    """Return the labels of an alert, and the ids of the silences that mute it."""
    try:
        labels = {str(name): str(value) for name, value in read["labels"].items()}
        return labels, [str(name) for name in read["status"]["silencedBy"]]
    except (KeyError, TypeError, AttributeError):
        return {}, []


def _time_ms(text: str) -> int:
    moment = datetime.fromisoformat(text)
    if moment.tzinfo is None:
        msg = "expected a time with its zone"
        raise ValueError(msg)
    return int(moment.timestamp() * 1000)
