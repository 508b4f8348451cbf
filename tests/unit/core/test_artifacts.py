"""An artifact comes back bit for bit, or says exactly what is wrong with it."""

import functools
import hashlib
import json
import math
import os
from pathlib import Path

import numpy as np
import pytest

from streamad import artifact_files
from streamad.artifacts import (
    MANIFEST,
    WEIGHTS,
    Manifest,
    differences,
    load_artifact,
    load_manifest,
    require_fit,
    save_artifact,
)
from streamad.config import PipelineConfig, parse_pipeline
from streamad.detectors.knn import KNN
from streamad.errors import ArtifactError

SIZE = 16


def windows(seed: int = 0, n: int = 80) -> np.ndarray:
    series = np.random.default_rng(seed).normal(size=n + SIZE - 1).astype(np.float32)
    rolling = np.lib.stride_tricks.sliding_window_view(series, SIZE)
    return np.ascontiguousarray(rolling[:, :, None])


def fitted() -> KNN:
    return KNN(size=SIZE, k=2).fit(windows())


def manifest(**changes: object) -> Manifest:
    told = {"detector": "knn", "params": {"k": 2}, "size": SIZE, "variates": ["value"]}
    return Manifest.model_validate({**told, **changes})


def pipeline(text: str = "") -> PipelineConfig:
    return parse_pipeline(f"name: a\n{text}")


def test_what_was_saved_scores_bit_for_bit_the_same(tmp_path: Path):
    saved = save_artifact(tmp_path / "m", fitted(), manifest(groups=("a",), tail=(1, 2, 3, 4)))
    detector, told = load_artifact(tmp_path / "m")
    assert told == saved
    assert told.group_numbers == {"a": 0}
    assert (detector.score(windows(1)) == fitted().score(windows(1))).all()


def test_an_url_of_another_store_serves_as_well():
    save_artifact("memory://models/one", fitted(), manifest())
    detector, _ = load_artifact("memory://models/one")
    assert (detector.score(windows(1)) == fitted().score(windows(1))).all()


def test_equal_training_gives_equal_ids_whenever_it_was_done(tmp_path: Path):
    one = save_artifact(tmp_path / "1", fitted(), manifest(created="2026-01-01T00:00:00Z"))
    two = save_artifact(tmp_path / "2", fitted(), manifest(created="2026-02-02T00:00:00Z"))
    other = save_artifact(tmp_path / "3", fitted(), manifest(licence="MIT"))
    assert one.id == two.id != other.id


def test_files_beside_the_weights_are_kept_and_checked(tmp_path: Path):
    save_artifact(tmp_path / "m", fitted(), manifest(), files={"model.onnx": b"graph"})
    load_artifact(tmp_path / "m")
    (tmp_path / "m" / "model.onnx").write_bytes(b"other")
    with pytest.raises(ArtifactError, match=r"model\.onnx is damaged"):
        load_artifact(tmp_path / "m")


def test_saving_again_replaces_the_whole_artifact_and_keeps_one_of_before(tmp_path: Path):
    first = save_artifact(tmp_path / "m", fitted(), manifest(), files={"model.onnx": b"graph"})
    second = save_artifact(tmp_path / "m", fitted(), manifest(licence="MIT"))
    assert sorted(p.name for p in (tmp_path / "m").iterdir()) == [MANIFEST, WEIGHTS]
    assert load_manifest(tmp_path / ".m.previous") == first
    save_artifact(tmp_path / "m", fitted(), manifest(licence="BSD"))
    assert load_manifest(tmp_path / ".m.previous") == second
    assert sorted(p.name for p in tmp_path.iterdir()) == [".m.previous", "m"]


def test_a_folder_that_is_no_artifact_is_never_overwritten(tmp_path: Path):
    (tmp_path / "thesis.txt").write_text("years of work")
    with pytest.raises(ArtifactError, match="is no artifact"):
        save_artifact(tmp_path, fitted(), manifest())
    assert (tmp_path / "thesis.txt").exists()


def test_a_missing_artifact_says_how_to_make_one(tmp_path: Path):
    with pytest.raises(ArtifactError, match=r"holds no manifest\.json.*streamad fit"):
        load_artifact(tmp_path / "nowhere")


