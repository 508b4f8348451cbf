"""HypAD: a recurrent auto-encoder that knows how certain it is."""

from streamad.detectors.hypad.detector import HypAD

__all__ = ["HypAD"]
