"""What does ONNX Runtime's graph optimisation give, and what int8? Speed beside the kept ranks.

    python -m tests.bench.serving --data signals

The networks that THEMIS and TimeRCD are served by, each as it ships and in other ways: with less
graph optimisation than all there is, and with weights in int8 (`onnxruntime.quantization`,
activations quantised as they come). Windows a second are of one thread, measured in turn, as a
share of what ships. Ranks are those of the detector's scores of ``--series`` series of the even
half (SHA-256 of the name), at most ``--rows`` rows each: their mean Spearman correlation with the
scores of what ships, the least one, and the mean VUS-PR.
"""

from __future__ import annotations

import argparse
import shutil
import tempfile
import time
from collections.abc import Callable
from importlib.resources import files
from pathlib import Path
from unittest.mock import patch

import numpy as np
import onnxruntime
from onnxruntime.quantization import QuantType, quantize_dynamic
from rich.console import Console
from rich.table import Table
from scipy.stats import spearmanr

from streamad.detectors import embeddings, sessions
from streamad.detectors.themis import Themis
from streamad.detectors.timercd import TimeRcd, model
from streamad.evaluation.vus import vus_pr
from tests.bench.hypad_quality import chosen
from tests.bench.quality import contract_scores, read_series
from tests.bench.timercd_quality import zero_shot

WEIGHTS = Path(str(files("streamad.detectors") / "weights"))
LEVELS = onnxruntime.GraphOptimizationLevel
WAYS = {
    "as it ships": LEVELS.ORT_ENABLE_ALL,
    "extended optimisation": LEVELS.ORT_ENABLE_EXTENDED,
    "basic optimisation": LEVELS.ORT_ENABLE_BASIC,
    "no optimisation": LEVELS.ORT_DISABLE_ALL,
    "int8": LEVELS.ORT_ENABLE_ALL,
}
THEMIS_SIZE, TIMERCD_SIZE = 64, 2_048
CALL, TURNS = 64, 5
SERVED = {"themis": "features.onnx", "timercd": "model.onnx"}


def in_int8(name: str, folder: Path) -> Path:
    """Return a copy of a detector's weights whose served network has int8 weights."""
    made = folder / name
    shutil.copytree(WEIGHTS / name, made)
    quantize_dynamic(
        WEIGHTS / name / SERVED[name], made / SERVED[name], weight_type=QuantType.QInt8
    )
    return made


def opened(level: LEVELS) -> Callable[..., onnxruntime.InferenceSession]:
    """Return `open_session` with less graph optimisation."""

    def open_session(path: str, *, what: str) -> onnxruntime.InferenceSession:
        options = onnxruntime.SessionOptions()
        options.graph_optimization_level = level
        with patch.object(onnxruntime, "SessionOptions", lambda: options):
            return sessions.open_session(path, what=what)

    return open_session


def detector(name: str, where: str) -> Themis | TimeRcd:
    """Return the detector with the weights of a directory."""
    embeddings.load_encoder.cache_clear()
    model.load_rcd.cache_clear()
    if name == "themis":
        return Themis(size=THEMIS_SIZE, model=where)
    return TimeRcd(size=TIMERCD_SIZE, model=where)


def seconds(made: Themis | TimeRcd) -> float:
    """Return what a call of the network in a detector costs; TimeRCD at all its scales."""
    windows = np.random.default_rng(0).normal(size=(CALL, made.size, 1)).astype(np.float32)
    if isinstance(made, Themis):
        ones = np.ones((CALL, 1), np.float32)
        made._features.embed(windows, ones)
        started = time.perf_counter()
        made._features.embed(windows, ones)
    else:
        made.score(windows[:16])
        started = time.perf_counter()
        made.score(windows[:16])
    return time.perf_counter() - started


def scores(name: str, where: str, values: np.ndarray, begin: int) -> np.ndarray:
    """Return a score a row from ``begin`` on."""
    if name == "themis":
        return contract_scores(detector(name, where), values, begin)[0].astype(np.float64)
    series = np.nan_to_num(values[:, 0].astype(np.float64), nan=float(np.nanmedian(values)))
    return zero_shot(series, begin, size=TIMERCD_SIZE, model=where, lag=16)


def main() -> None:
    """Measure both networks in all ways and print a table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--series", type=int, default=12)
    parser.add_argument("--rows", type=int, default=1_500)
    given = parser.parse_args()
    some = chosen(given.data, "even")[: given.series]
    table = Table("network", "in which way", "speed", "ranks", "least", "VUS-PR")
    with tempfile.TemporaryDirectory() as temporary:
        for name in SERVED:
            where = {way: str(WEIGHTS / name) for way in WAYS}
            where["int8"] = str(in_int8(name, Path(temporary)))
            made, took = {}, {way: [] for way in WAYS}
            found: dict[str, list[np.ndarray]] = {way: [] for way in WAYS}
            quality: dict[str, list[float]] = {way: [] for way in WAYS}
            for way, level in WAYS.items():
                with (
                    patch.object(embeddings, "open_session", opened(level)),
                    patch.object(model, "open_session", opened(level)),
                ):
                    made[way] = detector(name, where[way])
                    for row in some:
                        values, labels = read_series(given.data / row["file"])
                        begin = max(int(row["train_end"]), THEMIS_SIZE + 2)
                        coming = slice(begin, begin + given.rows)
                        one = scores(name, where[way], values[: coming.stop], begin)
                        found[way].append(one)
                        if labels[coming].any() and not labels[coming].all():
                            window = int(row["window"])
                            quality[way].append(vus_pr(labels[coming], one, window=window))
            for _ in range(TURNS):
                for way in WAYS:
                    took[way].append(seconds(made[way]))
            usual = min(took["as it ships"])
            for way in WAYS:
                pairs = zip(found["as it ships"], found[way], strict=True)
                alike = [float(spearmanr(a, b).statistic) for a, b in pairs if np.ptp(a) > 0]
                table.add_row(
                    name, way, f"{usual / min(took[way]):.2f}", f"{np.mean(alike):.4f}",
                    f"{min(alike):.4f}", f"{np.mean(quality[way]):.3f}",
                )  # fmt: skip
    Console().print(table)


if __name__ == "__main__":
    main()