@pytest.mark.parametrize("keep", [0, 10, -1])
def test_damaged_weights_are_told_from_a_sound_artifact(tmp_path: Path, keep: int):
    save_artifact(tmp_path / "m", fitted(), manifest())
    weights = tmp_path / "m" / WEIGHTS
    weights.write_bytes(weights.read_bytes()[:keep])
    with pytest.raises(ArtifactError, match="is damaged"):
        load_artifact(tmp_path / "m")


def test_a_manifest_that_was_edited_is_refused(tmp_path: Path):
    save_artifact(tmp_path / "m", fitted(), manifest())
    path = tmp_path / "m" / MANIFEST
    path.write_text(path.read_text().replace('"size": 16', '"size": 32'))
    with pytest.raises(ArtifactError, match="was changed after it was written"):
        load_artifact(tmp_path / "m")


@pytest.mark.parametrize("text", ["", "[]", "{", '{"format": 1}', "\x00\x01"])
def test_a_manifest_that_cannot_be_read_is_an_artifact_error(tmp_path: Path, text: str):
    (tmp_path / MANIFEST).write_text(text)
    with pytest.raises(ArtifactError, match="damaged"):
        load_manifest(tmp_path)


def test_a_manifest_of_a_later_format_says_so(tmp_path: Path):
    save_artifact(tmp_path / "m", fitted(), manifest())
    path = tmp_path / "m" / MANIFEST
    path.write_text(json.dumps({**json.loads(path.read_text()), "format": 2, "novelty": 1}))
    with pytest.raises(ArtifactError, match="format 2 is not the one"):
        load_artifact(tmp_path / "m")


def test_an_artifact_of_a_detector_nobody_has_is_an_artifact_error(tmp_path: Path):
    save_artifact(tmp_path / "m", fitted(), manifest(detector="gone"))
    with pytest.raises(ArtifactError, match="no detector is called 'gone'"):
        load_artifact(tmp_path / "m")


def test_weights_of_another_detector_are_refused(tmp_path: Path):
    save_artifact(tmp_path / "m", fitted(), manifest(detector="pca", params={}))
    with pytest.raises(ArtifactError, match="pca cannot take it"):
        load_artifact(tmp_path / "m")


def test_an_artifact_fits_the_pipeline_it_was_made_for():
    config = pipeline("detector: {name: knn, params: {k: 2}}\nwindows: {size: 16}\n")
    assert differences(manifest(), config) == []
    require_fit(manifest(), config)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("detector: pca\n", "detector.name: the artifact has knn, the pipeline pca"),
        ("detector: knn\nwindows: {size: 32}\n", "windows.size: the artifact has 16"),
        ("detector: {name: knn, params: {k: 5}}\n", "detector.params.k: the artifact has 2"),
        ("detector: {name: knn, params: {lag: 5}}\n", "detector.params.lag: the artifact has the"),
        ("detector: knn\ninput: {fields: {values: [a, b]}}\n", "the variates: the artifact has"),
        ("detector: knn\nseries: {kind: counter}\n", "series.kind: the artifact has gauge"),
        ("detector: knn\nseries: {step: 10s}\n", "series.step: the artifact has none"),
    ],
)
def test_what_does_not_fit_is_listed(text: str, told: str):
    found = differences(manifest(), pipeline(text))
    assert len(found) == 1
    assert told in found[0]


def test_a_refusal_names_every_difference_at_once():
    text = "detector: pca\nwindows: {size: 32}\nseries: {kind: delta}\n"
    with pytest.raises(ArtifactError, match=r"detector\.name.*windows\.size.*series\.kind"):
        require_fit(manifest(), pipeline(text))


# ---------------------------------------------------------------------- artifacts of others


def forge(folder: Path, **changes: object) -> None:
    """Change a manifest and seal it again, as a writer of the folder can."""
    told = json.loads((folder / MANIFEST).read_text()) | changes
    changed = Manifest.model_construct(**told)
    body = {k: v for k, v in told.items() if k not in ("id", "created", "files")}
    text = json.dumps([body, sorted(changed.files.items())], sort_keys=True, separators=(",", ":"))
    told["id"] = hashlib.sha256(text.encode()).hexdigest()[:16]
    (folder / MANIFEST).write_text(json.dumps(told))


HASH = "0" * 64


