"""A part of a configuration file, and what differs in it from the defaults."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict


class Section(BaseModel):
    """A part of the pipeline file: frozen, and without room for unknown keys."""

    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=())


def changed(section: Section) -> set[str]:
    """Return the names of the settings of a section that differ from their default."""
    return {
        name
        for name, known in type(section).model_fields.items()
        if getattr(section, name) != known.get_default(call_default_factory=True)
    }
