"""TimeRCD: every time step classified against its context, without any training of the user's."""

from streamad.detectors.timercd.detector import TimeRcd

__all__ = ["TimeRcd"]
