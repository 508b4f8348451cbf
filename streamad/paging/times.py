"""When nothing pages: silences and maintenance windows."""

from __future__ import annotations

from pydantic import Field

from streamad.config_sections import Section


class SilenceConfig(Section):
    """A time in which matching incidents do not page."""

    name: str = Field(min_length=1, max_length=128)
    """Shown where it kept something from paging."""
    matchers: tuple[str, ...] = ()
    """As in Alertmanager: ``service=~pay.*``; all must match; none: everything matches."""
