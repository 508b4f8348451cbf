"""The memory of `edge_changes`: bounded tables of nodes and edges, and what a sound state is."""

from __future__ import annotations

import numpy as np

from streamad.detectors.contract import Arrays
from streamad.detectors.graphs import kernels as k
from streamad.detectors.graphs.shared import SharedMemory, require_range
from streamad.errors import ArtifactError


class TableMemory(SharedMemory):
    """Bounded tables of nodes and of edges; see `streamad.detectors.graphs.kernels`.

    node_hash, node, node_usual, node_bits, node_name : ``(nodes, ...)``
    edge_hash, edge_target, edge, edge_gap : ``(edges, ...)``
    counters : int64 ``(4,)``: the current tick, 1 once an edge was seen, nodes and edges given up
    """

    def __init__(self, nodes: int, edges: int) -> None:
        super().__init__(
            {
                "node_hash": np.zeros(nodes, np.uint64),
                "node": np.zeros((nodes, k.N_NODE), np.int64),
                "node_usual": np.zeros(nodes, np.float64),
                "node_bits": np.zeros((nodes, k.WORDS), np.uint64),
                "node_name": np.zeros((nodes, k.NAME_BYTES), np.uint8),
                "edge_hash": np.zeros(edges, np.uint64),
                "edge_target": np.zeros(edges, np.uint64),
                "edge": np.zeros((edges, k.N_EDGE), np.int64),
                "edge_gap": np.zeros((edges, 2), np.float64),
                "counters": np.zeros(4, np.int64),
            }
        )

    @property
    def nodes(self) -> k.Nodes:
        """Return the arrays of nodes that kernels write."""
        return (
            self["node_hash"], self["node"], self["node_usual"], self["node_bits"],
            self["node_name"],
        )  # fmt: skip

    @property
    def edges(self) -> k.Edges:
        """Return the arrays of edges that kernels write."""
        return self["edge_hash"], self["edge_target"], self["edge"], self["edge_gap"]

    @property
    def given_up(self) -> tuple[int, int]:
        """Return how many nodes, and how many edges, left because a table was full."""
        return int(self["counters"][k.LOST_NODES]), int(self["counters"][k.LOST_EDGES])

    def copy(self) -> TableMemory:
        """Return a memory of the same content."""
        other = TableMemory(len(self["node_hash"]), len(self["edge_hash"]))
        for name, array in self.state().items():
            other[name][...] = array
        return other

    def name_at(self, place: int) -> str:
        """Return the name of a node, at most 64 bytes of it."""
        return bytes(self["node_name"][place]).rstrip(b"\0").decode("utf-8", "ignore")

    def check(self, state: Arrays) -> None:
        """Refuse numbers out of range, and lists of edges that do not hang together."""
        for name in ("node_usual", "edge_gap"):
            require_range(state, name, 0.0, 2.0**53)
        for column in (k.ACTIVE, k.N_OUT, k.N_IN, k.SENT, k.BORN, k.GOT, k.MET, k.N_WINDOWS):
            require_range({"node": state["node"][:, column]}, "node", 0, 2**53)
        require_range({"node": state["node"][:, k.N_SET]}, "node", 0, k.BITS)
        for column in (k.SEEN, k.SEEN_AT):
            require_range({"edge": state["edge"][:, column]}, "edge", 0, 2**53)
        require_range({"edge": state["edge"][:, k.GONE]}, "edge", 0, 1)
        _, started, *lost = state["counters"].tolist()
        if started not in (0, 1) or min(lost) < 0:
            msg = f"counters of the state are {state['counters'].tolist()}: it is damaged"
            raise ArtifactError(msg)
        if not (_links_are_sound(state) and _lists_are_whole(state)):
            msg = "the lists of edges in the state do not hang together: it is damaged"
            raise ArtifactError(msg)


def _links_are_sound(state: Arrays) -> bool:
    """Return whether every place that kernels go to exists and is in use."""
    used = np.flatnonzero(state["edge_hash"])
    known = np.flatnonzero(state["node_hash"])
    sources = state["edge"][used, k.SOURCE]
    links = state["edge"][used][:, [k.NEXT, k.PREV]].ravel()
    starts = state["node"][known][:, [k.HEAD, k.CURSOR]].ravel()
    places = np.concatenate([links, starts])
    n_nodes, n_edges = len(state["node"]), len(state["edge"])
    return bool(
        ((sources >= 0) & (sources < n_nodes)).all()
        and state["node_hash"][sources].all()
        and ((places >= -1) & (places < n_edges)).all()
        and state["edge_hash"][places[places >= 0]].all()
    )


def _lists_are_whole(state: Arrays) -> bool:
    """Return whether every used edge is in the list of its source, and in it once."""
    used = np.flatnonzero(state["edge_hash"])
    known = np.flatnonzero(state["node_hash"])
    edge, node = state["edge"], state["node"]
    sound = True
    for there, back in ((k.NEXT, k.PREV), (k.PREV, k.NEXT)):
        linked = used[edge[used, there] >= 0]
        other = edge[linked, there]
        sound &= bool((edge[other, back] == linked).all())
        sound &= bool((edge[other, k.SOURCE] == edge[linked, k.SOURCE]).all())
    firsts = used[edge[used, k.PREV] < 0]
    headed = known[node[known, k.HEAD] >= 0]
    pointed = known[node[known, k.CURSOR] >= 0]
    counts = np.bincount(edge[used, k.SOURCE], minlength=len(node))
    return bool(
        sound
        and len(firsts) == len(headed)
        and (node[edge[firsts, k.SOURCE], k.HEAD] == firsts).all()
        and (edge[node[pointed, k.CURSOR], k.SOURCE] == pointed).all()
        and (counts[known] == node[known, k.N_OUT]).all()
    )
