"""From a pipeline file to the operator that judges it: detector, artifact, fallback."""

from __future__ import annotations

import inspect
import json
import typing
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import TypeAdapter, ValidationError

from streamad.artifacts import Manifest, load_artifact, load_seeds
from streamad.config import PipelineConfig
from streamad.detectors import DETECTORS
from streamad.detectors.contract import DetectorInfo, ItemDetector
from streamad.errors import ArtifactError, ConfigError, UnfitArtifactError, WindowError, nearest
from streamad.modalities import MODALITIES
from streamad.operators.detect import DetectOperator
from streamad.shown import is_secret_name, safe_text, without_credentials

FALLBACK = "robust_z"
"""Judges where a detector that needs training cannot be loaded: it needs nothing but the window."""


def build_detect(config: PipelineConfig, *, strict: bool = False) -> DetectOperator:
    """Return the detect operator of a pipeline.

    An artifact that does not fit the pipeline is refused. One that is missing or damaged is refused
    when ``strict``; otherwise the detector starts without it, or `FALLBACK` judges in its place
    where it needs training, and every finding says why (``degraded``).
    """
    check_detector(config)
    if config.detector.artifact is None:
        require_trained(config)
        return DetectOperator(config, make_detector(config))
    try:
        detector, manifest = load_artifact(config.detector.artifact, config)
    except UnfitArtifactError:
        raise
    except ArtifactError as error:
        if strict:
            raise
        return _degraded(config, str(error))
    return from_artifact(
        config, detector, manifest, seeds=load_seeds(config.detector.artifact, manifest)
    )


def from_artifact(
    config: PipelineConfig,
    detector: ItemDetector[Any],
    manifest: Manifest,
    *,
    seeds: NDArray[np.float32] | None = None,
) -> DetectOperator:
    """Return the operator of a detector that was loaded or just fitted."""
    return DetectOperator(
        config,
        detector,
        artifact=manifest.id,
        groups=manifest.group_numbers,
        tail=manifest.tail,
        seeds=seeds,
    )


def _degraded(config: PipelineConfig, why: str) -> DetectOperator:
    # Every finding and alert repeats it.
    why = safe_text(without_credentials(why))
    info = detector_info(config.detector.name)
    if not info.needs_training:
        return DetectOperator(
            config, make_detector(config), degraded=f"scoring without its artifact: {why}"
        )
    reason = f"{FALLBACK} stands in for {info.name}: {why}"
    return DetectOperator(config, make(FALLBACK, size=_fallback_size(config)), degraded=reason)


def _fallback_size(config: PipelineConfig) -> int | None:
    size = config.windows.size
    return None if size == "auto" else max(size, detector_info(FALLBACK).min_size)


def detector_info(name: str) -> DetectorInfo:
    """Return what a detector declares about itself; an unknown name says the nearest right one."""
    info: DetectorInfo = DETECTORS.load(name).info
    return info


def records_of(name: str) -> str:
    """Return what the records hold that a detector judges, a value of ``input.records``."""
    records: str = MODALITIES.load(detector_info(name).modality).records
    return records


def make_detector(config: PipelineConfig, *, size: int | None = None) -> ItemDetector[Any]:
    """Return the configured detector, not fitted; ``windows.size: auto`` is its default size."""
    given = config.windows.size
    chosen = size if given == "auto" else given
    return make(config.detector.name, size=chosen, params=settled(config).detector.params)


DAY_MS = 86_400_000
REMEMBERED_DAYS = 1.25
MOST_REMEMBERED = 4_096
"""A memory holds a day and a quarter where that is so many samples at the most."""


def settled(config: PipelineConfig) -> PipelineConfig:
    """Return the pipeline with the detector's memory long enough for what repeats daily.

    A detector that has seen less than a day is surprised by each hour of the next one.
    """
    params, step = config.detector.params, config.series.step
    if step is None or "history" in params or "history" not in parameters(config.detector.name):
        return config
    samples = round(REMEMBERED_DAYS * DAY_MS / (step * config.windows.stride))
    default = inspect.signature(DETECTORS.load(config.detector.name).__init__).parameters["history"]
    if not default.default < samples <= MOST_REMEMBERED:
        return config
    chosen = config.detector.model_copy(update={"params": {**params, "history": samples}})
    return config.model_copy(update={"detector": chosen})


