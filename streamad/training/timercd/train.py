"""Pretrain TimeRCD: batches from background workers, validation, checkpoints that resume."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch

from streamad.errors import ConfigError
from streamad.networks.timercd import TimeRCDConfig, paper
from streamad.training.corpus import Batches, BatchPlan
from streamad.training.timercd.check import held_out, validate
from streamad.training.timercd.checkpoint import (
    CHECKPOINT,
    begin_with,
    load_checkpoint,
    save_checkpoint,
)
from streamad.training.timercd.recipe import Recipe, Run, learning_rate, start_run, train_step

REPORT_EVERY: Final = 50
"""Steps averaged in one row of the loss curve."""
FREE: Final = ("steps", "minutes", "half", "start")
"""Settings of a recipe that may change when a training resumes: most bend the rate alone."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Pace:
    """How a training is run: what changes nothing about its result but for rounding.

    workers : processes that make batches (0: a thread); validate_every : steps; save_every : s
    threads : of torch on the CPU; device : ``"cpu"``, ``"cuda"``, or any other of torch
    """

    workers: int = 0
    threads: int = 1
    device: str = "cpu"
    validate_every: int = 500
    save_every: float = 60.0


def settings_of(config: TimeRCDConfig, recipe: Recipe, plan: BatchPlan) -> dict[str, Any]:
    """Return what a checkpoint must agree with."""
    fixed = {name: value for name, value in asdict(recipe).items() if name not in FREE}
    return {"network": asdict(config), "recipe": fixed, "plan": asdict(plan)}


def pretrain(
    out: Path,
    *,
    config: TimeRCDConfig,
    recipe: Recipe,
    plan: BatchPlan,
    pace: Pace,
    on_step: Callable[[Run, float], None] = lambda _run, _loss: None,
) -> Run:
    """Train until the recipe's steps or minutes are used up; resume what ``out`` holds.

    ``on_step`` is called after every step with the run and its latest mean loss. Every report and
    validation is also a line of ``log.jsonl`` in ``out``. An interrupt saves a checkpoint first.
    Raises ArtifactError where ``out`` holds a checkpoint of other settings, ConfigError where torch
    has no such device.
    """
    _require_device(pace.device)
    torch.set_num_threads(pace.threads)
    out.mkdir(parents=True, exist_ok=True)
    settings = settings_of(config, recipe, plan)
    run = start_run(config, recipe, device=pace.device)
    path = out / CHECKPOINT
    if path.exists():
        load_checkpoint(run, path, settings=settings)
    elif recipe.start is not None:
        begin_with(run, recipe.start)
    log = out / "log.jsonl"
    with Batches(plan, first=run.step, workers=pace.workers) as batches:
        try:
            _train(run, batches, recipe, pace, _Reports(log, plan, path, settings), on_step)
        finally:
            save_checkpoint(run, path, settings=settings)
    return run


@dataclass(frozen=True, slots=True)
class _Reports:
    log: Path
    plan: BatchPlan
    checkpoint: Path
    settings: dict[str, Any]

    def note(self, **row: float) -> None:
        with self.log.open("a") as lines:
            lines.write(json.dumps({k: round(float(v), 5) for k, v in row.items()}) + "\n")


def _train(
    run: Run,
    batches: Batches,
    recipe: Recipe,
    pace: Pace,
    reports: _Reports,
    on_step: Callable[[Run, float], None],
) -> None:
    recent: list[tuple[float, float]] = []
    last = saved = time.monotonic()
    latest = float("nan")
    while run.progress(recipe) < 1.0:
        recent.append(train_step(run, batches.take(), recipe))
        now = time.monotonic()
        run.seconds, last = run.seconds + now - last, now
        if run.step % REPORT_EVERY == 0:
            labelled, again = np.mean(recent, axis=0)
            rate = learning_rate(run.step, run.progress(recipe), recipe)
            latest = float(labelled)
            run.curve.append((float(run.step), latest, float(again), rate))
            reports.note(
                step=run.step,
                classification=labelled,
                reconstruction=again,
                rate=rate,
                seconds=run.seconds,
            )
            recent = []
        if run.step % pace.validate_every == 0:
            checked = {"step": float(run.step), **validate(run.averaged, held_out(reports.plan))}
            run.checked.append(checked)
            reports.note(**checked)
        if now - saved > pace.save_every:
            save_checkpoint(run, reports.checkpoint, settings=reports.settings)
            saved = now
        on_step(run, latest)


def network_config(size: str) -> TimeRCDConfig:
    """Return a configuration by name, ``"small"`` or ``"paper"``; raises ConfigError."""
    named = {"small": TimeRCDConfig(), "paper": paper(multivariate=True)}
    if size not in named:
        msg = f"size must be one of {sorted(named)}, got {size!r}"
        raise ConfigError(msg)
    return named[size]


def _require_device(device: str) -> None:
    try:
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError) as error:
        msg = f"torch has no device {device!r} here: {str(error).splitlines()[0]}; try --device cpu"
        raise ConfigError(msg) from error
