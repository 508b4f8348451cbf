"""Train the Chronos-Bolt encoder THEMIS ships with, on synthetic series alone, and export it.

Run it again with the same ``--out`` to go on from the last checkpoint::

    python -m streamad.training.themis --out build/themis --steps 8000 --minutes 45 --seed 0

The directory then holds ``config.json`` and ``model.safetensors``, which
``chronos.BaseChronosPipeline.from_pretrained`` reads; for serving without torch, ``model.onnx``
(the whole encoder) and ``features.onnx`` (its first block, whitened by ``whitening.safetensors``);
and ``training.json`` (seed, steps, loss curve).
"""

from __future__ import annotations

import argparse
import json
import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import onnx
import torch
from chronos.chronos_bolt import ChronosBoltModelForForecasting, InstanceNorm
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
from safetensors import safe_open
from safetensors.torch import save_file
from transformers import T5Config

from streamad.detectors.embeddings import to_patches
from streamad.networks.bolt_encoder import BoltEncoder, BoltFeatures, first_blocks
from streamad.training.synthetic import PoolConfig, load_pool, sample_windows

CHECKPOINT: Final = "checkpoint.safetensors"
LOG_EVERY: Final = 50
SAVE_EVERY: Final = 100
N_BLOCKS: Final = 1
"""Encoder blocks the features come from; measured: one is better than two or all three."""
WIDTH: Final = 24
"""Values a patch keeps after whitening."""
FLOOR: Final = 3e-4
"""Added to every variance, as a share of the largest: directions of pure noise must not count."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BoltShape:
    """Sizes of a Chronos-Bolt; the default keeps weights and ONNX file together under 8 MB."""

    d_model: int = 96
    d_ff: int = 384
    d_kv: int = 24
    n_heads: int = 4
    n_encoder_layers: int = 3
    n_decoder_layers: int = 1
    patch_size: int = 16
    context_length: int = 256
    horizon: int = 32


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """How to train: AdamW without warm-up, learning rate falling linearly to zero."""

    steps: int = 8_000
    batch: int = 64
    learning_rate: float = 1e-3
    weight_decay: float = 0.01
    seed: int = 0


class _GivenScale(InstanceNorm):  # type: ignore[misc]
    """Leave windows as they come: the sampler has scaled them, some by a longer past.

    It has no parameters, so the model it is taken out of again is an ordinary Chronos-Bolt.
    """

    def forward(
        self, x: torch.Tensor, loc_scale: tuple[torch.Tensor, torch.Tensor] | None = None
    ) -> tuple[torch.Tensor, tuple[torch.Tensor, torch.Tensor]]:
        """Return ``x`` itself, with level 0 and scale 1."""
        if loc_scale is None:
            loc_scale = (x.new_zeros(len(x), 1), x.new_ones(len(x), 1))
        return x, loc_scale


def build_model(shape: BoltShape) -> ChronosBoltModelForForecasting:
    """Make a Chronos-Bolt of this shape with random weights, without asking any hub."""
    config = T5Config(
        vocab_size=2,
        d_model=shape.d_model,
        d_ff=shape.d_ff,
        d_kv=shape.d_kv,
        num_heads=shape.n_heads,
        num_layers=shape.n_encoder_layers,
        num_decoder_layers=shape.n_decoder_layers,
        feed_forward_proj="relu",
        initializer_factor=0.05,
        dropout_rate=0.0,
        pad_token_id=0,
        eos_token_id=1,
        architectures=["ChronosBoltModelForForecasting"],
    )
    config.decoder_start_token_id = 0
    config.reg_token_id = 1
    config.chronos_pipeline_class = "ChronosBoltPipeline"
    config.chronos_config = {
        "context_length": shape.context_length,
        "prediction_length": shape.horizon,
        "input_patch_size": shape.patch_size,
        "input_patch_stride": shape.patch_size,
        "quantiles": [round(0.1 * i, 1) for i in range(1, 10)],
        "use_reg_token": True,
    }
    # SDPA does not export: the new exporter fails on a view, the old one drops T5's scale of 1.0.
    config._attn_implementation = "eager"  # noqa: SLF001
    return ChronosBoltModelForForecasting(config)


# training ----------------------------------------------------------------------------------------


@dataclass(slots=True, kw_only=True)
class Run:
    """A model in training: all that a checkpoint holds."""

    model: ChronosBoltModelForForecasting
    optimiser: torch.optim.AdamW
    step: int = 0
    losses: list[tuple[int, float]]


def start_run(shape: BoltShape, recipe: Recipe) -> Run:
    """Seed everything and return a run at step 0."""
    torch.manual_seed(recipe.seed)
    model = build_model(shape)
    model.instance_norm = _GivenScale()
    optimiser = torch.optim.AdamW(
        model.parameters(), lr=recipe.learning_rate, weight_decay=recipe.weight_decay
    )
    return Run(model=model, optimiser=optimiser, losses=[])


def save_checkpoint(run: Run, path: Path, *, settings: dict[str, Any]) -> None:
    """Keep the run so that a killed training goes on where it was."""
    # Tied weights are one tensor under several names, which the format refuses: hence the clones.
    tensors = {f"model.{name}": value.clone() for name, value in run.model.state_dict().items()}
    for number, state in run.optimiser.state_dict()["state"].items():
        tensors |= {f"optimiser.{number}.{name}": value for name, value in state.items()}
    about = {"step": run.step, "losses": run.losses, "settings": settings}
    aside = path.with_suffix(".part")
    save_file(tensors, aside, metadata={"run": json.dumps(about)})
    aside.replace(path)


def load_checkpoint(run: Run, path: Path, *, settings: dict[str, Any]) -> None:
    """Put a saved run back into ``run``; a checkpoint of other settings is refused."""
    with safe_open(path, framework="pt") as file:
        kept = json.loads(file.metadata()["run"])
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - no mapping
    # As JSON keeps them: a tuple comes back as a list.
    settings = json.loads(json.dumps(settings))
    if kept["settings"] != settings:
        changed = {
            name: (kept["settings"].get(name), value)
            for name, value in settings.items()
            if kept["settings"].get(name) != value
        }
        msg = (
            f"{path} was begun with other settings (kept, asked): {changed}; "
            "name another --out, or delete the checkpoint to begin again"
        )
        raise ValueError(msg)
    states: dict[int, dict[str, torch.Tensor]] = {}
    for name, value in tensors.items():
        whose, _, rest = name.partition(".")
        if whose == "optimiser":
            number, _, which = rest.partition(".")
            states.setdefault(int(number), {})[which] = value
    run.model.load_state_dict(
        {k.removeprefix("model."): v for k, v in tensors.items() if k.startswith("model.")}
    )
    groups = run.optimiser.state_dict()["param_groups"]
    run.optimiser.load_state_dict({"state": states, "param_groups": groups})
    run.step = int(kept["step"])
    run.losses = [(int(step), float(loss)) for step, loss in kept["losses"]]


def train_step(
    run: Run, pool: NDArray[np.float32], *, shape: BoltShape, recipe: Recipe, planned: int
) -> float:
    """Take one optimiser step and return its loss.

    A step's batch depends on the seed and the step's number alone, so a resumed run sees what an
    unbroken one would have seen.
    """
    batch = sample_windows(
        pool,
        n_windows=recipe.batch,
        context_length=shape.context_length,
        horizon=shape.horizon,
        rng=np.random.default_rng([recipe.seed, 3, run.step]),
    )
    for group in run.optimiser.param_groups:
        group["lr"] = recipe.learning_rate * max(0.0, 1.0 - run.step / planned)
    loss = run.model(
        context=torch.from_numpy(batch.context), target=torch.from_numpy(batch.target)
    ).loss
    run.optimiser.zero_grad(set_to_none=True)
    loss.backward()
    torch.nn.utils.clip_grad_norm_(run.model.parameters(), 1.0)
    run.optimiser.step()
    run.step += 1
    return float(loss.detach())


def train(
    run: Run,
    pool: NDArray[np.float32],
    *,
    shape: BoltShape,
    recipe: Recipe,
    on_step: Callable[[Run, float], bool],
) -> None:
    """Train until ``recipe.steps``, or until ``on_step(run, recent loss)`` answers no.

    The learning rate is planned for ``recipe.steps``: a run cut short keeps a rate above zero.
    """
    recent: list[float] = []
    run.model.train()
    while run.step < recipe.steps:
        recent.append(train_step(run, pool, shape=shape, recipe=recipe, planned=recipe.steps))
        if run.step % LOG_EVERY == 0:
            run.losses.append((run.step, float(np.mean(recent))))
            recent = []
        latest = run.losses[-1][1] if run.losses else float("nan")
        if not on_step(run, latest):
            return


# export ------------------------------------------------------------------------------------------


@torch.inference_mode()
def whitening(
    model: ChronosBoltModelForForecasting, pool: NDArray[np.float32], *, seed: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return centre ``(d,)`` and whitening axes ``(d, WIDTH)`` of the first block's output.

    Measured on synthetic windows: the leading principal directions, each scaled to about one
    deviation, together to one.
    """
    encoder = first_blocks(model, n_blocks=N_BLOCKS)
    patch_size = model.chronos_config.input_patch_size
    tokens = []
    for i in range(24):
        batch = sample_windows(
            pool,
            n_windows=64,
            context_length=8 * patch_size,
            horizon=model.chronos_config.prediction_length,
            rng=np.random.default_rng([seed, 4, i]),
        )
        patches = to_patches(batch.context, patch_size=patch_size)
        hidden = encoder(torch.from_numpy(patches))[:, :-1].numpy()
        tokens.append(hidden[patches[:, :, patch_size:].all(axis=2)])
    rows = np.concatenate(tokens).astype(np.float64)
    values, vectors = np.linalg.eigh(np.cov(rows.T))
    values, vectors = values[::-1][:WIDTH], vectors[:, ::-1][:, :WIDTH]
    spread = values + FLOOR * values[0]
    axes = vectors / np.sqrt(spread) / np.sqrt((values / spread).sum())
    return torch.tensor(rows.mean(axis=0)).float(), torch.tensor(axes.copy()).float()


