"""HypAD: its geometry by closed forms, its kernels against torch, certainty beside scores."""

import math
import subprocess
import sys
from dataclasses import replace

import numpy as np
import polars as pl
import pytest
import torch

from connectors.records import scores_log
from connectors.records.scores_log import ScoresOrigin
from jobs.offline.score import pipeline_for, score_table
from jobs.offline.tables import read_table
from streamad.alerts.operator import AlertOperator
from streamad.config import PipelineConfig
from streamad.detectors.hypad import HypAD
from streamad.detectors.hypad.detector import sureness
from streamad.detectors.hypad.network import NAMES, Network
from streamad.errors import ArtifactError, ConfigError, NotFittedError, TrainingError
from streamad.networks.hypad import (
    LARGEST_NORM,
    HypADNetwork,
    distance,
    exp_at_origin,
    moebius_add,
    project,
)
from streamad.records import Explanation, ScoreBatch
from streamad.training.hypad import critic_loss, export, fit_arrays, gradient_penalty
from tests.unit.paging.findings import finding

QUICK = {"steps": 24, "critic_passes": 1}


def point(*values):
    return torch.tensor(values, dtype=torch.float64)


def test_the_geometry_equals_the_closed_forms():
    u, v = point(0.1, 0.2), point(-0.3, 0.4)
    assert distance(u, v).item() == pytest.approx(1.0154342565, abs=1e-9)
    assert moebius_add(u, v).tolist() == pytest.approx([-0.1348314607, 0.5842696629], abs=1e-9)
    mapped = exp_at_origin(point(1, -2))
    assert mapped.tolist() == pytest.approx([0.4371120402, -0.8742240803], abs=1e-9)
    assert mapped.norm().item() == pytest.approx(0.9774122356, abs=1e-9)
    assert project(point(3, 4)).norm().item() == pytest.approx(LARGEST_NORM)
    assert distance(u, u).item() < 1e-5
    assert distance(v, u).item() == pytest.approx(distance(u, v).item())


def test_the_distance_has_a_slope_where_points_coincide():
    here = point(0.3, 0.1).requires_grad_()
    distance(here, here.detach()).backward()
    assert torch.isfinite(here.grad).all()


