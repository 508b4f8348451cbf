"""What a detector must beat: simple methods as detectors, so that they run through the same code.

They are for comparison only. No pipeline can name them, and what they take in as they go cannot be
saved.
"""

from streamad.registry import Registry

BASELINES = Registry(
    "baseline",
    "streamad.baselines",
    {
        "random": "streamad.evaluation.baselines.simple:Random",
        "abs_z": "streamad.evaluation.baselines.simple:AbsZ",
        "knn_raw": "streamad.evaluation.baselines.neighbours:RawKNN",
        "knn_raw3": "streamad.evaluation.baselines.neighbours:RawKNN3",
        "iforest": "streamad.evaluation.baselines.simple:SubsequenceIForest",
        "matrix_profile": "streamad.evaluation.baselines.neighbours:LeftMatrixProfile",
        "half_space_trees": "streamad.evaluation.baselines.half_space:HalfSpaceTrees",
    },
)
"""Names to places; `lof` and `pca` are detectors of the house and stand beside them."""

ALWAYS = (
    "random", "abs_z", "knn_raw", "knn_raw3", "lof", "pca", "iforest", "matrix_profile",
    "half_space_trees",
)  # fmt: skip
"""What every evaluation runs beside the detectors it is asked for."""

NEEDS = {
    "half_space_trees": ("river", "pip install 'streamad-pipeline[bench]'"),
}
"""Packages that the base does not have, by baseline, and how to get them."""

__all__ = ["ALWAYS", "BASELINES", "NEEDS"]