@pytest.mark.parametrize(
    "files",
    [
        {"/etc/passwd": HASH},
        {"../secret": HASH},
        {"a/../../secret": HASH},
        {"..": HASH},
        {"": HASH},
        {"x\ny": HASH},
        {WEIGHTS: "short"},
        {f"f{i}": HASH for i in range(33)},
    ],
)
def test_a_manifest_names_files_of_its_folder_only(tmp_path: Path, files: dict[str, str]):
    save_artifact(tmp_path / "m", fitted(), manifest())
    (tmp_path / "secret").write_text("x")
    forge(tmp_path / "m", files=files)
    with pytest.raises(ArtifactError, match="damaged") as got:
        load_artifact(tmp_path / "m")
    assert "\n" not in str(got.value)


def test_a_link_out_of_the_folder_is_refused_and_one_inside_is_followed(tmp_path: Path):
    save_artifact(tmp_path / "m", fitted(), manifest())
    weights = tmp_path / "m" / WEIGHTS
    (tmp_path / "m" / "data").mkdir()
    weights.rename(tmp_path / "m" / "data" / WEIGHTS)
    weights.symlink_to(Path("data") / WEIGHTS)
    load_artifact(tmp_path / "m")
    (tmp_path / "m" / "data" / WEIGHTS).rename(tmp_path / "elsewhere")
    weights.unlink()
    weights.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(ArtifactError, match="link out of its folder"):
        load_artifact(tmp_path / "m")


def test_a_pipe_in_place_of_a_file_does_not_hold_the_job(tmp_path: Path):
    os.mkfifo(tmp_path / MANIFEST)
    with pytest.raises(ArtifactError, match="is no file"):
        load_manifest(tmp_path)


@pytest.mark.parametrize(
    "url",
    [
        "http://host/m",
        "zip://m::https://host/a.zip",
        "simplecache::s3://bucket/m",
        "data:text/plain,x",
        "github://o:r@/m",
        "reference://m",
        "ftp://user:hunter22@host/m",
    ],
)
def test_a_store_that_is_not_known_is_refused_before_it_is_asked(url: str):
    with pytest.raises(ArtifactError, match="expected a folder or a URL of") as got:
        load_artifact(url)
    assert "hunter22" not in str(got.value)


def test_a_file_beyond_its_bound_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    save_artifact(tmp_path / "m", fitted(), manifest())
    monkeypatch.setattr(artifact_files, "MAX_FILE_BYTES", 100)
    with pytest.raises(ArtifactError, match="at most 100 bytes"):
        load_artifact(tmp_path / "m")


@pytest.mark.parametrize(
    "changes",
    [
        {"size": 10**9},
        {"size": -1},
        {"stride": 0},
        {"tail": [1, 2, 3, math.inf]},
        {"variates": []},
        {"params": {"k": "three"}},
        {"params": {"size": 5}},
        {"params": {"nothing": 5}},
        {"params": {"history": 10**12}},
    ],
)
def test_a_manifest_is_checked_before_a_detector_is_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, changes: dict[str, object]
):
    save_artifact(tmp_path / "m", fitted(), manifest())
    forge(tmp_path / "m", **changes)
    real, made = KNN.__init__, []

    @functools.wraps(real)
    def init(self: KNN, **given: object) -> None:
        made.append(given)
        real(self, **given)

    monkeypatch.setattr(KNN, "__init__", init)
    with pytest.raises(ArtifactError):
        load_artifact(tmp_path / "m")
    assert made == []


def test_a_model_from_elsewhere_is_loaded_only_where_the_pipeline_names_it(tmp_path: Path):
    save_artifact(tmp_path / "m", fitted(), manifest(detector="themis", params={"model": "o/hub"}))
    with pytest.raises(ArtifactError, match=r"detector\.params\.model.*loaded from elsewhere"):
        load_artifact(tmp_path / "m")
    config = pipeline("detector: {name: themis, params: {model: shipped}}\n")
    with pytest.raises(ArtifactError, match=r"detector\.params\.model"):
        load_artifact(tmp_path / "m", config)


def test_weights_that_are_not_finite_are_refused(tmp_path: Path):
    detector = fitted()
    detector._samples[0, 0] = np.nan
    save_artifact(tmp_path / "m", detector, manifest())
    with pytest.raises(ArtifactError, match="samples holds values that are not finite"):
        load_artifact(tmp_path / "m")
