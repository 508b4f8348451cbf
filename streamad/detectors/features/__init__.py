"""Nearest neighbours among statistics of windows: level, spread, slope, rhythm."""

from streamad.detectors.features.detector import FeatureKNN

__all__ = ["FeatureKNN"]
