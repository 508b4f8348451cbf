"""What ``streamad pretrain`` and ``streamad corpus`` do."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from jobs.console import bar, is_watched, say
from streamad.errors import ConfigError

if TYPE_CHECKING:
    from streamad.training.timercd.recipe import Run


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """What the command line asks of a training; see `streamad.training.timercd`."""

    size: str
    steps: int
    minutes: float | None
    rate: float
    length: int
    samples: int
    seed: int
    device: str
    threads: int
    workers: int
    half: bool
    start: Path | None


def pretrain_timercd(out: Path, asked: Asked) -> None:
    """Train, or resume what ``out`` holds, and write what serves into it."""
    _require_torch()
    from streamad.detectors.timercd.model import directory_of
    from streamad.training.corpus import TELEMETRY, BatchPlan
    from streamad.training.timercd.checkpoint import CHECKPOINT
    from streamad.training.timercd.export import network_of, save_network
    from streamad.training.timercd.recipe import Recipe
    from streamad.training.timercd.train import Pace, network_config, pretrain

    config = network_config(asked.size)
    _within("--steps", asked.steps, 1, 10_000_000)
    _within("--length", asked.length, 16 * config.patch, 65_536)
    if asked.length % config.patch:
        msg = f"--length must be a multiple of the patch, {config.patch}, got {asked.length}"
        raise ConfigError(msg)
    _within("--samples", asked.samples, asked.length, 2**26)
    recipe = Recipe(
        steps=asked.steps,
        minutes=asked.minutes,
        rate=asked.rate,
        half=asked.half,
        seed=asked.seed,
        start=None if asked.start is None else Path(directory_of(str(asked.start))),
    )
    plan = BatchPlan(
        seed=asked.seed,
        samples=asked.samples,
        length=asked.length,
        patch=config.patch,
        shortest=4 * config.patch,
        cut=0.5,
        corpus=TELEMETRY,
    )
    pace = Pace(workers=asked.workers, threads=asked.threads, device=asked.device)
    with bar("pretrain timercd") as report:
        noted = _Noted()

        def on_step(run: Run, loss: float) -> None:
            done = run.progress(recipe)
            report(round(1_000 * done), 1_000)
            noted.note(run, loss)

        run = pretrain(out, config=config, recipe=recipe, plan=plan, pace=pace, on_step=on_step)
    network, facts = network_of(out / CHECKPOINT)
    save_network(network, out, facts=facts)
    say(f"streamad: trained {run.step:,} steps; detector timercd serves it with model = {out}")


@dataclass(slots=True)
class _Noted:
    """What was reported of a training so far: one line per validation."""

    n: int = 0

    def note(self, run: Run, loss: float) -> None:
        if self.n == len(run.checked):
            return
        self.n = len(run.checked)
        last = run.checked[-1]
        own = ", ".join(
            f"{name} {value:.3f} (|z| {last[f'{name}_abs_z']:.3f})"
            for name, value in last.items()
            if f"{name}_abs_z" in last
        )
        begins = "\n" if is_watched() else ""
        say(f"{begins}step {run.step:,}: loss {loss:.4f}; VUS-PR on held-out series: {own}")


def export_checkpoint(checkpoint: Path, out: Path, *, average: Path | None = None) -> None:
    """Write what serves from a checkpoint of ``streamad pretrain``, of a running training too.

    average : a directory with weights of the same size; the mean of both is written
    """
    _require_torch()
    from streamad.detectors.timercd.model import directory_of
    from streamad.training.timercd.checkpoint import CHECKPOINT
    from streamad.training.timercd.export import averaged_with, network_of, save_network

    path = checkpoint / CHECKPOINT if checkpoint.is_dir() else checkpoint
    network, facts = network_of(path)
    if average is not None:
        network, facts = averaged_with(network, facts, Path(directory_of(str(average))))
    save_network(network, out, facts=facts)
    say(f"streamad: wrote the network of step {facts['steps']:,} to {out}")


def convert_checkpoint(checkpoint: Path, out: Path) -> None:
    """Write what serves from a checkpoint the authors of TimeRCD publish."""
    _require_torch()
    from streamad.training.timercd.export import save_network
    from streamad.training.timercd.official import load_official

    network = load_official(checkpoint)
    n = sum(p.numel() for p in network.parameters())
    save_network(network, out, facts={"converted_from": checkpoint.name, "parameters": n})
    say(f"streamad: wrote {n:,} parameters to {out}; detector timercd serves it with model = {out}")


def draw_corpus(out: Path, *, seed: int, length: int, samples: int, published: bool) -> None:
    """Write a page of synthetic series, ``samples`` per kind of anomaly.

    published : draw from the ranges of the published corpus, not those of the shipped weights
    """
    from jobs.pretrain.page import corpus_page
    from streamad.training.corpus import TELEMETRY, CorpusConfig

    _within("--length", length, 128, 8_192)
    _within("--samples", samples, 1, 50)
    config = CorpusConfig() if published else TELEMETRY
    page = corpus_page(config, seed=seed, length=length, n_samples=samples)
    out.write_text(page, encoding="utf-8")
    say(f"streamad: wrote {samples} series per kind of anomaly to {out}")


def _require_torch() -> None:
    from importlib.util import find_spec

    missing = [name for name in ("torch", "onnx") if find_spec(name) is None]
    if missing:
        msg = (
            f"pretraining needs {' and '.join(missing)}; "
            "install with: pip install 'streamad-pipeline[train]'"
        )
        raise ConfigError(msg)


def _within(option: str, value: int, least: int, most: int) -> None:
    if not least <= value <= most:
        msg = f"{option} must lie in {least} .. {most}, got {value}"
        raise ConfigError(msg)
