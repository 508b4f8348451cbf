import numpy as np
import pytest

from streamad.detectors.pyod_models import LOF, PCA
from streamad.errors import NotFittedError, WindowError


def windows(n, seed=0, size=16, n_variates=1):
    rng = np.random.default_rng(seed)
    phase = rng.uniform(0, 20) + np.arange(n)[:, None, None] + np.arange(size)[None, :, None]
    wave = np.sin(phase / 3 + np.arange(n_variates)) + 0.1 * rng.normal(size=(n, size, n_variates))
    return wave.astype(np.float32)


def test_pca_leaves_what_its_components_do_not_hold():
    training, new = windows(500), windows(20, seed=1)
    detector = PCA(size=16).fit(training)
    rows = (training[:, :, 0] - np.median(training)) / training.std()
    mean = rows.mean(axis=0)
    _, sizes, components = np.linalg.svd(rows - mean, full_matrices=False)
    n = int((np.cumsum(sizes**2) >= 0.9 * np.sum(sizes**2)).argmax()) + 1
    centred = (new[:, :, 0] - np.median(training)) / training.std() - mean
    left = centred - centred @ components[:n].T @ components[:n]
    np.testing.assert_allclose(detector.score(new), np.sqrt((left**2).mean(axis=1)), rtol=1e-3)
    assert set(detector.state()) == {"mean", "components", "loc", "scale"}


def test_lof_is_about_one_for_ordinary_windows():
    detector = LOF(size=16).fit(windows(500))
    scores = detector.score(windows(50, seed=1))
    assert 0.8 < np.median(scores) < 1.3
    strange = windows(1, seed=2)
    strange[0, 7] += 3
    assert detector.score(strange)[0] > 2


def test_the_training_windows_kept_have_a_bound():
    detector = LOF(size=16, max_windows=60).fit(windows(500))
    assert detector.state()["bank"].shape == (60, 16)


def test_few_windows_or_none_are_refused():
    with pytest.raises(WindowError, match="at least 3"):
        LOF(size=16).fit(windows(2))
    with pytest.raises(NotFittedError, match="lof"):
        LOF(size=16).score(windows(2))
    assert np.isfinite(LOF(size=16).fit(windows(4)).score(windows(2))).all()


@pytest.mark.parametrize("cls", [LOF, PCA])
def test_unknown_keys_have_the_only_scale_there_is(cls):
    detector = cls(size=16).fit(windows(300))
    memory = detector.new_memory(1)
    memory.reserve(1)
    new = windows(5, seed=1)
    slots = np.zeros(5, dtype=np.int32)
    assert (detector.score(new, memory=memory, slots=slots) == detector.score(new)).all()
