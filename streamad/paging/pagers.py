"""Who is told of pages: the settings of each kind of pager."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from streamad.config_sections import Section


class PagerConfig(Section):
    """One receiver of pages."""

    name: str = Field(pattern=r"^[a-z0-9]([a-z0-9._-]{0,61}[a-z0-9])?$")
    """Part of the consumer group that reads for it."""
    kind: Literal["alertmanager", "webhook"]
    """What it speaks."""
    urls: tuple[str, ...] = ()
    """Where it is."""
