"""The errors of streamad: one root, drawn here before any class.

StreamadError
    ConfigError                 the pipeline file or an option is wrong; nothing was started
    TrainingError               the training data is too little to fit on
    UnknownNameError            no detector, source, sink or setting of that name
    NotFittedError              a detector was asked to score before it learned anything
    WindowError                 windows of a wrong shape or with values a detector refuses
    ArtifactError               an artifact is missing, damaged or does not fit the configuration
        UnfitArtifactError      it is sound, and made for another configuration
    StateError                  a snapshot cannot be restored under this configuration
    SourceUnavailableError      the input cannot be read now (retryable)
    SinkUnavailableError        the output cannot be written now (retryable)
    MembershipError             the group has moved on without this member (it joins again)
    OffsetOutOfRangeError       input that was to be read is gone, and the policy says fail
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class StreamadError(Exception):
    """Root of everything streamad raises on purpose; the message says what to do."""

    retryable = False


class ConfigError(StreamadError):
    """The configuration is refused before anything starts."""


class TrainingError(ConfigError):
    """The training data holds nothing a detector could be fitted on."""


class UnknownNameError(ConfigError):
    """No such name; the message offers the nearest right one."""

    def __init__(self, kind: str, got: str, known: Iterable[str]) -> None:
        self.kind, self.got, self.known = kind, got, sorted(known)
        near = nearest(got, self.known)
        hint = f"did you mean {near!r}?" if near else f"known: {', '.join(self.known)}"
        super().__init__(f"no {kind} is called {got!r}; {hint}")


class NotFittedError(StreamadError):
    """A detector that needs training was asked to score without any."""


class WindowError(StreamadError):
    """Windows a detector cannot score; the message names the shape got and expected."""


class ArtifactError(StreamadError):
    """An artifact is missing, damaged, or does not fit the configuration."""


class UnfitArtifactError(ArtifactError):
    """An artifact is sound and was made for another configuration: nothing stands in for it."""


class StateError(StreamadError):
    """A snapshot does not fit the running configuration; it is not restored silently."""


class SourceUnavailableError(StreamadError):
    """The source cannot be read now; the runtime backs off and tries again."""

    retryable = True


class SinkUnavailableError(StreamadError):
    """The sink cannot be written now; the runtime backs off and tries again."""

    retryable = True


class ClusterError(StreamadError):
    """A Flink cluster cannot be reached, or refuses what it is asked."""

    retryable = True


class MembershipError(StreamadError):
    """Another member has this one's partitions, or soon will; what was not committed is void."""

    retryable = True


class OffsetOutOfRangeError(StreamadError):
    """Input that was to be read is gone; the message names the setting that decides."""


def nearest(got: str, known: Iterable[str]) -> str | None:
    """Return the known name most like ``got``, or None where nothing is near."""
    folded = {name.replace("-", "_").lower(): name for name in known}
    matches = difflib.get_close_matches(got.replace("-", "_").lower(), folded, n=1, cutoff=0.5)
    return folded[matches[0]] if matches else None
