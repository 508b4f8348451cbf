"""The RQ network: switches, loss, training, export, and the detector served without torch."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load, save

from streamad.detectors.graphs.rqgnn import NETWORK, RQGNN
from streamad.errors import ArtifactError, ConfigError, NotFittedError, TrainingError
from streamad.graphs.inputs import InputPlan
from streamad.graphs.network_kernels import score_graphs
from streamad.graphs.vector import Vocabulary, learn_vocabulary
from streamad.testing.graphs import graphs_of, random_graphs, town

torch = pytest.importorskip("torch")
rqgnn = pytest.importorskip("streamad.training.rqgnn")
network = pytest.importorskip("streamad.networks.rqgnn")
export = pytest.importorskip("streamad.training.rqgnn_export")

ROOT = Path(__file__).resolve().parents[3]
KINDS = ["usual"] * 120 + ["scan"] * 20 + ["lateral"] * 20
GRAPHS = town(KINDS)
LABELS = np.array([kind != "usual" for kind in KINDS])
PLAN = InputPlan(vocabulary=learn_vocabulary(GRAPHS))


@pytest.fixture(scope="module")
def fitted() -> RQGNN:
    return RQGNN(epochs=12).fit(GRAPHS, labels=LABELS)


def untrained(plan: InputPlan, **settings: object) -> torch.nn.Module:
    torch.manual_seed(3)
    made = network.RQGNN(rqgnn.shape_of(plan, rqgnn.Recipe(**settings)))
    # Batch normalisation with statistics of its own, so that folding it is tested.
    made.norm.running_mean.normal_()
    made.norm.running_var.uniform_(0.5, 2.0)
    return made


@pytest.mark.parametrize("buckets", [True, False])
@pytest.mark.parametrize("normalised", [True, False])
@pytest.mark.parametrize("n_terms", [1, 2, 6])
def test_serving_without_torch_gives_what_torch_gives(buckets, normalised, n_terms):
    graphs = random_graphs(40, n_nodes=15, n_edges=25)
    words = Vocabulary(("t0", "t1", "t2"))
    plan = InputPlan(vocabulary=words, buckets=buckets, normalised=normalised)
    inputs = plan(graphs)
    made = untrained(plan, n_terms=n_terms)
    arrays = export.export_arrays(made, plan)
    assert tuple(arrays) == NETWORK
    spectra = inputs.spectra
    served = score_graphs(
        spectra.node_from, spectra.begins, spectra.neighbours, spectra.shares.astype(np.float32),
        inputs.codes, inputs.quotients, *arrays.values(),
    )  # fmt: skip
    wanted = rqgnn.scores_of(made, plan, inputs, np.arange(len(graphs)))
    np.testing.assert_allclose(served, wanted, rtol=1e-5, atol=1e-5 * max(1, np.abs(wanted).max()))


def test_a_batch_of_graphs_is_each_graph_alone():
    inputs = PLAN(GRAPHS)
    made = untrained(PLAN).eval()
    whole = rqgnn.scores_of(made, PLAN, inputs, np.arange(60))
    alone = np.concatenate([rqgnn.scores_of(made, PLAN, inputs, np.array([i])) for i in range(60)])
    np.testing.assert_allclose(whole, alone, rtol=1e-4, atol=1e-4)


def test_the_terms_are_chebyshev_polynomials_of_the_laplacian():
    inputs = PLAN(GRAPHS[:1])
    one = rqgnn.batch_of(PLAN, inputs, np.array([0]))
    scaled = -one.adjacency.to_dense().double().numpy()
    terms = network.chebyshev_terms(one.adjacency, one.signals, 5).numpy()
    width = one.signals.shape[1]
    values, vectors = np.linalg.eigh(scaled)
    for k in range(5):
        polynomial = vectors @ np.diag(np.cos(k * np.arccos(np.clip(values, -1, 1)))) @ vectors.T
        wanted = polynomial @ one.signals.double().numpy()
        np.testing.assert_allclose(terms[:, k * width : (k + 1) * width], wanted, atol=1e-5)


def test_the_sparse_product_has_the_dense_gradient():
    one = rqgnn.batch_of(PLAN, PLAN(GRAPHS[:2]), np.array([0, 1]))
    signals = torch.randn(len(one.signals), 3, requires_grad=True)
    (network.spread(one.adjacency, signals) ** 2).sum().backward()
    sparse = signals.grad.clone()
    signals.grad = None
    ((one.adjacency.to_dense() @ signals) ** 2).sum().backward()
    torch.testing.assert_close(sparse, signals.grad)


def test_filters_are_parameters_unless_frozen():
    trained, frozen = (untrained(PLAN, train_filters=train) for train in (True, False))
    names = {name for name, p in trained.named_parameters() if p.requires_grad}
    left = {name for name, p in frozen.named_parameters() if p.requires_grad}
    assert {name.split(".")[0] for name in names - left} == {"filters"}
    assert len(names - left) == 8
    inputs, parts = PLAN(GRAPHS), rqgnn.stratified(LABELS, (0.8, 0.2), seed=0)
    for train in (True, False):
        recipe = rqgnn.Recipe(epochs=2, train_filters=train, seed=5)
        torch.manual_seed(5)
        before = network.RQGNN(rqgnn.shape_of(PLAN, recipe)).filters[0].weight
        after = rqgnn.train_network(PLAN, inputs, LABELS, parts, recipe).network.filters[0].weight
        assert torch.equal(before, after) is not train


def test_the_loss_is_focal_and_bears_any_logit():
    logits = torch.tensor([[-300.0, 300.0], [500.0, -500.0]], requires_grad=True)
    loss = network.focal_loss(logits, torch.tensor([0, 1]), torch.ones(2), 1.5)
    loss.backward()
    assert torch.isfinite(loss)
    assert torch.isfinite(logits.grad).all()
    z, t = torch.randn(6, 2, dtype=torch.float64), torch.tensor([0, 1, 1, 0, 1, 0])
    hot = torch.nn.functional.one_hot(t, 2).double()
    entropy = torch.nn.functional.binary_cross_entropy_with_logits(z, hot, reduction="none")
    published = torch.exp(-1.5 * hot * z - 1.5 * torch.log1p(torch.exp(-z)))
    weights = torch.tensor([0.5, 1.5], dtype=torch.float64)
    wanted = (weights[t][:, None] * published * entropy).sum() / 6
    torch.testing.assert_close(network.focal_loss(z, t, weights, 1.5), wanted)


def test_weights_of_classes():
    labels = np.arange(18_000 + 1_600) < 1_600
    balanced = rqgnn.class_weights(labels, rqgnn.published())
    assert np.isclose(float(balanced[1] / balanced[0]), 1.25, atol=0.01)
    inverse = rqgnn.class_weights(labels, rqgnn.Recipe())
    assert np.isclose(float(inverse[1] / inverse[0]), 11.25)
    assert np.isclose(float(inverse.sum()), 2)


def test_no_batch_has_one_graph():
    rng = np.random.default_rng(0)
    assert [len(b) for b in rqgnn.batches(np.arange(33), 16, rng)] == [16, 17]
    assert [len(b) for b in rqgnn.batches(np.arange(34), 16, rng)] == [16, 16, 2]


def test_splits_are_stratified_and_whole():
    parts = rqgnn.stratified(LABELS, (0.7, 0.15, 0.15), seed=1)
    assert sorted(np.concatenate(parts).tolist()) == list(range(len(LABELS)))
    assert [int(LABELS[part].sum()) for part in parts] == [28, 6, 6]


def test_a_trained_detector_ranks_anomalies_first(fitted):
    kinds = ["usual"] * 60 + ["scan", "lateral"] * 5
    scores = fitted.score(town(kinds, seed=9))
    assert scores[60:].min() > scores[:60].max()
    assert scores[:60].max() < 0 < scores[60:].min()


def test_scores_are_the_same_alone_and_in_a_batch(fitted):
    whole = fitted.score(GRAPHS)
    alone = np.concatenate([fitted.score(GRAPHS[i : i + 1]) for i in range(len(GRAPHS))])
    assert whole.dtype == np.float32
    assert whole.tobytes() == alone.tobytes()


def test_equal_seeds_give_equal_fits_and_states_come_back(fitted):
    state = load(save(fitted.state()))
    again = RQGNN(epochs=12).fit(GRAPHS, labels=LABELS).state()
    assert all((again[name] == state[name]).all() for name in state)
    loaded = RQGNN().load(state)
    assert loaded.score(GRAPHS).tobytes() == fitted.score(GRAPHS).tobytes()
    assert loaded.explain(GRAPHS[:2]) == fitted.explain(GRAPHS[:2])


def test_the_code_form_differs_where_it_is_said_to():
    detector = RQGNN(form="code", epochs=2).fit(GRAPHS, labels=LABELS)
    assert detector.state()["switches"].tolist() == [0, 1, 0]
    recipe = rqgnn.published()
    assert not recipe.train_filters
    assert recipe.weighting == "class_balanced"
    assert np.isfinite(RQGNN().load(detector.state()).score(GRAPHS)).all()


def test_an_anomaly_is_explained(fitted):
    (why,) = fitted.explain(town(["scan"], seed=11))
    assert why.text.startswith("looks like labelled anomalies")
    assert "edges where about 11 are usual" in why.text
    assert why.entities[0] == "web-1"
    assert np.isclose(sum(why.variates.values()), 1)


@pytest.mark.parametrize(
    "graphs",
    [
        graphs_of([[]]),
        graphs_of([[("x-1", "x-1")]]),
        random_graphs(1, n_nodes=20_000, n_edges=100_000),
    ],
    ids=["empty", "a self loop of an unknown type", "100,000 edges"],
)
def test_any_graph_gets_a_finite_score(fitted, graphs):
    assert np.isfinite(fitted.score(graphs)).all()


def test_serving_loads_no_torch(fitted, tmp_path):
    (tmp_path / "state.safetensors").write_bytes(save(fitted.state()))
    script = (
        "import sys\n"
        "from safetensors.numpy import load_file\n"
        "from streamad.detectors.graphs.rqgnn import RQGNN\n"
        "from streamad.testing.graphs import town\n"
        f"d = RQGNN().load(load_file({str(tmp_path / 'state.safetensors')!r}))\n"
        "d.score(town(['scan'])); d.explain(town(['scan']))\n"
        "assert not {'torch', 'sklearn', 'torch_geometric'} & sys.modules.keys()\n"
    )
    ended = subprocess.run(
        [sys.executable, "-c", script], check=False, capture_output=True, text=True, cwd=ROOT
    )
    assert ended.returncode == 0, ended.stderr


def test_without_torch_fitting_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "streamad.training.rqgnn", None)
    with pytest.raises(ConfigError, match=r"pip install 'streamad-pipeline\[graphs\]'"):
        RQGNN().fit(GRAPHS, labels=LABELS)


def test_wrong_use_is_refused():
    with pytest.raises(TrainingError, match="got none"):
        RQGNN().fit(GRAPHS)
    with pytest.raises(TrainingError, match="3 labels of 160 graphs"):
        RQGNN().fit(GRAPHS, labels=LABELS[:3])
    with pytest.raises(TrainingError, match="0 anomalous"):
        RQGNN().fit(GRAPHS, labels=np.zeros(len(GRAPHS), np.bool_))
    with pytest.raises(NotFittedError):
        RQGNN().score(GRAPHS)
    with pytest.raises(ConfigError, match="form"):
        RQGNN(form="other")
    with pytest.raises(ConfigError, match="1 or more"):
        RQGNN(terms=0)


@pytest.mark.parametrize(
    ("name", "change", "told"),
    [
        ("mix", None, "lacks mix"),
        ("mix", lambda a: a[:-1], "expected finite floats"),
        ("table", lambda a: a[:, :-1], "expected finite floats"),
        ("head", lambda a: a * np.nan, "expected finite floats"),
        ("switches", lambda a: a[:2], "switches"),
        ("types", lambda a: a[:-4], "expected finite floats"),
    ],
)
def test_a_wrong_artifact_is_refused(fitted, name, change, told):
    state = dict(fitted.state())
    if change is None:
        del state[name]
    else:
        state[name] = change(state[name])
    with pytest.raises(ArtifactError, match=told):
        RQGNN().load(state)
