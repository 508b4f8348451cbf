"""The detector timercd: what a window is shown as, what is served, what is refused."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from streamad.detectors.timercd import TimeRcd
from streamad.detectors.timercd.model import directory_of, load_rcd, normalised
from streamad.errors import ArtifactError, ConfigError, WindowError

SHIPPED = Path(directory_of("shipped"))


def waves(n: int, size: int, *, n_variates: int = 1, seed: int = 0):
    rng = np.random.default_rng(seed)
    t = np.arange(n + size)[:, None] + 9 * np.arange(n_variates)
    series = (np.sin(2 * np.pi * t / 40) + 0.1 * rng.standard_normal(t.shape)).astype(np.float32)
    rolling = np.lib.stride_tricks.sliding_window_view(series, size, axis=0)[:n]
    return np.ascontiguousarray(rolling.transpose(0, 2, 1))


def test_a_window_is_cut_from_its_newest_sample_and_scaled_by_itself():
    window = np.arange(70, dtype=np.float32)[None, :, None] * 2 + 5
    window[0, 30:50] = np.nan
    given = normalised(window, patch=16)
    assert given.patches.shape == (1, 1, 4, 16)
    line = given.patches.ravel()
    # Missing samples lie on the line of their neighbours; the oldest six are not looked at.
    assert np.allclose(np.diff(line), np.diff(line)[0], atol=1e-4)
    kept = window[0, 6:, 0]
    assert np.isclose(given.loc[0, 0], np.nanmean(kept))
    assert np.isclose(given.scale[0, 0], np.nanstd(kept))
    assert given.seen.tolist() == [[[1, 1, 1, 1]]]
    window[0, 22:54] = np.nan
    assert normalised(window, patch=16).seen.tolist() == [[[1, 0, 0, 1]]]
    flat = np.full((1, 64, 1), 3e8, dtype=np.float32)
    assert not normalised(flat, patch=16).patches.any()


def test_level_and_unit_of_a_series_change_no_score():
    detector = TimeRcd(size=128)
    windows = waves(12, 128)
    windows[4, -20] += 3
    one, other = detector.score(windows), detector.score(windows * np.float32(512) + 1024)
    assert np.allclose(one, other, atol=2e-2 * one.max())
    assert one.argmax() in range(4, 12)


def test_scores_of_all_samples_hold_the_score_of_the_judged_one():
    for size, lag in ((128, 16), (135, 0), (256, 40)):
        detector = TimeRcd(size=size, lag=lag)
        windows = waves(9, size)
        every = detector.score_samples(windows)
        assert every.shape == (9, size)
        assert np.array_equal(every[:, size - 1 - lag], detector.score(windows))
        assert not every[:, : size % 16].any()


def test_an_explanation_names_the_event_and_fills_in_what_was_due():
    detector = TimeRcd(size=512)
    windows = waves(3, 512, n_variates=2)
    clean = windows.copy()
    windows[1, 485:500, 1] += 6.0
    why = detector.explain(windows)
    at = 512 - 1 - detector.lag
    assert why.position.tolist() == [at] * 3
    assert why.share[1].argmax() == 1
    assert why.first is not None
    assert why.last is not None
    assert why.first[1] <= at <= why.last[1]
    assert (why.first[[0, 2]] == -1).all()
    gap = np.abs(why.expected[1] - clean[1, at])
    assert gap[1] < 0.7 * abs(windows[1, at, 1] - clean[1, at, 1])


def test_many_variates_are_scored_in_smaller_calls_and_alike():
    detector = TimeRcd(size=64)
    windows = waves(7, 64, n_variates=70)
    whole = detector.score(windows)
    alone = np.concatenate([detector.score(windows[i : i + 1]) for i in range(7)])
    assert np.array_equal(whole, alone)


def test_missing_samples_are_never_strange():
    detector = TimeRcd(size=128)
    windows = waves(4, 128)
    windows[2, -24:] = np.nan
    assert detector.score(windows)[2] == 0
    why = detector.explain(windows)
    assert np.isfinite(why.share).all()
    assert np.isfinite(why.expected).all()


@pytest.mark.parametrize("seed", range(3))
def test_what_drowns_in_noise_is_seen_at_a_coarser_scale(seed: int):
    rng, t, at = np.random.default_rng(seed), np.arange(4096), np.arange(3000, 3080)
    series = (np.sin(2 * np.pi * t / 160) + 0.6 * rng.standard_normal(4096)).astype(np.float32)
    turned = series.copy()
    turned[at] -= (2 * np.sin(2 * np.pi * at / 160)).astype(np.float32)  # upside down

    def cut(values, ends):
        whole = np.lib.stride_tricks.sliding_window_view(values, 1024)
        return np.ascontiguousarray(whole[ends - 1023, :, None])

    calm, event = cut(series, np.arange(1023, 4096, 48)), cut(turned, at[::4] + 16)
    plain, scaled = TimeRcd(size=1024, scales=(1,)), TimeRcd(size=1024)
    assert np.median(plain.score(event)) < np.quantile(plain.score(calm), 0.99)
    assert np.median(scaled.score(event)) > 1.5 * np.quantile(scaled.score(calm), 0.95)


def test_a_coarser_scale_reads_means_of_what_is_there():
    detector = TimeRcd(size=256, scales=(1, 4))
    windows = waves(6, 256)
    means = np.ascontiguousarray(windows.reshape(6, 64, 4, 1).mean(axis=2, dtype=np.float64))
    coarse = TimeRcd(size=64, scales=(1,), lag=4).score(means.astype(np.float32))
    plain = TimeRcd(size=256, scales=(1,)).score(windows)
    np.testing.assert_allclose(detector.score(windows), (plain + coarse) / 2, rtol=1e-5)
    # A missing sample beside the judged one leaves its average; the judged one missing is nothing.
    windows[:, 256 - 1 - 16] = np.nan
    assert not detector.score(windows).any()
    # A lag that a scale does not reach, with averages cut to whole patches, is judged at others.
    long = waves(3, 600)
    every, one = TimeRcd(size=600, lag=590), TimeRcd(size=600, lag=590, scales=(1,))
    assert np.array_equal(every.score(long), one.score(long))
    # Scales that leave fewer than four patches are not read.
    fewer = TimeRcd(size=256, scales=(1, 2, 4)).score(waves(6, 256))
    assert np.array_equal(TimeRcd(size=256).score(waves(6, 256)), fewer)


@pytest.mark.parametrize(
    "scales", [(), (2, 4), (1, 1), (1, 0), (1, 512), (1, 2.0), range(1, 10), 4, "12"]
)
def test_scales_that_cannot_be_read_are_refused(scales):
    with pytest.raises(ConfigError, match="scales must be 1 to 8 different whole numbers"):
        TimeRcd(scales=scales)


@pytest.mark.parametrize("held", [64, 128, 256, 400])
def test_a_partial_window_scores_as_a_full_one_of_what_it_holds(held: int):
    short, long = TimeRcd(size=held), TimeRcd(size=512)
    windows = waves(12, held, n_variates=2)
    windows[3, -20] += 4
    padded = np.full((12, 512, 2), np.nan, dtype=np.float32)
    padded[:, 512 - held :] = windows
    # 400 samples are 25 patches; of 64 and 128 only some scales can be read.
    assert np.allclose(short.score(windows), long.score(padded), rtol=2e-2, atol=2e-3)
    assert short.score(windows).argmax() == long.score(padded).argmax()
    one, other = short.explain(windows), long.explain(padded)
    assert (one.position + 512 - held == other.position).all()
    assert np.allclose(one.expected, other.expected, atol=0.05)


def test_what_does_not_fit_is_refused(tmp_path: Path):
    with pytest.raises(WindowError, match=r"0 \.\. 127"):
        TimeRcd(size=128, lag=128)
    with pytest.raises(ArtifactError, match="streamad pretrain timercd"):
        TimeRcd(model=str(tmp_path / "absent"))
    (tmp_path / "config.json").write_text(json.dumps({"patch": 0, "combine": "max"}))
    with pytest.raises(ArtifactError, match="patch = 0"):
        TimeRcd(model=str(tmp_path))
    (tmp_path / "config.json").write_text(json.dumps({"patch": 32, "combine": "mean"}))
    with pytest.raises(ArtifactError, match="no TimeRCD model"):
        TimeRcd(model=str(tmp_path))
    shutil.copy(SHIPPED / "model.onnx", tmp_path)
    with pytest.raises(WindowError, match="128 or more"):
        TimeRcd(size=64, model=str(tmp_path))
    assert "model" in TimeRcd.from_elsewhere, "an artifact could name what is loaded"


def test_scoring_never_imports_torch():
    code = (
        "import sys, numpy as np; from streamad.detectors.timercd import TimeRcd; "
        "w = np.random.default_rng(0).random((4, 64, 1), dtype=np.float32); "
        "d = TimeRcd(size=64); d.score(w); d.explain(w); assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_the_shipped_files_are_small_and_are_of_the_shipped_weights():
    held = {path.name: path.stat().st_size for path in SHIPPED.iterdir()}
    assert set(held) == {
        "config.json", "model.onnx", "expected.onnx", "model.safetensors", "training.json",
        "MODEL_CARD.md",
    }  # fmt: skip
    assert sum(held.values()) <= 8_000_000
    torch = pytest.importorskip("torch", exc_type=ModuleNotFoundError)
    from safetensors.torch import load_file

    from streamad.networks.timercd import TimeRCD, TimeRCDConfig

    network = TimeRCD(TimeRCDConfig(**json.loads((SHIPPED / "config.json").read_text()))).eval()
    weights = load_file(SHIPPED / "model.safetensors")
    network.load_state_dict({name: value.float() for name, value in weights.items()})
    given = normalised(waves(5, 256, n_variates=3), patch=16)
    patches, seen = torch.from_numpy(given.patches), torch.from_numpy(given.seen)
    with torch.inference_mode():
        log_odds = network.logits(network(patches, seen)).flatten(2).numpy()
    # Weights of fewer than 1,024 values are whole in the graph and halves in the file.
    assert np.abs(load_rcd("shipped").log_odds(given) - log_odds).max() < 0.02
