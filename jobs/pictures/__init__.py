"""Series, what is strange about them, and their alerts as a picture that opens anywhere."""

from jobs.pictures.panels import Panel, Picture, panels_of
from jobs.pictures.svg import draw

__all__ = ["Panel", "Picture", "draw", "panels_of"]
