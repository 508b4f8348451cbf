"""Settings that a running job takes over: each states it where it is declared.

A setting is live where it changes no decision: words, links, addresses, times between two looks. A
new setting that states nothing needs a restart.
"""

from __future__ import annotations

import typing
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated, Any, TypeVar

from pydantic import BaseModel

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Marker:
    """What stands on a field: it is live.

    given : only between two values; to give it, or to take it out, needs a restart
    """

    given: bool = False


Live = Annotated[T, Marker()]
"""``links: Live[dict[str, str]]``: a running job takes another value over."""
LiveIfGiven = Annotated[T, Marker(given=True)]
"""A running job takes over another value, in the place of one that was given."""


@dataclass(frozen=True, slots=True)
class Change:
    """A setting that differs: its dotted path, and whether a running job takes it over."""

    path: str
    live: bool


def changes(old: BaseModel, new: BaseModel) -> list[Change]:
    """Return what differs between two configurations of one kind, in the order of their fields.

    Elements of a list that have names, as pagers do, are compared by them:
    ``pagers.slack.channel``. A name that comes, goes or moves is a change of the list.
    """
    return list(_changes(old, new, "", live=False))


def _changes(old: BaseModel, new: BaseModel, prefix: str, *, live: bool) -> Iterator[Change]:
    if type(old) is not type(new):
        yield Change(f"{prefix}kind", live=False)
        return
    for name, field in type(old).model_fields.items():
        before, after, path = getattr(old, name), getattr(new, name), f"{prefix}{name}"
        if before == after:
            continue
        marker = _marker(field)
        taken = live or marker is not None
        if isinstance(before, BaseModel) and isinstance(after, BaseModel):
            yield from _changes(before, after, f"{path}.", live=taken)
        elif (names := _names(before)) and names == _names(after):
            for inner, one, other in zip(names, before, after, strict=True):
                yield from _changes(one, other, f"{path}.{inner}.", live=taken)
        else:
            outside = marker is not None and marker.given and None in (before, after)
            yield Change(path, live=taken and not outside)


def _marker(field: Any) -> Marker | None:
    return next((one for one in field.metadata if isinstance(one, Marker)), None)


def _names(value: Any) -> list[str]:
    """Return the names of sections in a list; none where they have none, or share one."""
    if not isinstance(value, tuple):
        return []
    names = [str(getattr(one, "name", "")) for one in value]
    return names if all(names) and len(set(names)) == len(names) else []


def live_settings(model: type[BaseModel]) -> dict[str, Marker]:
    """Return the live settings of a kind of file by their path; ``*`` is an element of a list."""
    return dict(_live(model, "", None))


def is_live(model: type[BaseModel], name: str) -> bool:
    """Return whether a setting of a section states that it is live."""
    return _marker(model.model_fields[name]) is not None


def _live(
    model: type[BaseModel], prefix: str, outer: Marker | None
) -> Iterator[tuple[str, Marker]]:
    for name, field in model.model_fields.items():
        path, marker = f"{prefix}{name}", outer or _marker(field)
        sections = list(sections_of(field.annotation))
        if sections == [field.annotation]:
            yield from _live(sections[0], f"{path}.", marker)
        elif sections:
            for section in sections:
                yield from _live(section, f"{path}.*.", marker)
        elif marker is not None:
            yield path, marker


def sections_of(annotation: Any) -> Iterator[type[BaseModel]]:
    """Return the kinds of sections that a type holds: itself, or those of a list or a choice."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
        return
    for inner in typing.get_args(annotation):
        yield from sections_of(inner)