def export_encoder(model: ChronosBoltModelForForecasting, path: Path) -> None:
    """Write the whole encoder as ONNX; the number of windows and of patches stay free."""
    _export(BoltEncoder(model), path, model=model, output="embeddings")


def export_features(
    model: ChronosBoltModelForForecasting,
    path: Path,
    *,
    centre: torch.Tensor,
    axes: torch.Tensor,
) -> None:
    """Write the first block and its whitening as ONNX: what detectors are served by."""
    network = BoltFeatures(model, centre=centre, axes=axes, n_blocks=N_BLOCKS)
    _export(network, path, model=model, output="features")


def _export(
    network: torch.nn.Module, path: Path, *, model: ChronosBoltModelForForecasting, output: str
) -> None:
    settings = model.chronos_config
    n_patches = settings.context_length // settings.input_patch_size
    example = torch.ones(3, n_patches, 2 * settings.input_patch_size)
    for part in network.modules():
        config: Any = getattr(part, "config", None)
        if config is not None:
            config._attn_implementation = "eager"  # noqa: SLF001
    with warnings.catch_warnings():
        # The exporter warns of deprecations inside torch itself.
        warnings.simplefilter("ignore")
        torch.onnx.export(
            network.eval(),
            (example,),
            str(path),
            dynamo=True,
            external_data=False,
            input_names=["patches"],
            output_names=[output],
            dynamic_shapes=({0: torch.export.Dim("n_windows"), 1: torch.export.Dim("n_patches")},),
            verbose=False,
        )
    strip_traces(path)


