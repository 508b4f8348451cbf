"""A few requests of a schema registry's REST API, which Confluent, Karapace and Apicurio share.

https://docs.confluent.io/platform/current/schema-registry/develop/api.html
"""

from __future__ import annotations

import base64
import http
import json
from collections.abc import Callable
from typing import Final, Literal
from urllib.parse import quote

from connectors.pagers.base import Answer, Request
from connectors.pagers.http import Sender
from connectors.records.wire import MAX_ID
from connectors.registry.settings import TOKEN, URL, USER_INFO, RegistrySettings
from streamad.errors import ConfigError, SourceUnavailableError
from streamad.shown import HIDDEN, safe_text

MEDIA_TYPE: Final = "application/vnd.schemaregistry.v1+json"
MAX_DETAIL_CHARS: Final = 300
_MAY_PASS: Final = (http.HTTPStatus.REQUEST_TIMEOUT, http.HTTPStatus.TOO_MANY_REQUESTS)
_LEAST_HIDDEN_CHARS: Final = 4

Standing = Literal["registered", "fits", "refused"]
"""How a schema stands to its subject: there, or it may be registered, or it is incompatible."""


class Registry:
    """Subjects and ids of a registry. Each id is asked for once; later it needs no registry.

    Raises ConfigError where the registry refuses (credentials, an incompatible schema), and
    SourceUnavailableError where it does not answer, or not now: calling again is fine.
    """

    def __init__(self, settings: RegistrySettings) -> None:
        self._settings = settings
        self._send: Callable[[Request], Answer] = Sender(settings).send
        self._ids: dict[tuple[str, str], int] = {}

    def register(self, subject: str, schema: str) -> int:
        """Return the id of a schema under a subject, registered where it is not yet."""
        return self._id(f"/subjects/{quote(subject, safe='')}/versions", subject, schema)

    def look_up(self, subject: str, schema: str) -> int:
        """Return the id of a schema that is registered under a subject already."""
        return self._id(f"/subjects/{quote(subject, safe='')}", subject, schema)

    def standing(self, subject: str, schema: str) -> Standing:
        """Return how a schema stands to its subject; changes nothing there."""
        answer = self._ask(f"/subjects/{quote(subject, safe='')}", schema)
        if answer.status == http.HTTPStatus.OK:
            return "registered"
        if answer.status != http.HTTPStatus.NOT_FOUND:
            self._refuse(answer, subject)
        path = f"/compatibility/subjects/{quote(subject, safe='')}/versions/latest"
        answer = self._ask(path, schema)
        if answer.status == http.HTTPStatus.NOT_FOUND:  # A subject without a version.
            return "fits"
        if answer.status != http.HTTPStatus.OK:
            self._refuse(answer, subject)
        told = answer.json()
        fits = told.get("is_compatible") if isinstance(told, dict) else None
        if not isinstance(fits, bool):
            raise ConfigError(self._strange(answer, '{"is_compatible": true or false}'))
        return "fits" if fits else "refused"

    def _id(self, path: str, subject: str, schema: str) -> int:
        if (known := self._ids.get((subject, schema))) is not None:
            return known
        answer = self._ask(path, schema)
        if answer.status != http.HTTPStatus.OK:
            self._refuse(answer, subject)
        told = answer.json()
        found = told.get("id") if isinstance(told, dict) else None
        if not isinstance(found, int) or isinstance(found, bool) or not 0 <= found <= MAX_ID:
            raise ConfigError(self._strange(answer, '{"id": NUMBER}'))
        self._ids[subject, schema] = found
        return found

    def _ask(self, path: str, schema: str) -> Answer:
        """Return the answer of the first instance that has one."""
        failures = []
        body = json.dumps({"schemaType": "JSON", "schema": schema}).encode()
        for url in self._settings.urls:
            request = Request(url=f"{url}{path}", headers=self._headers(), body=body)
            answer = self._send(request)
            status = answer.status
            if (
                status
                and status < http.HTTPStatus.INTERNAL_SERVER_ERROR
                and status not in _MAY_PASS
            ):
                return answer
            failures.append(answer.failure or f"{request.where}: {self._told(answer)}")
        msg = f"the schema registry cannot be asked now: {'; '.join(failures)}"
        raise SourceUnavailableError(self._hide(msg))

    def _headers(self) -> dict[str, str]:
        headers = {"Content-Type": MEDIA_TYPE, "Accept": f"{MEDIA_TYPE}, application/json"}
        if self._settings.token:
            headers["Authorization"] = f"Bearer {self._settings.token}"
        elif self._settings.user_info:
            coded = base64.b64encode(self._settings.user_info.encode()).decode()
            headers["Authorization"] = f"Basic {coded}"
        return headers

    def _refuse(self, answer: Answer, subject: str) -> None:
        """Raise ConfigError that names what the registry refuses, and what to do."""
        status, about = answer.status, f"the schema registry, for the subject {subject}"
        told = self._told(answer)
        if status in (http.HTTPStatus.UNAUTHORIZED, http.HTTPStatus.FORBIDDEN):
            msg = f"{about}: expected to be let in, got {told}; see {USER_INFO} and {TOKEN}"
        elif status == http.HTTPStatus.NOT_FOUND:
            msg = (
                f"{about}: expected our schema to be registered, got {told}; see {URL}, register "
                "it ('streamad topics schemas FILE --register'), or set output.register_schemas: "
                "true"
            )
        elif status == http.HTTPStatus.CONFLICT:
            msg = (
                f"{about}: expected that this version's schema may follow the last one, got {told};"
                " set the subject's compatibility to FORWARD, which added fields need"
            )
        elif 300 <= status < 400:
            msg = f"{about}: got a redirect ({status}), which is not followed; set {URL} to its end"
        else:
            msg = f"{about}: expected an id, got {told}"
        raise ConfigError(msg)

    def _told(self, answer: Answer) -> str:
        """Return the status and the registry's own message, bounded and without secrets."""
        said = answer.json()
        text = said.get("message") if isinstance(said, dict) else None
        detail = f" ({self._shown(text)})" if isinstance(text, str) and text else ""
        return f"status {answer.status}{detail}"

    def _strange(self, answer: Answer, expected: str) -> str:
        beginning = self._shown(answer.body[:MAX_DETAIL_CHARS].decode("utf-8", "replace"))
        return f"{URL} leads to no schema registry: expected {expected}, got {beginning!r}"

    def _shown(self, text: str) -> str:
        return safe_text(self._hide(text), MAX_DETAIL_CHARS)

    def _hide(self, text: str) -> str:
        """Return text without our secrets, as of an answer that repeats one."""
        given = self._settings
        secrets = [given.token, given.user_info, given.user_info.partition(":")[2]]
        if given.user_info:
            secrets.append(base64.b64encode(given.user_info.encode()).decode())
        for one in sorted(secrets, key=len, reverse=True):
            if len(one) >= _LEAST_HIDDEN_CHARS:
                text = text.replace(one, HIDDEN)
        return text
