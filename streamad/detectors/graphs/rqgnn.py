"""Graphs judged by a network that has seen labelled anomalies; served without torch."""

from __future__ import annotations

from typing import Any, ClassVar, Final, Literal, Self

import numpy as np
from numpy.typing import NDArray

from streamad.detectors.contract import (
    Arrays,
    DetectorInfo,
    Floats,
    Ints,
    ItemDetector,
    Memory,
)
from streamad.detectors.graphs.explaining import (
    Effect,
    Surprise,
    edge_effects,
    guilty,
    left_out_of,
    node_effects,
    number,
    pair_shares,
    said_of,
    shares_of,
    shown_type,
    type_effects,
)
from streamad.detectors.graphs.wording import plain, sentence
from streamad.errors import ArtifactError, ConfigError, NotFittedError, TrainingError
from streamad.graphs.inputs import InputPlan
from streamad.graphs.network_kernels import score_graphs
from streamad.graphs.rows import Graphs
from streamad.graphs.spectral import spectra_of
from streamad.graphs.vector import MAX_TYPES, SHAPE, Vocabulary, learn_vocabulary, shape_of
from streamad.records import Explanation
from streamad.registry import Registry

TRAINERS: Final = Registry(
    "trainer", "streamad.graph_trainers", {"rqgnn": "streamad.training.rqgnn:fit_arrays"}
)
"""Training needs torch; it is loaded when ``fit`` is called, and never to serve."""
NETWORK: Final = (
    "table", "mix", "mix_bias", "embed", "embed_bias", "pool", "pool_bias", "pool_out",
    "pool_out_bias", "branch", "branch_bias", "head", "head_bias",
)  # fmt: skip
"""In the order in which `score_graphs` takes them."""
MOST: Final = 1e6
"""Scores are clipped to this magnitude, so that they are finite."""
MOST_PARTS: Final = 5
Form = Literal["paper", "code"]