@pytest.mark.parametrize(("size", "n_variates"), [(30, 1), (21, 3)])
def test_what_serves_equals_torch(size, n_variates):
    torch.manual_seed(3)
    net = HypADNetwork(size, n_variates, patch=8, latent=5, encoder=6, decoder=7).eval()
    with torch.no_grad():
        net.to_ball.weight.mul_(500)
        windows = torch.rand(6, size, n_variates) * 2 - 1
        usual = net.decoded(net.latents(windows))
        here, there = net.points(windows), net.points(usual)
        critic = net.of_windows(windows.reshape(6, -1))[:, 0]
    served = Network(export(net), size=size, n_variates=n_variates)
    read = served.read(windows.numpy(), judged=size // 2)
    np.testing.assert_allclose(read.usual, usual, atol=1e-5)
    np.testing.assert_allclose(read.apart, distance(there, here), rtol=1e-4)
    np.testing.assert_allclose(read.certainty, there.norm(dim=2), rtol=1e-4)
    np.testing.assert_allclose(read.critic, critic, atol=1e-5)
    assert np.ptp(read.certainty) > 0
    one = served.read(windows.numpy()[2:3], judged=size // 2)
    assert all((getattr(one, name) == getattr(read, name)[2]).all() for name in read._fields)


def test_the_penalty_is_of_each_sample():
    torch.manual_seed(0)
    linear = torch.nn.Linear(2, 1, bias=False)
    with torch.no_grad():
        linear.weight.copy_(torch.tensor([[3.0, 0.0]]))
    # The slope is 3 for each; of a batch taken as one vector it would be 3 times the root of 50.
    penalty = gradient_penalty(linear, torch.rand(50, 2), torch.rand(50, 2))
    assert penalty.item() == pytest.approx(4.0)


def test_critics_are_trained_without_the_encoder():
    torch.manual_seed(0)
    net = HypADNetwork(16, 1, patch=8)
    critic_loss(net, torch.rand(8, 16, 1)).backward()
    assert all(p.grad is None for p in net.encode.parameters())
    assert all(p.grad is not None for p in net.of_windows.parameters())


def test_equal_seeds_train_equal_networks_and_leave_torchs_dice_alone():
    windows = np.random.default_rng(0).uniform(-1, 1, (40, 16, 1)).astype(np.float32)
    torch.manual_seed(5)
    first = fit_arrays(windows, seed=1, steps=3, critic_passes=1)
    drawn = torch.rand(1).item()
    again = fit_arrays(windows, seed=1, steps=3, critic_passes=1)
    other = fit_arrays(windows, seed=2, steps=3, critic_passes=1)
    torch.manual_seed(5)
    assert torch.rand(1).item() == drawn
    assert all((first[name] == again[name]).all() for name in NAMES)
    assert any((first[name] != other[name]).any() for name in NAMES)


def test_too_few_windows_and_odd_settings_are_refused():
    with pytest.raises(TrainingError, match="at least 16 windows, got 5"):
        fit_arrays(np.zeros((5, 16, 1), np.float32), seed=0)
    with pytest.raises(ConfigError, match="combination must be one of certain, plain, paper"):
        HypAD(combination="sum")
    with pytest.raises(ConfigError, match="1 or more"):
        HypAD(steps=0)
    with pytest.raises(NotFittedError):
        HypAD(size=16).score(np.zeros((1, 16, 1), np.float32))


@pytest.fixture(scope="module")
def waves(tmp_path_factory):
    """A file of a wave of 32 rows, with one broken period near its end."""
    rng = np.random.default_rng(0)
    x = np.sin(np.arange(900) * 2 * np.pi / 32) + rng.normal(0, 0.05, 900)
    x[800:816] = 0.3
    path = tmp_path_factory.mktemp("hypad") / "waves.csv"
    lines = [f"{1_700_000_000 + 60 * i},{value:.5f}" for i, value in enumerate(x)]
    path.write_text("\n".join(["time,value", *lines]) + "\n")
    return path


@pytest.fixture(scope="module")
def scored(waves):
    table = read_table(waves)
    config = pipeline_for(table, detector="hypad", size=32, params={"steps": 120})
    return score_table(table, config, train_end=600)


def test_a_broken_wave_ranks_first_and_every_score_has_its_certainty(scored):
    frame = scored.frame
    worst = int(frame["score"][600:].arg_max()) + 600
    assert 790 <= worst <= 826
    judged = frame["certainty"].drop_nulls()
    assert len(judged) > 250
    assert judged.is_between(0, 1).all()


def test_artifacts_of_another_shape_are_refused():
    windows = np.random.default_rng(0).uniform(-1, 1, (60, 16, 1)).astype(np.float32)
    state = HypAD(size=16, **QUICK).fit(windows).state()
    for name, array in (("out", state["out"][:3]), ("ball", np.zeros((9, 9), np.float32))):
        with pytest.raises(ArtifactError, match=f"array {name} has the shape"):
            HypAD(size=16).load({**state, name: array})
    with pytest.raises(ArtifactError, match="bounds"):
        HypAD(size=16).load({**state, "bounds": np.zeros((2, 2), np.float32)})


def test_beyond_what_the_network_sees_farther_is_still_stranger():
    rng = np.random.default_rng(0)
    windows = rng.uniform(-1, 1, (60, 16, 1)).astype(np.float32)
    fitted = HypAD(size=16, **QUICK).fit(windows)
    far = np.repeat(windows[:1], 4, axis=0)
    far[:, 8, 0] = [6, 20, 200, 1e30]
    scores = fitted.score(far)
    assert (np.diff(scores) > 0).all()
    assert np.isfinite(scores).all()


def test_an_artifact_scores_without_torch(tmp_path):
    windows = np.random.default_rng(0).uniform(-1, 1, (60, 16, 1)).astype(np.float32)
    fitted = HypAD(size=16, **QUICK).fit(windows)
    np.savez(tmp_path / "state.npz", **fitted.state())
    np.save(tmp_path / "windows.npy", windows)
    code = (
        "import sys, numpy as np; from streamad.detectors.hypad import HypAD; "
        "state = dict(np.load('state.npz')); "
        "print(float(HypAD(size=16).load(state).score(np.load('windows.npy')).sum())); "
        "assert 'torch' not in sys.modules"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, check=True, capture_output=True, text=True
    )
    assert float(done.stdout) == float(fitted.score(windows).sum())


def test_certainty_is_said_in_words():
    assert sureness(0.99) == "the model was sure of what it expected"
    assert "did not know" in sureness(0.1)


def test_the_scores_log_keeps_certainty_and_reads_logs_without_it():
    n = 3
    numbers = {name: np.arange(n, dtype=np.float32) for name in (
        "score", "p_value", "level", "newest", "newest_p", "newest_level", "severity")}  # fmt: skip
    batch = ScoreBatch(
        keys=pl.Series(["a", "b", "c"]), end_ms=np.arange(n), ordinal=np.arange(n),
        flags=np.zeros(n, np.uint8), certainty=np.array([0.1, 0.5, math.nan], np.float32),
        **numbers,
    )  # fmt: skip
    origin = ScoresOrigin(
        pipeline="p", detector="hypad", artifact="", topic="t", partition=0,
        first_offset=0, next_offset=3,
    )  # fmt: skip
    (message,) = scores_log.encode(batch, origin)
    _, back = scores_log.decode(message)
    np.testing.assert_array_equal(back.certainty, batch.certainty)


def test_an_alert_and_its_record_have_the_note():
    made = finding("web", 1_700_049_600_000)
    why = Explanation(
        observed={"v": 9.0}, expected={"v": 1.0}, variates={"v": 1.0}, time_ms=made.until_ms,
        note=sureness(0.99),
    )  # fmt: skip
    made = replace(made, explanation=why)
    operator = AlertOperator(PipelineConfig(name="hosts"))
    (alert,) = operator.process(operator.new_state(), [(made, made.window_end_ms)])
    assert "expected about 1" in alert.summary
    assert "; the model was sure of what it expected; severity" in alert.summary
