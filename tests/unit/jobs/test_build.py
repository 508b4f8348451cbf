"""From a pipeline to its operator: wrong parameters, missing artifacts, the fallback."""

from pathlib import Path

import pytest

from jobs.build import FALLBACK, build_detect
from jobs.offline.score import fit_table, pipeline_for
from jobs.offline.tables import read_table
from streamad.artifacts import save_artifact
from streamad.config import PipelineConfig, parse_pipeline
from streamad.errors import ArtifactError, ConfigError
from streamad.testing.batches import make_columns


def pipeline(text: str) -> PipelineConfig:
    return parse_pipeline(f"name: a\n{text}")


@pytest.fixture
def artifact(tmp_path: Path) -> Path:
    rows = "\n".join(f"{i},{i % 20}" for i in range(300))
    (tmp_path / "train.csv").write_text(f"ts,value\n{rows}\n")
    table = read_table(tmp_path / "train.csv")
    fitted = fit_table(table, pipeline_for(table, detector="pca", size=20))
    save_artifact(tmp_path / "model", fitted.detector, fitted.manifest)
    return tmp_path / "model"


def test_auto_size_without_an_artifact_is_the_detectors_default():
    assert build_detect(pipeline("detector: knn\n")).detector.size == 64
    assert build_detect(pipeline("detector: knn\nwindows: {size: 30}\n")).detector.size == 30


def test_parameters_reach_the_detector():
    operator = build_detect(pipeline("detector: {name: knn, params: {lag: 0, k: 7}}\n"))
    assert operator.detector.lag == 0


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("{name: knn, params: {histroy: 3}}", "params.histroy: .* did you mean 'history'"),
        ("{name: knn, params: {k: three}}", r"params\.k: expected a valid integer, got 'three'"),
        ("{name: knn, params: {k: true}}", r"params\.k: expected a valid integer, got True"),
        ("{name: knn, params: {size: 3}}", r"set as windows\.size"),
        ("{name: knn, params: {lag: 999}}", "lag must lie in"),
        ("knnn", "no detector is called 'knnn'; did you mean 'knn'"),
        ("pca", r"pca needs an artifact, and none is set; make one with 'streamad fit pca"),
    ],
)
def test_a_wrong_detector_is_refused_with_the_remedy(text: str, told: str):
    with pytest.raises(ConfigError, match=told):
        build_detect(pipeline(f"detector: {text}\n"))


def test_windows_too_small_for_the_detector_are_refused():
    with pytest.raises(ConfigError, match=r"windows\.size: auto needs .* at least 16"):
        build_detect(pipeline("windows: {size: 8}\n"))


def test_an_artifact_brings_size_tail_and_id(artifact: Path):
    operator = build_detect(pipeline(f"detector: {{name: pca, artifact: {artifact}}}\n"))
    assert operator.detector.size == 20
    assert len(operator.artifact) == 16
    assert operator.degraded == ""


def test_an_artifact_that_does_not_fit_is_refused_however_lenient(artifact: Path):
    text = f"detector: {{name: pca, artifact: {artifact}}}\nwindows: {{size: 30}}\n"
    with pytest.raises(ArtifactError, match=r"windows\.size: the artifact has 20, the pipeline 30"):
        build_detect(pipeline(text))


def test_a_missing_artifact_degrades_to_the_fallback_and_every_finding_says_so(tmp_path: Path):
    text = f"detector: {{name: pca, artifact: {tmp_path}/gone}}\nwindows: {{size: 20}}\n"
    operator = build_detect(pipeline(text))
    assert operator.detector.info.name == FALLBACK
    assert operator.degraded.startswith("robust_z stands in for pca: artifact")
    values = [float(i % 5) for i in range(400)] + [900.0] * 5
    batch = make_columns(["k"] * 405, [i * 1000 for i in range(405)], values)
    findings = operator.process(operator.new_state(), batch).findings
    assert findings
    assert {finding.degraded for finding in findings} == {operator.degraded}
    assert {finding.detector for finding in findings} == {FALLBACK}


def test_a_damaged_artifact_degrades_as_well(artifact: Path):
    (artifact / "weights.safetensors").write_bytes(b"")
    operator = build_detect(pipeline(f"detector: {{name: pca, artifact: {artifact}}}\n"))
    assert "is damaged" in operator.degraded


def test_a_detector_that_can_do_without_judges_without_its_artifact():
    operator = build_detect(pipeline("detector: {name: knn, artifact: /nowhere}\n"))
    assert operator.detector.info.name == "knn"
    assert operator.degraded.startswith("scoring without its artifact")


def test_strict_refuses_what_would_degrade(tmp_path: Path):
    with pytest.raises(ArtifactError, match=r"holds no manifest\.json"):
        build_detect(pipeline(f"detector: {{name: pca, artifact: {tmp_path}/x}}\n"), strict=True)


def test_the_credentials_of_an_artifact_are_in_no_finding():
    text = "detector: {name: pca, artifact: 'memory://key:hunter22@nowhere/m?sig=abcd'}"
    operator = build_detect(pipeline(text))
    assert "nowhere" in operator.degraded
    assert "hunter22" not in operator.degraded
    assert "abcd" not in operator.degraded