def strip_traces(path: Path) -> None:
    """Take the exporter's stack traces out of an ONNX file: they name the machine's directories."""
    exported = onnx.load(path)
    part: Any
    for part in (exported, exported.graph, *exported.graph.node, *exported.graph.value_info):
        part.doc_string = ""
        del part.metadata_props[:]
    for part in (*exported.graph.input, *exported.graph.output, *exported.graph.initializer):
        del part.metadata_props[:]
    onnx.save(exported, path)


def save_model(
    model: ChronosBoltModelForForecasting,
    out: Path,
    *,
    pool: NDArray[np.float32],
    seed: int,
    facts: dict[str, Any],
) -> None:
    """Write weights, configuration, both ONNX files and the facts of the training into ``out``."""
    out.mkdir(parents=True, exist_ok=True)
    model.eval()
    model.instance_norm = InstanceNorm()
    model.save_pretrained(out)
    export_encoder(model, out / "model.onnx")
    centre, axes = whitening(model, pool, seed=seed)
    save_file({"centre": centre, "axes": axes}, out / "whitening.safetensors")
    export_features(model, out / "features.onnx", centre=centre, axes=axes)
    (out / "training.json").write_text(json.dumps(facts) + "\n")


# command line ------------------------------------------------------------------------------------


def _arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="streamad.training.themis", description=__doc__)
    parser.add_argument("--out", type=Path, required=True, help="directory to write the model to")
    parser.add_argument("--work", type=Path, help="directory of pool and checkpoint; default --out")
    parser.add_argument("--steps", type=int, default=Recipe().steps)
    parser.add_argument("--minutes", type=float, help="stop after this long and save what there is")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=1)
    return parser.parse_args(argv)


