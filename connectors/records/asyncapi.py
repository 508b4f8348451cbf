"""The AsyncAPI 3.0 document of what streamad writes and reads besides its input.

Made from the types of the records, so it cannot drift from them; ``docs/asyncapi.yaml`` is this.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from connectors.records.cloudevents import KINDS, type_of
from connectors.records.schemas import schema_of_kind

STATES: Final[Mapping[str, tuple[str, ...]]] = {
    "finding": ("began", "continues", "ended"),
    "alert": ("opened", "updated", "resolved"),
    "incident": ("opened", "updated", "resolved"),
    "digest": ("sent",),
    "feedback": ("given",),
    "silence": ("given",),
    "page": ("requested",),
}
KEYS: Final[Mapping[str, str]] = {
    "finding": "The tenant.",
    "alert": "The id of the alert, fit for compaction.",
    "incident": "The id of the incident, fit for compaction.",
    "digest": "The group.",
    "feedback": "The tenant: it decides the partition, which must be that of the findings.",
    "silence": "The tenant: it decides the partition, which must be that of the findings.",
    "page": "``page/``, the pager, and the id of the incident.",
}
CHANNELS: Final[Mapping[str, tuple[str, tuple[str, ...], str]]] = {
    "findings": ("Episodes of single series, below the boundary too.", ("finding",), "send"),
    "alerts": ("Episodes at or beyond the boundary, with a life-cycle.", ("alert",), "send"),
    "incidents": (
        "Alerts that belong together: what pages once, and what did not page.",
        ("incident", "digest", "page"),
        "send",
    ),
    "feedback": (
        "Answers to alerts and incidents, and silences; anyone who may write them does.",
        ("feedback", "silence"),
        "receive",
    ),
}
"""Topics ``streamad.<name>.<role>``: what for, their messages, and what streamad does with them."""


def document(version: str) -> dict[str, Any]:
    """Return the document as JSON-ready values.

    version : of streamad
    """
    messages = [name for _, names, _ in CHANNELS.values() for name in names]
    return {
        "asyncapi": "3.0.0",
        "info": {
            "title": "streamad",
            "version": version,
            "description": (
                "Topics of a pipeline or of an alerting file; {name} is its name. All records are "
                "CloudEvents 1.0 in Kafka's binary mode, written in transactions: read committed."
            ),
            "license": {"name": "Apache-2.0"},
        },
        "defaultContentType": "application/json",
        "channels": {role: _channel(role, *CHANNELS[role][:2]) for role in CHANNELS},
        "operations": {
            f"{action}_{role}": {
                "action": action,
                "channel": {"$ref": f"#/channels/{role}"},
                "summary": about,
                "messages": [{"$ref": f"#/channels/{role}/messages/{name}"} for name in names],
            }
            for role, (about, names, action) in CHANNELS.items()
        },
        "components": {
            "messages": {name: _message(name) for name in messages},
            "schemas": {name: schema_of_kind(name) for name in messages},
        },
    }


def _channel(role: str, about: str, names: tuple[str, ...]) -> dict[str, Any]:
    return {
        "address": f"streamad.{{name}}.{role}",
        "description": about,
        "parameters": {"name": {"description": "The name of the pipeline or alerting file."}},
        "messages": {name: {"$ref": f"#/components/messages/{name}"} for name in names},
    }


def _message(name: str) -> dict[str, Any]:
    return {
        "name": name,
        "title": KINDS[name].__name__,
        "contentType": "application/json",
        "headers": {
            "type": "object",
            "required": ["ce_specversion", "ce_id", "ce_source", "ce_type", "ce_time"],
            "properties": {
                "ce_specversion": {"const": "1.0"},
                "ce_id": {"type": "string"},
                "ce_source": {"type": "string"},
                "ce_type": {"enum": [type_of(name, state) for state in STATES[name]]},
                "ce_time": {"type": "string", "format": "date-time"},
                "ce_subject": {"type": "string"},
            },
        },
        "payload": {"$ref": f"#/components/schemas/{name}"},
        "bindings": {
            "kafka": {
                "key": {"type": "string", "description": KEYS[name]},
                "bindingVersion": "0.5.0",
            }
        },
    }