class RQGNN(ItemDetector[Graphs]):
    """Judge a graph by a neural network led by Rayleigh quotients, trained on labelled graphs.

    Chebyshev filters of the normalised Laplacian embed nodes; the graph's Rayleigh quotients weigh
    nodes in pooling, and stand beside the pooled embedding. The score is the network's log odds of
    an anomaly, less the threshold with the best macro-F1 on validation graphs: above 0 a graph
    looks more like labelled anomalies. It knows the kinds of anomalies it was shown and no others;
    without labels use `graph_vector`.

    Cost per graph: about 20,000 multiplications per node (serving folds linear layers into one
    another); 10,000 graphs of 20 nodes per second and core.

    Parameters
    ----------
    max_types : node types with a feature of their own, the most frequent ones
    degree_buckets : also use each node's number of neighbours as a feature (not in the paper)
    form : ``paper``, or ``code``: filters left as drawn, ``x^T L x`` undivided, class-balanced
        weights and no degree buckets, as the authors published it
    epochs, hidden, filters, terms, seed : of the training

    Source: Dong, Zhang, Wang, Rayleigh Quotient Graph Neural Networks for Graph-level Anomaly
    Detection, ICLR 2024.
    """

    finite: ClassVar[tuple[str, ...]] = (
        *NETWORK,
        "threshold",
        "usual",
        "type_shares",
        "pair_shares",
    )
    info: ClassVar[DetectorInfo] = DetectorInfo(
        name="rqgnn",
        summary="a graph neural network led by Rayleigh quotients, trained on labelled graphs",
        modality="graphs",
        min_size=1,
        default_size=1,
        needs_training=True,
        cost="moderate",
        tail=(0.5, 1.5, 2.5, 3.5),
        paper="Dong, Zhang, Wang, Rayleigh Quotient Graph Neural Networks for Graph-level Anomaly "
        "Detection, ICLR 2024",
    )

    def __init__(  # noqa: PLR0913 each is a setting of the pipeline file, all with a default
        self,
        *,
        max_types: int = MAX_TYPES,
        degree_buckets: bool = True,
        form: Form = "paper",
        epochs: int = 100,
        hidden: int = 64,
        filters: int = 4,
        terms: int = 6,
        seed: int = 0,
    ) -> None:
        if form not in {"paper", "code"}:
            msg = f"form must be 'paper' or 'code', got {form!r}"
            raise ConfigError(msg)
        if min(max_types, epochs, hidden, filters, terms) < 1:
            msg = (
                "max_types, epochs, hidden, filters and terms must be 1 or more, got "
                f"{max_types}, {epochs}, {hidden}, {filters}, {terms}"
            )
            raise ConfigError(msg)
        self.max_types, self.form = max_types, form
        self.degree_buckets = degree_buckets and form == "paper"
        self.epochs, self.hidden, self.filters, self.terms = epochs, hidden, filters, terms
        self.seed = seed
        self._plan: InputPlan | None = None
        self._arrays: dict[str, Floats] = {}

    # learning --------------------------------------------------------------------------------

    def fit(
        self,
        items: Graphs,
        /,
        *,
        groups: Ints | None = None,
        labels: NDArray[np.bool_] | None = None,
    ) -> Self:
        """Train on labelled graphs; 15 % of them choose the epoch and the threshold.

        labels : bool ``(n,)``, which graphs are anomalous

        Raises
        ------
        TrainingError
            without labels, or with fewer than a dozen graphs of a class
        ConfigError
            where torch is not installed
        """
        if labels is None or len(labels) != len(items):
            got = "none" if labels is None else f"{len(labels)} labels of {len(items)} graphs"
            msg = (
                f"rqgnn learns from graphs that are each labelled normal or anomalous, got {got}; "
                "give labels, or use graph_vector, which needs none"
            )
            raise TrainingError(msg)
        try:
            train = TRAINERS.load("rqgnn")
        except ModuleNotFoundError as error:
            msg = f"rqgnn trains with torch ({error}); pip install 'streamad-pipeline[graphs]'"
            raise ConfigError(msg) from error
        words = learn_vocabulary(items, max_types=self.max_types)
        plan = InputPlan(
            vocabulary=words, buckets=self.degree_buckets, normalised=self.form == "paper"
        )
        normal = items[~labels.astype(np.bool_)]
        arrays: dict[str, Floats] = train(
            plan,
            plan(items),
            labels.astype(np.bool_),
            as_published=self.form == "code",
            epochs=self.epochs,
            hidden=self.hidden,
            n_filters=self.filters,
            n_terms=self.terms,
            seed=self.seed,
        )
        codes = words.encode(normal.types)
        counts = np.bincount(codes, minlength=len(words)) + 0.5
        usual = np.median(shape_of(normal, spectra_of(normal)), axis=0)
        self._arrays = {
            **arrays,
            "usual": usual.astype(np.float32),
            "type_shares": (counts / counts.sum()).astype(np.float32),
            "pair_shares": pair_shares(normal, codes, len(words)).astype(np.float32),
        }
        self._plan = plan
        return self

    # scoring ---------------------------------------------------------------------------------

    def score(
        self, items: Graphs, /, *, memory: Memory | None = None, slots: Ints | None = None
    ) -> Floats:
        """Return float32 ``(n_graphs,)``, log odds less the threshold: above 0 is anomalous."""
        inputs = self._fitted()(items)
        spectra = inputs.spectra
        odds = score_graphs(
            spectra.node_from,
            spectra.begins,
            spectra.neighbours,
            spectra.shares.astype(np.float32),
            inputs.codes,
            inputs.quotients,
            *(self._arrays[name] for name in NETWORK),
        )
        odds = np.nan_to_num(
            odds - self._arrays["threshold"][0], nan=0.0, posinf=MOST, neginf=-MOST
        )
        return np.asarray(np.clip(odds, -MOST, MOST), dtype=np.float32)

    def looks(
        self, items: Graphs, /, *, memory: Memory | None = None, slots: Ints | None = None
    ) -> Floats:
        """Return ``log(1 + exp(score))`` ``(n_graphs, 1)``: laws of scores begin at 0."""
        odds = self.score(items, memory=memory, slots=slots)
        return np.logaddexp(np.float32(0), odds).astype(np.float32)[:, None]

    def _fitted(self) -> InputPlan:
        if self._plan is None:
            msg = "rqgnn was not fitted; fit it on labelled graphs, or load an artifact"
            raise NotFittedError(msg)
        return self._plan

    # explaining ------------------------------------------------------------------------------

    def explain(
        self, items: Graphs, /, *, memory: Memory | None = None, slots: Ints | None = None
    ) -> list[Explanation]:
        """Return which edges and node types raise each score: what it loses without them.

        A type's loss is that of making its nodes the most usual type.
        """
        words = self._fitted().vocabulary
        types, pairs = (
            -np.log(np.maximum(self._arrays[name].astype(np.float64), 1e-9))
            for name in ("type_shares", "pair_shares")
        )
        surprise = Surprise(words.encode(items.types), types, pairs)
        scores = self.score(items)
        return [self._explain(items, i, float(scores[i]), surprise) for i in range(len(items))]

    def _explain(self, items: Graphs, i: int, score: float, surprise: Surprise) -> Explanation:
        words, shares = self._fitted().vocabulary, self._arrays["type_shares"]
        stand_in = words.types[int(np.argmax(shares[1:]))] if words.types else ""
        edges = [one for one in edge_effects(items, i, self.score, surprise) if one.loss > 0]
        types = [one for one in type_effects(items, i, self.score, stand_in) if one.loss > 0]
        nodes = [one for one in node_effects(items, i, self.score, surprise) if one.loss > 0]
        edges, types = edges[:MOST_PARTS], types[:MOST_PARTS]
        n_nodes = int(items.node_from[i + 1] - items.node_from[i])
        usual = dict(zip([shown_type(one) for one in words.types], shares[1:], strict=True))
        return Explanation(
            observed={one.name: one.count for one in [*types, *edges]},
            expected={
                one.name: round(float(usual[one.name]) * n_nodes, 1)
                for one in types
                if one.name in usual
            },
            variates=shares_of({one.name: one.loss for one in [*types, *edges]}),
            time_ms=int(items.time_ms[i, 1]),
            text=self._text(items, i, score, types, [*nodes[:1], *edges[:1]]),
            entities=guilty(
                items, i, (u for one in [*nodes[:MOST_PARTS], *edges] for u in one.nodes)
            ),
        )

    def _text(
        self, items: Graphs, i: int, score: float, types: list[Effect], found: list[Effect]
    ) -> str:
        like, side = ("labelled anomalies", "above") if score > 0 else ("normal graphs", "below")
        parts = [f"looks like {like} ({number(abs(round(score, 2)))} {side} the threshold)"]
        one = items[i : i + 1]
        shape = shape_of(one, spectra_of(one))[0]
        usual = self._arrays["usual"]
        at = SHAPE.index("edges")
        here, there = (plain("edges", float(value[at])) for value in (shape, usual))
        if abs(here - there) > max(1.0, 0.5 * there):
            parts.append(sentence("edges", round(here), round(there)))
        if types:
            parts.append(f"{types[0].name} raises the score most")
        parts += [*left_out_of(items, i), *said_of(found)]
        return "; ".join(parts)

    # state -----------------------------------------------------------------------------------

    def state(self) -> Arrays:
        """Return what was learned."""
        plan = self._fitted()
        switches = np.array([plan.buckets, plan.weighted, plan.normalised], np.uint8)
        return {**self._arrays, "types": plan.vocabulary.to_array(), "switches": switches}

    def load(self, state: Arrays) -> Self:
        """Take back what ``state`` returned.

        Raises
        ------
        ArtifactError
            where arrays are missing, of a wrong shape, or not finite
        """
        missing = {"types", "switches", *self.finite} - set(state)
        if missing or state["switches"].shape != (3,):
            lacks = ", ".join(sorted(missing)) or "three switches"
            msg = f"rqgnn: the artifact lacks {lacks}; fit it again"
            raise ArtifactError(msg)
        buckets, weighted, normalised = (bool(one) for one in state["switches"])
        plan = InputPlan(
            vocabulary=Vocabulary.from_array(state["types"]),
            buckets=buckets,
            weighted=weighted,
            normalised=normalised,
        )
        shapes = _shapes(plan, state)
        self._arrays = {name: _read(state, name, shape) for name, shape in shapes.items()}
        self._plan = plan
        return self


