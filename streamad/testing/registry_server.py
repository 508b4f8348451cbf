"""A server that behaves as a schema registry does, for tests.

It holds each request against the published API, keeps subjects and versions, refuses what a
registry refuses (content type, credentials, schemas that are none or that do not fit), and can fail
as servers do (`PagerServer.fail`)::

    with RegistryServer() as server:
        ...  # SCHEMA_REGISTRY_URL=server.url
        assert server.problems == []
        assert server.subjects["streamad.shop.alerts-value"] == [server.by_id[1]]

Compatibility is that of JSON Schema with open objects: under ``BACKWARD``, the default of
registries, no property may be added; under ``FORWARD`` none may be taken away.
"""

from __future__ import annotations

import importlib.util
import json
from typing import Any, Final, Literal
from urllib.parse import unquote

from streamad.testing.pager_server import PagerServer, Taken

MEDIA_TYPES: Final = ("application/vnd.schemaregistry.v1+json", "application/json")
Level = Literal["BACKWARD", "FORWARD", "NONE"]


class RegistryServer(PagerServer):
    """Subjects on one loopback port; see the module.

    authorization : the header that is asked for; empty: anybody is let in
    """

    def __init__(self, port: int = 0, *, authorization: str = "") -> None:
        super().__init__(port)
        self.authorization = authorization
        self.level: Level = "BACKWARD"
        self.by_id: dict[int, str] = {}
        self.subjects: dict[str, list[str]] = {}

    def _work_off(
        self, method: str, path: str, headers: dict[str, str], body: bytes
    ) -> tuple[int, Any]:
        if self.authorization and headers.get("authorization") != self.authorization:
            return 401, {"error_code": 40101, "message": "Unauthorized"}
        parts = [unquote(part) for part in path.strip("/").split("/")]
        match method, parts:
            case "GET", ["schemas", "ids", number] if int(number) in self.by_id:
                return 200, {"schemaType": "JSON", "schema": self.by_id[int(number)]}
            case "POST", ["subjects", subject, "versions"]:
                return self._checked(path, headers, body, lambda schema: self._add(subject, schema))
            case "POST", ["subjects", subject]:
                return self._checked(
                    path, headers, body, lambda schema: self._find(subject, schema)
                )
            case "POST", ["compatibility", "subjects", subject, "versions", "latest"]:
                return self._checked(
                    path, headers, body, lambda schema: self._test(subject, schema)
                )
        return 404, {"error_code": 404, "message": f"HTTP 404 Not Found: {method} {path}"}

    def _checked(
        self, path: str, headers: dict[str, str], body: bytes, work: Any
    ) -> tuple[int, Any]:
        """Work off a schema that is one."""
        if headers.get("content-type", "").split(";")[0] not in MEDIA_TYPES:
            self.problems.append(f"{path}: content type {headers.get('content-type')}")
            return 415, {"error_code": 415, "message": "HTTP 415 Unsupported Media Type"}
        read = self._read(path, body)
        if read is None:
            return 400, {"error_code": 400, "message": "Bad Request"}
        self.taken.append(Taken(path, headers, read))
        text = read.get("schema")
        if read.get("schemaType") != "JSON" or not isinstance(text, str) or not is_schema(text):
            return 422, {"error_code": 42201, "message": "Invalid schema"}
        status, answer = work(text)
        return int(status), answer

    def _add(self, subject: str, schema: str) -> tuple[int, Any]:
        versions = self.subjects.setdefault(subject, [])
        if schema not in versions:
            if versions and not fits(versions[-1], schema, self.level):
                message = f"Schema being registered is incompatible with an earlier one: {subject}"
                return 409, {"error_code": 409, "message": message}
            versions.append(schema)
        return 200, {"id": self._id_of(schema)}

    def _find(self, subject: str, schema: str) -> tuple[int, Any]:
        versions = self.subjects.get(subject)
        if not versions:
            return 404, {"error_code": 40401, "message": f"Subject '{subject}' not found."}
        if schema not in versions:
            return 404, {"error_code": 40403, "message": "Schema not found"}
        version = versions.index(schema) + 1
        return 200, {
            "subject": subject, "version": version, "id": self._id_of(schema), "schema": schema,
        }  # fmt: skip

    def _test(self, subject: str, schema: str) -> tuple[int, Any]:
        versions = self.subjects.get(subject)
        if not versions:
            return 404, {"error_code": 40401, "message": f"Subject '{subject}' not found."}
        return 200, {"is_compatible": fits(versions[-1], schema, self.level)}

    def _id_of(self, schema: str) -> int:
        """Return the id of a schema; one under two subjects has one."""
        known = {text: number for number, text in self.by_id.items()}
        if schema not in known:
            # Large enough that each of the four bytes of a frame counts.
            known[schema] = 16_909_060 + len(known)
            self.by_id[known[schema]] = schema
        return known[schema]


def is_schema(text: str) -> bool:
    """Say whether a text is a JSON Schema."""
    try:
        read = json.loads(text)
    except ValueError:
        return False
    if not isinstance(read, dict):
        return False
    if importlib.util.find_spec("jsonschema") is None:
        return True  # An extra: without it, a schema is only required to be an object.
    import jsonschema  # noqa: PLC0415 - see above

    try:
        jsonschema.validators.validator_for(read).check_schema(read)
    except jsonschema.SchemaError:
        return False
    return True


def fits(old: str, new: str, level: Level) -> bool:
    """Say whether a schema may follow another one."""
    before, after = properties_of(json.loads(old)), properties_of(json.loads(new))
    if level == "BACKWARD":
        return after <= before
    return level == "NONE" or before <= after


def properties_of(schema: Any, path: str = "") -> set[str]:
    """Return the paths of all properties that a schema names."""
    found: set[str] = set()
    if isinstance(schema, dict):
        for name, inner in schema.get("properties", {}).items():
            found |= {f"{path}/{name}", *properties_of(inner, f"{path}/{name}")}
        for word in ("oneOf", "anyOf"):
            for number, inner in enumerate(schema.get(word, [])):
                found |= properties_of(inner, f"{path}/{word}{number}")
        for word in ("items", "additionalProperties"):
            found |= properties_of(schema.get(word), f"{path}/{word}")
    return found
