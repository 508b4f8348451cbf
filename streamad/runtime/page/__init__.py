"""The page job: incidents in, pages out, one loop per pager."""

from streamad.runtime.page.loop import PageLoop

__all__ = ["PageLoop"]
