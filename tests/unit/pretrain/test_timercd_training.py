"""TimeRCD in training: losses, checkpoints, the exported graph, the authors' checkpoints."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import onnxruntime
import pytest

torch = pytest.importorskip("torch", exc_type=ModuleNotFoundError)
pytest.importorskip("onnx", exc_type=ModuleNotFoundError)

from streamad.errors import ArtifactError, ConfigError  # noqa: E402
from streamad.networks.timercd import (  # noqa: E402
    TimeRCD,
    TimeRCDConfig,
    classification_loss,
    paper,
)
from streamad.training.corpus import TELEMETRY, BatchPlan, make_batch  # noqa: E402
from streamad.training.timercd.checkpoint import CHECKPOINT  # noqa: E402
from streamad.training.timercd.export import (  # noqa: E402
    averaged_with,
    network_of,
    save_network,
)
from streamad.training.timercd.official import load_official  # noqa: E402
from streamad.training.timercd.recipe import (  # noqa: E402
    Recipe,
    event_weights,
    losses,
    start_run,
    to_tensors,
)
from streamad.training.timercd.train import Pace, network_config, pretrain  # noqa: E402

TINY = TimeRCDConfig(d_model=32, n_layers=2, n_heads=2, d_ff=48, d_step=16, d_reconstruct=24)
PLAN = BatchPlan(samples=2_048, length=256, corpus=TELEMETRY)
GIVEN = np.random.default_rng(0)


def given(n: int, n_variates: int, n_patches: int, patch: int = 16):
    patches = torch.from_numpy(
        GIVEN.standard_normal((n, n_variates, n_patches, patch)).astype(np.float32)
    )
    return patches, torch.ones(n, n_variates, n_patches)


def settled(config: TimeRCDConfig, seed: int = 0) -> TimeRCD:
    """A network whose outputs are far from the zeros of a fresh one."""
    torch.manual_seed(seed)
    network = TimeRCD(config).eval()
    with torch.no_grad():
        for weight in network.parameters():
            weight.add_(0.1 * torch.randn_like(weight))
    return network


def test_the_sizes_are_the_published_ones():
    assert sum(p.numel() for p in TimeRCD(paper(multivariate=False)).parameters()) == 37_056_387
    assert 0.9e6 < sum(p.numel() for p in TimeRCD(TimeRCDConfig()).parameters()) < 1.0e6


@torch.inference_mode()
def test_padding_and_the_order_of_variates_change_no_score():
    network = settled(TINY)
    patches, seen = given(2, 3, 8)
    alone = network.logits(network(patches, seen))
    padded = torch.cat([patches, 9.0 * torch.ones(2, 3, 4, 16)], dim=2)
    held = torch.cat([seen, torch.zeros(2, 3, 4)], dim=2)
    assert torch.allclose(network.logits(network(padded, held))[:, :, :8], alone, atol=1e-5)
    turned = [2, 0, 1]
    swapped = network.logits(network(patches[:, turned], seen))
    assert torch.allclose(swapped, alone[:, turned], atol=1e-5)
    published = settled(replace(TINY, positions="sequence"))
    one = published.logits(published(patches, seen))
    assert not torch.allclose(
        published.logits(published(patches[:, turned], seen)), one[:, turned], atol=1e-3
    )


@torch.inference_mode()
def test_hidden_samples_are_not_seen_and_other_variates_are():
    network = settled(TINY)
    patches, seen = given(1, 2, 6)
    hidden = torch.zeros(1, 2, 6)
    hidden[:, :, 3] = 1.0
    changed = patches.clone()
    changed[:, :, 3] += 5.0
    assert torch.equal(network(patches, seen, hidden), network(changed, seen, hidden))
    other = patches.clone()
    other[:, 1, 0] += 5.0
    assert not torch.allclose(network(patches, seen)[:, 0], network(other, seen)[:, 0], atol=1e-3)


def test_padding_counts_in_no_loss():
    logits = torch.randn(2, 3, 32)
    labels = (torch.rand(2, 3, 32) > 0.5).float()
    present = torch.ones(2, 32)
    present[:, 20:] = 0.0
    wrong = logits.clone()
    wrong[:, :, 20:] += 50.0
    for combine in ("max", "mean"):
        one, other = (
            classification_loss(x, labels, present, combine=combine) for x in (logits, wrong)
        )
        assert torch.equal(one, other)
        every = classification_loss(wrong, labels, torch.ones(2, 32), combine=combine)
        assert every > other + 1.0


@pytest.mark.parametrize(
    "config",
    [
        TINY,
        replace(TINY, variate_bias=False, patch=8),
        replace(TINY, rope="whole", positions="sequence", combine="mean", learned_mask=False),
    ],
    ids=["ours", "univariate", "published"],
)
def test_the_graph_equals_the_network(config: TimeRCDConfig, tmp_path: Path):
    network = settled(config)
    with torch.no_grad():
        for weight in network.parameters():
            weight.copy_(weight.half().float())
    save_network(network, tmp_path, facts={})
    score, explain = (
        onnxruntime.InferenceSession(str(tmp_path / name))
        for name in ("model.onnx", "expected.onnx")
    )
    for n, n_variates, n_patches in ((3, 1, 9), (2, 4, 5), (1, 1, 1)):
        patches, seen = given(n, n_variates, n_patches, config.patch)
        seen[0, :, 0] = 1.0 if n_patches == 1 else 0.0
        hidden = torch.zeros(n, n_variates, n_patches)
        with torch.inference_mode():
            log_odds = network.logits(network(patches, seen)).numpy()
        named = {"patches": patches.numpy(), "seen": seen.numpy()}
        assert np.abs(score.run(None, named)[0] - log_odds).max() < 2e-4
        if config.learned_mask:
            hidden[:, :, -1] = 1.0
        with torch.inference_mode():
            steps = network(patches, seen, hidden if config.learned_mask else None)
            expected = network.reconstruction_head(steps).squeeze(-1).numpy()
        made = explain.run(None, {**named, "hidden": hidden.numpy()})[0]
        assert np.abs(made - expected).max() < 2e-4


def test_training_learns_and_a_resumed_run_equals_an_unbroken_one(tmp_path: Path):
    recipe = Recipe(steps=24, warm_up=2, rate=3e-3)
    pace = Pace(validate_every=10_000)
    whole = pretrain(tmp_path / "whole", config=TINY, recipe=recipe, plan=PLAN, pace=pace)

    class Stop(Exception):  # noqa: N818
        pass

    def interrupt(run, _loss):
        if run.step == 9:
            raise Stop

    broken = {"config": TINY, "recipe": recipe, "plan": PLAN, "pace": pace}
    with pytest.raises(Stop):
        pretrain(tmp_path / "broken", **broken, on_step=interrupt)
    resumed = pretrain(tmp_path / "broken", **broken)
    assert resumed.step == whole.step == 24
    one, other = (
        torch.cat([p.flatten() for p in run.averaged.parameters()]) for run in (whole, resumed)
    )
    assert torch.allclose(one, other, atol=1e-5)

    fresh = start_run(TINY, recipe)
    batch = to_tensors(make_batch(PLAN, 10**6), patch=16, device="cpu")
    with torch.inference_mode():
        before, after = (
            losses(net, batch, masked=0.15, generator=torch.Generator().manual_seed(0))[0]
            for net in (fresh.network, whole.network)
        )
    assert after < 0.8 * before

    with pytest.raises(ArtifactError, match=r"network\.d_ff.*48, 32"):
        pretrain(
            tmp_path / "whole", config=replace(TINY, d_ff=32), recipe=recipe, plan=PLAN, pace=pace
        )
    network, facts = network_of(tmp_path / "whole" / CHECKPOINT)
    assert facts["steps"] == 24
    assert network.config == TINY


def test_a_file_that_is_no_checkpoint_is_refused(tmp_path: Path):
    strange = tmp_path / CHECKPOINT
    strange.write_bytes(b"no tensors here")
    with pytest.raises(ArtifactError, match="checkpoint"):
        network_of(strange)
    with pytest.raises(ConfigError, match="small"):
        network_config("huge")
    with pytest.raises(ConfigError, match="device"):
        pretrain(
            tmp_path / "x", config=TINY, recipe=Recipe(), plan=PLAN, pace=Pace(device="cuda:99")
        )


def test_a_training_begins_with_given_weights(tmp_path: Path):
    network = settled(TINY)
    save_network(network, tmp_path / "kept", facts={})
    run = pretrain(
        tmp_path / "more",
        config=TINY,
        recipe=Recipe(steps=1, rate=0.0, start=tmp_path / "kept"),
        plan=PLAN,
        pace=Pace(validate_every=10_000),
    )
    for name, value in network.state_dict().items():
        # Kept in half precision.
        assert torch.equal(run.network.state_dict()[name], value.half().float()), name
        assert torch.allclose(run.averaged.state_dict()[name], value, atol=2e-3), name
    for begin, config, match in (
        (tmp_path / "absent", TINY, "no weights at"),
        (tmp_path / "kept", replace(TINY, d_ff=32), "another size"),
    ):
        recipe = Recipe(start=begin)
        with pytest.raises(ArtifactError, match=match):
            pretrain(tmp_path / "x", config=config, recipe=recipe, plan=PLAN, pace=Pace())
    (tmp_path / "kept" / "model.safetensors").write_bytes(b"no tensors here")
    with pytest.raises(ArtifactError, match="no safetensors file"):
        pretrain(
            tmp_path / "x",
            config=TINY,
            recipe=Recipe(start=tmp_path / "kept"),
            plan=PLAN,
            pace=Pace(),
        )


def test_the_mean_of_two_trainings_is_written(tmp_path: Path):
    one, other = tmp_path / "one", tmp_path / "other"
    for seed, out in ((0, one), (1, other)):
        recipe = Recipe(steps=2, seed=seed)
        pretrain(out, config=TINY, recipe=recipe, plan=PLAN, pace=Pace(validate_every=10_000))
    network, facts = network_of(one / CHECKPOINT)
    second, told = network_of(other / CHECKPOINT)
    save_network(second, other, facts=told)
    mean, both = averaged_with(network, facts, other)
    for made, a, b in zip(
        mean.parameters(), network.parameters(), second.parameters(), strict=True
    ):
        assert torch.allclose(made, (a + b) / 2, atol=2e-3)
    assert [both["recipe"]["seed"], both["averaged_with"]["recipe"]["seed"]] == [0, 1]
    with pytest.raises(ArtifactError, match="no weights at"):
        averaged_with(network, facts, tmp_path / "nowhere")
    save_network(TimeRCD(replace(TINY, d_ff=32)), tmp_path / "larger", facts={})
    with pytest.raises(ArtifactError, match="another size"):
        averaged_with(network, facts, tmp_path / "larger")


def test_a_brief_event_counts_as_a_longer_one_in_the_loss():
    labels = np.zeros((2, 64, 1), dtype=bool)
    labels[0, 10] = True
    labels[1, 10:26] = True
    missed = torch.full((2, 1, 64), -6.0)
    truth = torch.from_numpy(labels).permute(0, 2, 1).float()
    each = []
    for brief in (1, 16):
        weight = torch.from_numpy(event_weights(labels, brief)).permute(0, 2, 1)
        each.append(
            [
                float(
                    classification_loss(
                        missed[i : i + 1],
                        truth[i : i + 1],
                        torch.ones(1, 64),
                        combine=combine,
                        weight=weight[i : i + 1],
                    )
                )
                for i in range(2)
                for combine in ("max", "mean")
            ]
        )
    plain, even = np.array(each).reshape(2, 2, 2)
    assert (plain[1] > 10 * plain[0]).all()
    np.testing.assert_allclose(even[0], even[1], rtol=0.02)
    np.testing.assert_allclose(even[1], plain[1])


def official_layout(network: TimeRCD) -> dict[str, torch.Tensor]:
    """The state dictionary of the authors' code for the same weights."""
    out = {}
    for name, value in network.state_dict().items():
        inside = name.startswith(("embedding_layer", "projection_layer"))
        theirs = f"ts_encoder.{name}" if inside else name
        if name.startswith("layers."):
            theirs = f"ts_encoder.transformer_encoder.{name}"
        out[f"module.{theirs}"] = value
    out["module.ts_encoder.rope_embedder.inv_freq"] = torch.ones(4)
    return out


