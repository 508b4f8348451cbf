"""THEMIS: windows judged in the embedding space of a pretrained forecaster's encoder."""

from streamad.detectors.themis.detector import Themis

__all__ = ["Themis"]
