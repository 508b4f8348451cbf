"""THEMIS keeps the detector contract, its encoder equals torch, and nothing depends on batches."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from importlib.resources import files
from pathlib import Path

import numpy as np
import pytest

from streamad.detectors.embeddings import BATCHES, load_encoder, own_scale, to_patches
from streamad.detectors.similarity import ADAPTERS
from streamad.detectors.themis import Themis
from streamad.detectors.themis.against import AGAINST, unlike
from streamad.detectors.themis.search import LEAST, fused
from streamad.errors import ArtifactError, ConfigError, NotFittedError, WindowError

SIZE = 32
SHIPPED = Path(str(files("streamad.detectors") / "weights" / "themis"))


def series(n: int = 700, *, seed: int = 0, n_variates: int = 1) -> np.ndarray:
    rng = np.random.default_rng(seed)
    wave = np.sin(2 * np.pi * np.arange(n) / 16)[:, None]
    return (10 + 3 * wave + 0.2 * rng.standard_normal((n, n_variates))).astype(np.float32)


def cut(values: np.ndarray, *, size: int = SIZE, stride: int = 1) -> np.ndarray:
    windows = np.lib.stride_tricks.sliding_window_view(values, size, axis=0)[::stride]
    return np.ascontiguousarray(windows.transpose(0, 2, 1))


def walk(themis: Themis, windows: np.ndarray, *, batch: int, seeded: bool = True) -> np.ndarray:
    memory = themis.new_memory(windows.shape[2])
    memory.reserve(1)
    if seeded:
        themis.seed_memory(memory, slot=0, group=0)
    scores = []
    for start in range(0, len(windows), batch):
        part = windows[start : start + batch]
        slots = np.zeros(len(part), dtype=np.int32)
        scores.append(themis.score(part, memory=memory, slots=slots))
        themis.learn(memory, part, slots=slots, admit=np.ones(len(part), dtype=bool))
    return np.concatenate(scores)


@pytest.fixture(scope="module")
def fitted() -> Themis:
    return Themis(size=SIZE).fit(cut(series()))


def test_a_dent_in_a_wave_scores_highest_and_is_judged_where_it_is(fitted: Themis):
    values = series(400, seed=1)
    values[200:206] = 10.0
    scores = fitted.score(cut(values))
    judged = int(np.argmax(scores)) + SIZE - 1 - fitted.lag
    assert 195 <= judged <= 211
    assert scores.max() > 2 * np.median(scores)


def test_a_level_never_seen_is_strange_though_its_shape_is_known(fitted: Themis):
    usual = fitted.score(cut(series(100, seed=2)))
    shifted = fitted.score(cut(series(100, seed=2) + 9))
    assert shifted.min() > usual.max()


@pytest.mark.parametrize("seed", range(3))
def test_on_a_level_never_seen_changes_show_what_happens_there(seed: int):
    """By values alone all of these windows are equally far from the past."""
    themis = Themis(size=SIZE).fit(cut(series(900)))
    moved = series(400, seed=20 + seed) + 9
    noise = np.random.default_rng(seed).normal(0, 1.5, (16, 1))
    moved[200:216] += noise.astype(np.float32)
    scores = themis.score(cut(moved))
    judged = np.arange(len(scores)) + SIZE - 1 - themis.lag
    inside = (judged >= 196) & (judged < 220)
    outside = (judged < 160) | (judged >= 260)
    assert scores[inside].max() > 1.2 * scores[outside].max()


def test_two_views_are_fused_without_a_unit_and_neither_silences_the_other():
    apart = np.array([[1, 3, 0.5, 1.5], [2, 6, 1, 3], [4, 0, 0, 0], [0, 0, 0, 0]], np.float32)
    plain, doubled, of_values_alone, nothing = fused(apart)
    assert plain == pytest.approx(((4 + LEAST) ** 2 * (2 + LEAST)) ** (1 / 3) - LEAST, rel=1e-6)
    assert doubled == pytest.approx(2 * plain, rel=0.01)
    assert of_values_alone > 0.5
    assert nothing == pytest.approx(0, abs=1e-6)


def test_an_artifact_without_changes_is_refused_with_what_to_do(fitted: Themis):
    state = fitted.state()
    before = {name: array for name, array in state.items() if name != "step"}
    with pytest.raises(ArtifactError, match="fit it again"):
        Themis(size=SIZE).load(before)


def test_a_window_scores_the_same_bits_alone_in_any_batch_and_in_any_order(fitted: Themis):
    windows = cut(series(150, seed=3))
    together = fitted.score(windows)
    alone = np.concatenate([fitted.score(windows[i : i + 1]) for i in range(len(windows))])
    order = np.random.default_rng(0).permutation(len(windows))
    assert np.array_equal(together, alone)
    assert np.array_equal(fitted.score(windows[order]), together[order])
    assert len(windows) > max(BATCHES)


@pytest.mark.parametrize("seeded", [True, False])
def test_how_a_stream_is_cut_into_batches_changes_no_score(fitted: Themis, *, seeded: bool):
    windows = cut(series(560, seed=4))
    assert np.array_equal(
        walk(fitted, windows, batch=16, seeded=seeded),
        walk(fitted, windows, batch=1, seeded=seeded),
    )


def test_a_key_without_history_scores_0_until_its_warm_up_is_over():
    themis = Themis(size=SIZE)
    scores = walk(themis, cut(series(600, seed=5)), batch=16, seeded=False)
    assert not scores[: themis.info.warm_up].any()
    assert (scores[themis.info.warm_up :] > 0).all()


def test_what_was_learned_becomes_usual_and_what_was_not_admitted_does_not(fitted: Themis):
    windows = cut(series(600, seed=6) + 9)
    slots = np.zeros(16, dtype=np.int32)
    last = {}
    for admitted in (True, False):
        memory = fitted.new_memory(1)
        memory.reserve(1)
        fitted.seed_memory(memory, slot=0, group=0)
        for start in range(0, 544, 16):
            part = windows[start : start + 16]
            last[admitted] = fitted.score(part, memory=memory, slots=slots)
            fitted.learn(memory, part, slots=slots, admit=np.full(16, admitted))
    assert last[True].max() < 0.5 * last[False].min()


def test_scoring_learns_nothing_and_leaves_its_input_alone(fitted: Themis):
    windows = cut(series(80, seed=7))
    windows[3, 4:8] = np.nan
    kept, before = windows.copy(), fitted.score(windows)
    assert np.array_equal(fitted.score(windows), before)
    assert np.array_equal(windows, kept, equal_nan=True)
    assert np.isfinite(before).all()


def test_state_and_memory_come_back_with_the_same_scores(fitted: Themis):
    windows = cut(series(500, seed=8))
    again = Themis(size=SIZE).load(fitted.state())
    assert np.array_equal(again.score(windows), fitted.score(windows))
    memory, other = fitted.new_memory(1), fitted.new_memory(1)
    memory.reserve(1)
    fitted.seed_memory(memory, slot=0, group=0)
    slots = np.zeros(400, dtype=np.int32)
    fitted.learn(memory, windows[:400], slots=slots, admit=np.ones(400, dtype=bool))
    zero, three = np.array([0], dtype=np.int32), np.array([3], dtype=np.int32)
    other.load(three, memory.state(zero))
    part = windows[400:416]
    assert np.array_equal(
        fitted.score(part, memory=memory, slots=np.zeros(16, dtype=np.int32)),
        fitted.score(part, memory=other, slots=np.full(16, 3, dtype=np.int32)),
    )
    memory.forget(zero)
    assert all(not held.any() for held in memory.state(zero).values())


def test_each_variate_is_judged_alone_and_the_strangest_counts():
    themis = Themis(size=SIZE).fit(cut(series(n_variates=3)))
    values = series(120, seed=9, n_variates=3)
    values[60:66, 1] = 10.0
    windows = cut(values)
    scores, why = themis.score(windows), themis.explain(windows)
    top = int(np.argmax(scores))
    assert np.argmax(why.share[top]) == 1
    assert np.allclose(why.share.sum(axis=1), 1)
    assert np.array_equal(why.observed, windows[:, SIZE - 1 - themis.lag])
    assert abs(why.expected[top, 1] - series(120, seed=9, n_variates=3)[top + 15, 1]) < 4


@pytest.mark.parametrize("adapter", sorted(ADAPTERS))
def test_every_adapter_finds_the_patch_unlike_its_window(adapter: str):
    values = series(700, seed=10)
    values[400:416] = 13.0
    themis = Themis(size=256, adapter=adapter)
    windows = cut(values, size=256, stride=4)
    scores = themis.score(windows)
    judged = int(np.argmax(scores)) * 4 + 255 - themis.lag
    assert 380 <= judged <= 436
    assert themis.new_memory(1) is None
    assert np.array_equal(scores[:1], themis.score(windows[:1]))


@pytest.mark.parametrize("adapter", sorted(AGAINST))
def test_the_papers_adapters_judge_a_window_by_its_past(adapter: str):
    """A lasting change, which fills whole windows: within one window nothing is odd about it."""
    themis = Themis(size=64, adapter=adapter).fit(cut(series(900), size=64))
    usual = themis.score(cut(series(200, seed=2), size=64))
    rng = np.random.default_rng(3)
    odd = themis.score(cut(10 + 3 * rng.standard_normal((200, 1)).astype(np.float32), size=64))
    assert np.median(odd) > np.quantile(usual, 0.95)
    windows = cut(series(560, seed=4), size=64)
    assert np.array_equal(walk(themis, windows, batch=7), walk(themis, windows, batch=97))
    unfitted = walk(Themis(size=64, adapter=adapter), windows, batch=97, seeded=False)
    assert (unfitted[:255] == 0).all()
    assert unfitted[300:].max() > 0


@pytest.mark.parametrize("adapter", sorted(AGAINST))
@pytest.mark.parametrize("n_places", [0, 1, 2, 300])
def test_a_past_of_any_size_gives_finite_scores(adapter: str, n_places: int):
    rng = np.random.default_rng(0)
    past = rng.standard_normal((12, n_places)).astype(np.float32)
    queries = np.concatenate([rng.standard_normal((3, 12)), past.T[:2], np.zeros((1, 12))])
    columns = np.array([0, 4, 12])
    scores = unlike(queries.astype(np.float32), past, columns, adapter)
    assert scores.shape == (len(queries),)
    assert np.isfinite(scores).all()
    still = np.ones((12, 20), dtype=np.float32)
    assert np.isfinite(unlike(still[:, :2].T.copy(), still, columns, adapter)).all()


def test_the_residual_is_what_projecting_on_the_leading_eigenvectors_leaves():
    rng = np.random.default_rng(1)
    rows, asked = rng.standard_normal((40, 6)), 2 * rng.standard_normal((9, 6))
    centre = rows.mean(axis=0)
    unit = (rows - centre) / np.linalg.norm(rows - centre, axis=1, keepdims=True)
    _, vectors = np.linalg.eigh(np.abs(unit @ unit.T))
    own = (asked - centre) / np.linalg.norm(asked - centre, axis=1, keepdims=True)
    alike = np.abs(own @ unit.T)
    left = alike - alike @ vectors[:, -2:] @ vectors[:, -2:].T
    expected = np.sqrt(((left**2).sum(axis=1) + 1) / ((alike**2).sum(axis=1) + 1))
    made = unlike(
        asked.astype(np.float32), rows.T.astype(np.float32), np.array([0, 6]),
        "memory_spectral_residual",
    )  # fmt: skip
    np.testing.assert_allclose(made, expected, rtol=1e-4)


def test_outside_the_past_lof_is_scikit_learns():
    from sklearn.neighbors import LocalOutlierFactor

    rng = np.random.default_rng(2)
    rows, asked = rng.standard_normal((120, 6)), rng.standard_normal((50, 6)) * 2
    lof = LocalOutlierFactor(n_neighbors=5, novelty=True).fit(rows)
    made = unlike(
        asked.astype(np.float32), rows.T.astype(np.float32), np.array([0, 6]), "memory_lof"
    )
    np.testing.assert_allclose(made, -lof.score_samples(asked), rtol=1e-4)


@pytest.mark.parametrize("value", [0.0, 5.0, -1e30, 1e30])
def test_constant_windows_give_finite_scores(fitted: Themis, value: float):
    windows = np.full((3, SIZE, 1), value, dtype=np.float32)
    assert np.isfinite(fitted.score(windows)).all()
    assert np.isfinite(Themis(size=SIZE).fit(windows).score(windows)).all()
    for adapter in (*ADAPTERS, *AGAINST):
        assert np.isfinite(Themis(size=SIZE, adapter=adapter).fit(windows).score(windows)).all()


def test_wrong_input_is_refused_with_what_to_do(fitted: Themis):
    windows = cut(series(50))
    with pytest.raises(NotFittedError, match="call fit"):
        Themis(size=SIZE).score(windows)
    with pytest.raises(WindowError, match="32 samples"):
        fitted.score(windows[:, :20])
    with pytest.raises(WindowError, match="variates of fit"):
        fitted.score(np.repeat(windows, 2, axis=2))
    with pytest.raises(ConfigError, match="adapter must be"):
        Themis(adapter="lofty")
    with pytest.raises(ArtifactError, match=r"windows\.size"):
        Themis(size=64).load(fitted.state())
    missing = windows.copy()
    missing[0, :16] = np.nan
    with pytest.raises(WindowError, match="missing"):
        fitted.score(missing)


def test_no_windows_give_no_scores(fitted: Themis):
    assert fitted.score(np.zeros((0, SIZE, 1), dtype=np.float32)).shape == (0,)


def test_windows_longer_than_the_context_are_averaged_down():
    themis = Themis(size=600).fit(cut(series(1400), size=600, stride=4))
    assert np.isfinite(themis.score(cut(series(700), size=600, stride=10))).all()


def test_patches_end_at_the_newest_sample_and_mask_what_is_missing():
    row = np.arange(20, dtype=np.float32)[None]
    row[0, 19] = np.nan
    patches = to_patches(row / 10, patch_size=16)
    assert patches.shape == (1, 2, 32)
    assert patches[0, 0, 16:].sum() == 4
    assert patches[0, 1, 31] == 0
    assert patches[0, 1, 15] == 0


def test_own_scale_ignores_missing_samples_and_flat_rows():
    rows = np.array([[1, np.nan, 3], [2, 2, 2]], dtype=np.float32)
    assert np.allclose(own_scale(rows), [[-1, np.nan, 1], [0, 0, 0]], equal_nan=True)


def test_scoring_never_imports_torch():
    code = (
        "import sys, numpy as np; from streamad.detectors.themis import Themis; "
        "w = np.random.default_rng(0).random((40, 32, 1), dtype=np.float32); "
        "Themis(size=32).fit(w).score(w); assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_the_shipped_files_are_small_and_safe_to_load():
    names = {path.name for path in SHIPPED.iterdir()}
    assert {
        "config.json",
        "model.safetensors",
        "model.onnx",
        "features.onnx",
        "MODEL_CARD.md",
    } <= names
    assert sum(path.stat().st_size for path in SHIPPED.iterdir()) <= 8_000_000
    assert not [name for name in names if name.endswith((".pt", ".bin", ".pkl", ".pth"))]


def test_the_exports_equal_torch_and_the_chronos_pipeline():
    torch = pytest.importorskip("torch", exc_type=ModuleNotFoundError)
    pytest.importorskip("chronos", exc_type=ModuleNotFoundError)
    from chronos import BaseChronosPipeline
    from safetensors.torch import load_file

    from streamad.networks.bolt_encoder import BoltEncoder, BoltFeatures

    pipeline = BaseChronosPipeline.from_pretrained(
        str(SHIPPED), device_map="cpu", dtype=torch.float32
    )
    context = series(96 * 5, seed=11).reshape(5, 96)
    context[0, :40] = np.nan
    context[1, 50:55] = np.nan
    scaled = own_scale(context)
    by_pipeline = pipeline.embed(torch.from_numpy(context))[0].numpy()
    served = load_encoder("shipped", "model.onnx").embed(scaled)
    assert np.abs(served - by_pipeline).max() < 1e-5
    patches = torch.from_numpy(to_patches(scaled, patch_size=16))
    whitening = load_file(SHIPPED / "whitening.safetensors")
    with torch.inference_mode():
        whole = BoltEncoder(pipeline.model).eval()(patches).numpy()
        short = BoltFeatures(pipeline.model, n_blocks=1, **whitening).eval()(patches).numpy()
    assert np.abs(served - whole).max() < 1e-5
    assert np.abs(load_encoder("shipped").embed(scaled) - short).max() < 1e-5


def test_a_chronos_directory_of_the_users_own_is_served_through_torch(tmp_path: Path):
    pytest.importorskip("torch", exc_type=ModuleNotFoundError)
    pytest.importorskip("chronos", exc_type=ModuleNotFoundError)
    for name in ("config.json", "model.safetensors"):
        (tmp_path / name).write_bytes((SHIPPED / name).read_bytes())
    themis = Themis(size=SIZE, model=str(tmp_path)).fit(cut(series(300)))
    windows = cut(series(100, seed=12))
    scores = themis.score(windows)
    assert np.isfinite(scores).all()
    assert np.array_equal(themis.score(windows[5:6]), scores[5:6])


def make_t5(folder: Path) -> None:
    from transformers import T5Config, T5ForConditionalGeneration

    settings = {
        "tokenizer_class": "MeanScaleUniformBins",
        "tokenizer_kwargs": {"low_limit": -15.0, "high_limit": 15.0},
        "n_tokens": 64, "n_special_tokens": 2, "pad_token_id": 0, "eos_token_id": 1,
        "use_eos_token": True, "model_type": "seq2seq", "context_length": 512,
        "prediction_length": 8, "num_samples": 1, "temperature": 1.0, "top_k": 50, "top_p": 1.0,
    }  # fmt: skip
    config = T5Config(
        vocab_size=64, d_model=16, d_kv=8, d_ff=32, num_layers=1, num_heads=2,
        decoder_start_token_id=0, architectures=["T5ForConditionalGeneration"],
    )  # fmt: skip
    config.chronos_config = settings
    T5ForConditionalGeneration(config).save_pretrained(folder)


def make_chronos_2(folder: Path) -> None:
    from chronos.chronos2 import Chronos2Model
    from chronos.chronos2.config import Chronos2CoreConfig

    settings = {
        "context_length": 256, "output_patch_size": 16, "input_patch_size": 16,
        "input_patch_stride": 16, "quantiles": [0.1, 0.5, 0.9], "use_reg_token": True,
        "use_arcsinh": True,
    }  # fmt: skip
    config = Chronos2CoreConfig(
        d_model=16, d_kv=8, d_ff=32, num_layers=1, num_heads=2, architectures=["Chronos2Model"]
    )
    config.chronos_config = settings
    config.chronos_pipeline_class = "Chronos2Pipeline"
    Chronos2Model(config).save_pretrained(folder)


@pytest.mark.parametrize("make", [make_t5, make_chronos_2])
def test_models_that_normalise_windows_themselves_keep_level_and_size_all_the_same(
    make: Callable[[Path], None], tmp_path: Path
):
    torch = pytest.importorskip("torch", exc_type=ModuleNotFoundError)
    pytest.importorskip("chronos", exc_type=ModuleNotFoundError)
    torch.manual_seed(0)
    make(tmp_path)
    themis = Themis(size=SIZE, model=str(tmp_path)).fit(cut(series(300), stride=4))
    windows = cut(series(100, seed=12), stride=8)
    scores = themis.score(windows)
    assert np.array_equal(themis.score(windows[5:6]), scores[5:6])
    assert themis.score(cut(series(100, seed=2) + 9, stride=8)).min() > scores.max()
    assert themis.score(cut(10 + (series(100, seed=2) - 10) * 8, stride=8)).min() > scores.max()


def test_a_missing_extra_answers_with_the_line_to_type(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "torch", None)
    monkeypatch.delitem(sys.modules, "chronos", raising=False)
    with pytest.raises(ImportError, match=r"pip install 'streamad-pipeline\[train\]'"):
        Themis(model="amazon/chronos-bolt-small")


def test_the_exports_name_no_directory_of_the_machine_they_were_made_on():
    for name in ("features.onnx", "model.onnx"):
        assert b".py" not in (SHIPPED / name).read_bytes()