@pytest.mark.parametrize("multivariate", [False, True])
def test_an_official_checkpoint_loads_by_its_layout(tmp_path: Path, *, multivariate: bool):
    config = replace(
        paper(multivariate=multivariate),
        d_model=64, n_layers=2, d_ff=96, d_step=12, d_reconstruct=20,
    )  # fmt: skip
    network = settled(config)
    path = tmp_path / "pretrain_checkpoint_best.pth"
    torch.save({"epoch": 3, "model_state_dict": official_layout(network)}, path)
    loaded = load_official(path)
    assert loaded.config == config
    patches, seen = given(2, 3 if multivariate else 1, 4)
    with torch.inference_mode():
        assert torch.equal(
            loaded.logits(loaded(patches, seen)), network.logits(network(patches, seen))
        )


def test_a_checkpoint_with_code_or_strange_weights_is_refused(tmp_path: Path):
    path = tmp_path / "evil.pth"
    torch.save({"model_state_dict": SimpleNamespace(a=1)}, path)
    with pytest.raises(ArtifactError, match="more than weights"):
        load_official(path)
    torch.save({"fc.weight": torch.ones(2, 2)}, path)
    with pytest.raises(ArtifactError, match=r"fc\.weight"):
        load_official(path)
    with pytest.raises(ArtifactError, match="no checkpoint at"):
        load_official(tmp_path / "absent.pth")
    weights = official_layout(settled(replace(paper(multivariate=False), d_model=64, n_layers=1)))
    del weights["module.ts_encoder.projection_layer.weight"]
    torch.save(weights, path)
    with pytest.raises(ArtifactError, match="projection_layer"):
        load_official(path)
