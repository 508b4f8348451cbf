"""The subjects of our topics, the schemas they have, and what their ids put before each value."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import orjson

from connectors.records.asyncapi import CHANNELS
from connectors.records.schemas import schema_of_kind
from connectors.records.wire import Frames, frame_of
from connectors.registry.client import Registry

DIALECT: Final = "http://json-schema.org/draft-07/schema#"
"""What registries of all versions read; our schemas have no word that differs between the two."""


def schema_of_role(role: str) -> str:
    """Return the schema of all that is written to a topic, as text for a schema registry.

    role : ``findings``, ``alerts`` or ``incidents``

    A subject has one schema, so that of a topic with several kinds of records is a choice.
    """
    _, kinds, _ = CHANNELS[role]
    made = [schema_of_kind(kind) for kind in kinds]
    body = made[0] if len(made) == 1 else {"title": role.capitalize(), "oneOf": made}
    return orjson.dumps({"$schema": DIALECT, **body}).decode()


def subject_of(topic: str) -> str:
    """Return the subject of the values of a topic (TopicNameStrategy).

    Examples
    --------
    >>> subject_of("streamad.shop.incidents")
    'streamad.shop.incidents-value'
    """
    return f"{topic}-value"


def frames_by(registry: Registry, roles: Mapping[str, str], *, register: bool) -> Frames:
    """Return what stands before each value of topics: the ids come from a registry.

    roles : topic to its role (`schema_of_role`); register : whether schemas that are not there yet
    are registered, or only looked up

    Raises ConfigError and SourceUnavailableError as `Registry` does.
    """
    ask = registry.register if register else registry.look_up
    return {
        topic: frame_of(ask(subject_of(topic), schema_of_role(role)))
        for topic, role in roles.items()
    }
