"""What state belongs to: the settings that change decisions, what scores, and its artifact.

Every kind of saved state (snapshot, keyed state, checkpoint of the embedded pipeline) carries these
facts in its header. State with other facts is not restored, and the error names what differs.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from streamad.config import binds_state
from streamad.errors import StateError

STATE_VERSION = 5
"""Of the arrays of a shard and of its header."""

MAX_DIFFERENCES = 5
"""Differences that an error names; it counts the others."""

_MAX_VALUE_CHARS = 60
_UNSET = object()


@dataclass(frozen=True, slots=True, kw_only=True)
class StateIdentity:
    """What state belongs to.

    settings : value of each setting that changes decisions, by dotted path (JSON values); checksum
    : over those that state is bound to; detector : name of the one that scores, which may be a
    fallback; artifact : id of its artifact ("" = none); size, begins : samples of a window, and
    those with which a key has its first one (0: not of windows).
    """

    checksum: str
    settings: Mapping[str, Any]
    detector: str
    artifact: str = ""
    size: int = 0
    begins: int = 0

    def header(self) -> dict[str, Any]:
        """Return what a header says of this, JSON-ready."""
        return {
            "version": STATE_VERSION,
            "checksum": self.checksum,
            "settings": dict(self.settings),
            "detector": self.detector,
            "artifact": self.artifact,
            "size": self.size,
            "begins": self.begins,
        }

    def require(self, header: Mapping[str, Any]) -> None:
        """Raise StateError where a header is of another version, or names other facts."""
        version = header.get("version")
        if version != STATE_VERSION:
            msg = (
                f"the state has version {version} and this streamad reads version {STATE_VERSION}; "
                "run the version that wrote it, or set delivery.on_state_mismatch: fresh to start "
                "with empty state"
            )
            raise StateError(msg)
        found = self.differences(header)
        if found:
            more = len(found) - MAX_DIFFERENCES
            named = "; ".join(found[:MAX_DIFFERENCES]) + (f"; and {more} more" if more > 0 else "")
            msg = (
                f"the state was made under another configuration (state -> this job): {named}. "
                "Restore the configuration, or set delivery.on_state_mismatch: fresh to start with "
                "empty state"
            )
            raise StateError(msg)

    def differences(self, header: Mapping[str, Any]) -> list[str]:
        """Return each fact in which a header differs, such as ``windows.size: 16 -> 32``."""
        theirs, ours = header.get("settings") or {}, self.settings
        both = [*ours, *(path for path in theirs if path not in ours)]
        paths = [path for path in both if binds_state(path)]
        pairs = [(path, theirs.get(path, _UNSET), ours.get(path, _UNSET)) for path in paths]
        # After the settings: a new detector or artifact often follows from one of them.
        pairs += [
            ("detector that scores", header.get("detector", _UNSET), self.detector),
            ("artifact id", header.get("artifact", _UNSET), self.artifact),
        ]
        # State of before these were written: its first windows were full ones.
        size = header.get("size", self.size)
        pairs += [
            ("samples of a window", size, self.size),
            ("samples with which a key is first judged", header.get("begins", size), self.begins),
        ]
        found = [f"{path}: {_text(old)} -> {_text(new)}" for path, old, new in pairs if old != new]
        if not found and header.get("checksum") != self.checksum:
            found.append(f"checksum: {header.get('checksum')} -> {self.checksum}")
        return found


def _text(value: object) -> str:
    if value is _UNSET:
        return "(not known)"
    if value is None or value == "":
        return "none"
    text = value if isinstance(value, str) else json.dumps(value, sort_keys=True)
    return text if len(text) <= _MAX_VALUE_CHARS else text[: _MAX_VALUE_CHARS - 3] + "..."
