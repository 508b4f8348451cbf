"""Files of any common tool: as tables, as points of series, and as batches like a topic's."""

from connectors.files.moments import ROW_MS
from connectors.files.points import Points, points_of
from connectors.files.roles import LABEL_NAMES, Roles, find_roles, is_label, label_of
from connectors.files.series import SeriesFile, is_lines, read_messages, read_series
from connectors.files.sheet import Sheet, read_sheet
from connectors.files.times import BY_ROW

__all__ = [
    "BY_ROW",
    "LABEL_NAMES",
    "ROW_MS",
    "Points",
    "Roles",
    "SeriesFile",
    "Sheet",
    "find_roles",
    "is_label",
    "is_lines",
    "label_of",
    "points_of",
    "read_messages",
    "read_series",
    "read_sheet",
]
