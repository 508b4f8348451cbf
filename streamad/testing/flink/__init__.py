"""A real Flink for tests; see `streamad.testing.flink.cluster`."""

from streamad.testing.flink.cluster import ClusterError, FlinkCluster, why_no_cluster

__all__ = ["ClusterError", "FlinkCluster", "why_no_cluster"]