def make(
    name: str, *, size: int | None = None, params: Mapping[str, Any] | None = None
) -> ItemDetector[Any]:
    """Return a detector by name; wrong parameters are told with the nearest right one."""
    kind = DETECTORS.load(name)
    given = dict(params or {})
    check_params(name, given)
    sized = {"size": size} if "size" in inspect.signature(kind).parameters else {}
    try:
        made: ItemDetector[Any] = kind(**sized, **given)
    except (WindowError, ValueError, TypeError) as error:
        msg = f"detector {name!r}: {error}"
        raise ConfigError(msg) from error
    return made


def check_params(name: str, params: Mapping[str, Any]) -> None:
    """Refuse parameters a detector does not have, or of another type than it takes."""
    known = parameters(name)
    for got, value in params.items():
        if got == "size":
            msg = "detector.params.size: the size of a window is set as windows.size"
            raise ConfigError(msg)
        if got not in known:
            near = nearest(got, known)
            listed = f"it has: {', '.join(known)}" if known else "it has none"
            hint = f"did you mean {near!r}?" if near else listed
            msg = f"detector.params.{got}: {name} has no such parameter; {hint}"
            raise ConfigError(msg)
        try:
            # As JSON: there a list may be a tuple.
            TypeAdapter(known[got]).validate_json(json.dumps(value, default=str), strict=True)
        except ValidationError as error:
            said = error.errors()[0]["msg"].replace("Input should be", "expected")
            shown = "a value that is not shown" if is_secret_name(got) else repr(value)
            msg = f"detector.params.{got}: {said}, got {without_credentials(shown)}"
            raise ConfigError(msg) from error


def parameters(name: str) -> dict[str, Any]:
    """Return the parameters of a detector and their types, ``size`` apart."""
    kind = DETECTORS.load(name)
    hints = typing.get_type_hints(kind.__init__)
    signature = inspect.signature(kind.__init__)
    return {
        parameter.name: hints.get(parameter.name, Any)
        for parameter in signature.parameters.values()
        if parameter.kind == parameter.KEYWORD_ONLY and parameter.name != "size"
    }


def check_detector(config: PipelineConfig) -> None:
    """Refuse a detector that cannot judge this pipeline's windows, before anything is loaded."""
    chosen = config.detector
    info = detector_info(chosen.name)
    check_params(chosen.name, chosen.params)
    names = config.input.fields.variate_names
    records = MODALITIES.load(info.modality).records
    if records != config.input.records:
        msg = (
            f"detector.name: {info.name} scores {info.modality}, made of records: {records}, and "
            f"this pipeline has input.records: {config.input.records}"
        )
        raise ConfigError(msg)
    if len(names) > 1 and not info.multivariate:
        msg = (
            f"detector.name: {info.name} scores one variate, and input.fields has {len(names)} "
            f"({', '.join(names)}); take one of them, or another detector"
        )
        raise ConfigError(msg)
    size = config.windows.size
    if size != "auto" and size < info.min_size:
        msg = (
            f"windows.size: {info.name} needs windows of at least {info.min_size} samples, got "
            f"{size}; raise it"
        )
        raise ConfigError(msg)


def require_trained(config: PipelineConfig) -> None:
    """Refuse a detector that needs training where no artifact is named."""
    info = detector_info(config.detector.name)
    if info.needs_training and config.detector.artifact is None:
        msg = (
            f"detector.artifact: {info.name} needs an artifact, and none is set; make one with "
            f"'streamad fit {info.name} TRAIN.csv -o DIR' and set detector.artifact: DIR"
        )
        raise ConfigError(msg)
