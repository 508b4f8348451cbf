"""Nearest neighbours in the key's own past: the default detector.

A window is strange where nothing like it was seen before. What was seen is kept as *histories*,
arrays of scaled samples, and every window in a history is a view of it: a sample costs its own four
bytes instead of a whole window. There are two: a *reference* that ``fit`` makes from training
windows and all keys share, and a *memory* a key, of its own recent samples.

Scale comes from training samples (median and standard deviation of the key's group), never from the
window itself: what normalises each window is blind to level and amplitude.
"""

from streamad.detectors.knn.detector import KNN, FusedKNN

__all__ = ["KNN", "FusedKNN"]
