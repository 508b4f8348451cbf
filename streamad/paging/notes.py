"""What the desk remembers of answers: of series, of incidents, of what was dismissed, of silences.

Each is a plain mapping under a name that begins with its kind, kept in the state's compacted topic.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Final

from streamad.alerting.matchers import parse_matchers

SEEN, SERIES, PAST, DISMISSED, SILENCE = "seen", "series", "past", "dismissed", "silence"
FLAPS: Final = "flaps"
"""Of series whose incidents opened lately."""
BOUNDS: Final[Mapping[str, int]] = {
    SEEN: 2_000,
    SERIES: 10_000,
    PAST: 2_000,
    DISMISSED: 1_000,
    SILENCE: 100,
    FLAPS: 5_000,
}
"""Most notes of a kind; the one written longest ago goes first."""
_FIELDS: Final[Mapping[str, Mapping[str, type | tuple[type, ...]]]] = {
    SEEN: {},
    SERIES: {"offset": (int, float), "until_ms": int, "held": str},
    PAST: {"group": str, "members": dict, "traits": dict},
    DISMISSED: {"traits": list},
    FLAPS: {"opened": list},
    SILENCE: {"name": str, "matchers": list, "tenant": str, "starts_ms": int, "ends_ms": int},
}


def kind_of(name: str) -> str:
    """Return the kind of a note by its name.

    >>> kind_of("series/default/web-1/cpu")
    'series'
    """
    return name.partition("/")[0]


def check_note(name: str, note: Mapping[str, Any]) -> dict[str, Any]:
    """Return a note as it was read; raises TypeError, ValueError or KeyError where it is none."""
    for field, wanted in {"at_ms": int, **_FIELDS[kind_of(name)]}.items():
        value = note[field]
        if not isinstance(value, wanted) or isinstance(value, bool):
            msg = f"{field} of the note {name!r:.80} is {value!r:.40}"
            raise TypeError(msg)
        if isinstance(value, float) and not math.isfinite(value):
            msg = f"{field} of the note {name!r:.80} is no finite number"
            raise TypeError(msg)
    if kind_of(name) == SILENCE:
        parse_matchers(tuple(map(str, note["matchers"])))
    if kind_of(name) == FLAPS and not all(type(ms) is int for ms in note["opened"]):
        msg = f"opened of the note {name!r:.80} holds something else than whole numbers"
        raise TypeError(msg)
    if kind_of(name) == PAST and not all(
        isinstance(one, list) and len(one) == 2 for one in note["members"].values()
    ):
        msg = f"members of the note {name!r:.80} are no series with a number each"
        raise TypeError(msg)
    return {field: value for field, value in note.items() if field != "version"}