def _shapes(plan: InputPlan, state: Arrays) -> dict[str, tuple[int, ...]]:
    """Return the shape each array has to have."""
    width, hidden = plan.n_features, int(state["mix_bias"].size)
    terms = max(int(state["mix"].shape[0]) // max(width, 1), 1) if state["mix"].ndim else 1
    square, line = (hidden, hidden), (hidden,)
    return {
        "table": (plan.n_codes, width), "mix": (terms * width, hidden), "mix_bias": line,
        "embed": square, "embed_bias": line, "pool": (width, hidden), "pool_bias": line,
        "pool_out": square, "pool_out_bias": line, "branch": (width, hidden), "branch_bias": line,
        "head": (2 * hidden,), "head_bias": (1,), "threshold": (1,), "usual": (len(SHAPE),),
        "type_shares": (len(plan.vocabulary),),
        "pair_shares": (len(plan.vocabulary), len(plan.vocabulary)),
    }  # fmt: skip


def _read(state: Arrays, name: str, shape: tuple[int, ...]) -> Floats:
    array: NDArray[Any] = state[name]
    if array.shape != shape or array.dtype.kind != "f" or not np.isfinite(array).all():
        msg = (
            f"rqgnn: the artifact's {name} is {array.dtype} {array.shape}, expected finite floats "
            f"{shape}; fit it again"
        )
        raise ArtifactError(msg)
    return np.ascontiguousarray(array, dtype=np.float32)
