"""One module or package a detector, and the table that names them."""

from streamad.registry import Registry

DETECTORS = Registry(
    "detector",
    "streamad.detectors",
    {
        "auto": "streamad.detectors.auto:Auto",
        "robust_z": "streamad.detectors.robust_z:RobustZ",
        "knn": "streamad.detectors.knn:KNN",
        "knn_fused": "streamad.detectors.knn:FusedKNN",
        "knn_features": "streamad.detectors.features:FeatureKNN",
        "knn_roughness": "streamad.detectors.roughness:RoughnessKNN",
        "knn_variates": "streamad.detectors.variates:VariateKNN",
        "deviations": "streamad.detectors.deviations:Deviations",
        "lof": "streamad.detectors.pyod_models:LOF",
        "pca": "streamad.detectors.pyod_models:PCA",
        "themis": "streamad.detectors.themis:Themis",
        "hypad": "streamad.detectors.hypad:HypAD",
        "timercd": "streamad.detectors.timercd:TimeRcd",
        "rare_events": "streamad.detectors.events.rare:RareEvents",
        "ape": "streamad.detectors.events.ape:Ape",
        "clan": "streamad.detectors.events.clan:Clan",
        "graph_vector": "streamad.detectors.graphs.label_free:GraphVector",
        "rqgnn": "streamad.detectors.graphs.rqgnn:RQGNN",
        "edge_stream": "streamad.detectors.graphs.edges:EdgeStream",
        "edge_changes": "streamad.detectors.graphs.changes:EdgeChanges",
    },
)
"""Names to places. A new detector is one file and one line here."""

__all__ = ["DETECTORS"]