def _pool(config: PoolConfig, *, cache: Path, progress: Progress) -> NDArray[np.float32]:
    total = config.n_kernels * config.paths_per_kernel + config.n_base
    task = progress.add_task("series", total=total, loss="")

    def advance(n_done: int) -> None:
        progress.update(task, completed=n_done)

    pool = load_pool(config, cache=cache, progress=advance)
    progress.update(task, completed=total)
    return pool


def main(argv: Sequence[str] | None = None) -> int:
    """Train, or go on training, from the command line."""
    given = _arguments(argv)
    torch.set_num_threads(given.threads)
    work: Path = given.work or given.out
    work.mkdir(parents=True, exist_ok=True)
    shape, recipe = BoltShape(), Recipe(steps=given.steps, seed=given.seed)
    pool_config = PoolConfig(seed=given.seed)
    # The number of steps may change between runs: it only bends the fall of the learning rate.
    kept_recipe = {name: value for name, value in asdict(recipe).items() if name != "steps"}
    settings = {"shape": asdict(shape), "recipe": kept_recipe, "pool": asdict(pool_config)}
    run = start_run(shape, recipe)
    if (work / CHECKPOINT).exists():
        load_checkpoint(run, work / CHECKPOINT, settings=settings)

    begun, first_step = time.monotonic(), run.step
    columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.completed:.0f}"))
    with Progress(
        *columns, TextColumn("{task.fields[loss]}"), TimeRemainingColumn(), console=Console()
    ) as bar:
        pool = _pool(pool_config, cache=work, progress=bar)
        task = bar.add_task("steps", total=recipe.steps, completed=run.step, loss="")

        def on_step(now: Run, loss: float) -> bool:
            bar.update(task, completed=now.step, loss=f"loss {loss:.3f}")
            if now.step % SAVE_EVERY == 0:
                save_checkpoint(now, work / CHECKPOINT, settings=settings)
            return given.minutes is None or time.monotonic() - begun < 60 * given.minutes

        train(run, pool, shape=shape, recipe=recipe, on_step=on_step)
    save_checkpoint(run, work / CHECKPOINT, settings=settings)
    facts = {
        **settings,
        "planned_steps": recipe.steps,
        "parameters": sum(p.numel() for p in run.model.parameters()),
        "steps": run.step,
        "steps_per_s": round((run.step - first_step) / (time.monotonic() - begun), 2),
        "loss": [[step, round(loss, 4)] for step, loss in run.losses],
    }
    save_model(run.model, given.out, pool=pool, seed=given.seed, facts=facts)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
