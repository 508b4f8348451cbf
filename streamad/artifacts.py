"""Artifacts: what a detector learned, as a directory that says what it is, whole and unforgeable.

``manifest.json`` says which detector, trained on what; ``weights.safetensors`` holds its named
arrays, ``calibration.safetensors`` the block maxima of the training series; files such as
``model.onnx`` may lie beside. Every file's SHA-256 stands in the manifest, and the artifact's id is
the hash of it all: equal training gives equal ids. No pickle is read.
"""

from __future__ import annotations

import hashlib
import inspect
import json
import shutil
import typing
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Final, Literal

import fsspec
import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError
from safetensors import SafetensorError
from safetensors.numpy import load as load_arrays
from safetensors.numpy import save as dump_arrays

from streamad.artifact_files import FILE_NAME, named, read_file, require_known_store, shown
from streamad.config import PipelineConfig
from streamad.config.input import BY_ROLE, FieldsConfig
from streamad.detectors import DETECTORS
from streamad.detectors.contract import Arrays, ItemDetector
from streamad.errors import ArtifactError, StreamadError, UnfitArtifactError

FORMAT: Final = 1
MANIFEST = "manifest.json"
WEIGHTS = "weights.safetensors"
SEEDS = "calibration.safetensors"
PREVIOUS = ".{}.previous"
"""Where the artifact stays that stood in a folder before: what a job judged beside it since its
last snapshot can be judged the same again only beside it."""
_UNIDENTIFIED = ("id", "created", "files")


MAX_MANIFEST_BYTES = 64 * 2**20
"""A name of 500 bytes for each of 100,000 groups."""

MAX_FILES, MAX_VARIATES = 32, 10_000
MAX_WHOLE = 2**31
"""No parameter counts so far."""

FileName = Annotated[str, Field(pattern=FILE_NAME)]
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class TrainingRange(_Part):
    """What the detector was fitted on: how much, and from when to when (event time)."""

    rows: int = 0
    windows: int = 0
    from_ms: int | None = None
    to_ms: int | None = None


class SeriesShape(_Part):
    """The settings that give a sample its meaning; they must be those of the pipeline."""

    kind: str = "gauge"
    step: int | None = None
    aggregate: str = "mean"


class Manifest(_Part):
    """What ``manifest.json`` says.

    id : hash of all else but ``created``; groups : keys the detector was fitted on, in the order of
    its groups; tail : raw scores at the tail probabilities 1e-1 to 1e-4, measured out of sample on
    ``tail_windows`` windows (None: too few; the detector's own holds); files : name to SHA-256.
    """

    format: Literal[1] = FORMAT
    id: str = ""
    detector: str
    detector_version: str = ""
    params: dict[str, Any] = Field(default_factory=dict)
    size: int = Field(ge=1, le=8192)
    stride: int = Field(default=1, ge=1, le=8192)
    records: str = "signals"
    variates: tuple[str, ...] = Field(min_length=1, max_length=MAX_VARIATES)
    fields: FieldsConfig = FieldsConfig()
    series: SeriesShape = SeriesShape()
    config_checksum: str = ""
    trained: TrainingRange = TrainingRange()
    groups: tuple[str, ...] = ()
    tail: tuple[float, float, float, float] | None = None
    tail_windows: int = 0
    licence: str = ""
    created: str = ""
    files: dict[FileName, Sha256] = Field(default_factory=dict, max_length=MAX_FILES)

    @property
    def group_numbers(self) -> dict[str, int]:
        """Return the training group of each key the detector was fitted on."""
        return {name: number for number, name in enumerate(self.groups)}


def save_artifact(
    url: str | Path,
    detector: ItemDetector[Any],
    manifest: Manifest,
    *,
    seeds: NDArray[np.float32] | None = None,
    files: Mapping[str, bytes] | None = None,
) -> Manifest:
    """Write a fitted detector; return the manifest with its id and hashes.

    On a local disk the directory appears whole or not at all. On a remote store the manifest is
    written last: without it a reader sees no artifact.
    """
    arrays = {name: np.ascontiguousarray(value) for name, value in detector.state().items()}
    parts: dict[str, bytes] = {WEIGHTS: dump_arrays(arrays), **(files or {})}
    if seeds is not None:
        parts[SEEDS] = dump_arrays({"maxima": np.ascontiguousarray(seeds)})
    sealed = _seal(manifest, parts)
    require_known_store(url)
    parts[MANIFEST] = (sealed.model_dump_json(indent=1) + "\n").encode()
    fs, path = fsspec.core.url_to_fs(str(url))
    if "file" in _protocols(fs):
        _replace_directory(Path(path), parts)
        return sealed
    fs.makedirs(path, exist_ok=True)
    for name, content in parts.items():
        fs.pipe_file(f"{path}/{name}", content)
    return sealed


def load_manifest(url: str | Path) -> Manifest:
    """Read what an artifact says of itself; ArtifactError where there is none or it is damaged."""
    try:
        told = json.loads(read_file(url, MANIFEST, at_most=MAX_MANIFEST_BYTES))
        if isinstance(told, dict) and told.get("format") != FORMAT:
            msg = (
                f"{named(url)}: format {told.get('format')!r} is not the one this version reads "
                f"({FORMAT}); fit it again, or use the version that wrote it"
            )
            raise ArtifactError(msg)
        return Manifest.model_validate(told)
    except (ValidationError, ValueError, RecursionError) as error:
        msg = (
            f"{named(url)}: damaged, its {MANIFEST} cannot be read ({_first(error)}); fit it again"
        )
        raise ArtifactError(msg) from error


def load_artifact(
    url: str | Path, config: PipelineConfig | None = None
) -> tuple[ItemDetector[Any], Manifest]:
    """Read an artifact back: the detector, ready to score, and its manifest.

    config : the pipeline it must fit. All of the manifest is checked, and every file, before a
    detector is made of it; parameters that load from elsewhere (a model by its name) count only
    where the pipeline has the same.
    """
    manifest = load_manifest(url)
    if config is not None:
        require_fit(manifest, config)
    parts = {name: read_file(url, name) for name in manifest.files}
    _require_whole(url, manifest, parts)
    try:
        kind: type[ItemDetector[Any]] = DETECTORS.load(manifest.detector)
        _require_parameters(kind, manifest, {} if config is None else config.detector.params)
        arrays = _arrays(parts)
        for name in kind.finite:
            if name in arrays and not np.isfinite(arrays[name]).all():
                msg = f"{name} holds values that are not finite"
                raise ArtifactError(msg)
        sized = {"size": manifest.size} if "size" in inspect.signature(kind).parameters else {}
        detector = kind(**sized, **manifest.params)
        return detector.load(arrays), manifest
    except UnfitArtifactError:
        raise
    except (
        TypeError,
        KeyError,
        ValueError,
        IndexError,
        ImportError,
        OSError,
        ValidationError,
        SafetensorError,
        StreamadError,
    ) as error:
        msg = (
            f"{named(url)}: {manifest.detector} cannot take it ({_first(error)}); "
            "fit it again with this version"
        )
        raise ArtifactError(msg) from error


def load_seeds(url: str | Path, manifest: Manifest) -> NDArray[np.float32] | None:
    """Read the block maxima of an artifact's training groups; None where it holds none."""
    if SEEDS not in manifest.files:
        return None
    content = read_file(url, SEEDS)
    _require_whole(url, manifest, {WEIGHTS: read_file(url, WEIGHTS), SEEDS: content})
    try:
        maxima = np.array(load_arrays(content)["maxima"], np.float32)
    except (KeyError, ValueError, SafetensorError) as error:
        msg = f"{named(url)}: {SEEDS} is damaged ({error}); fit it again"
        raise ArtifactError(msg) from error
    if maxima.ndim != 3:
        msg = f"{named(url)}: {SEEDS} has the shape {maxima.shape}, expected 3 axes; fit it again"
        raise ArtifactError(msg)
    if np.isinf(maxima).any():
        msg = f"{named(url)}: {SEEDS} holds infinite values; fit it again"
        raise ArtifactError(msg)
    return maxima


def differences(manifest: Manifest, config: PipelineConfig) -> list[str]:
    """Return what keeps an artifact from serving a pipeline, one sentence each; empty: it fits."""
    chosen, series = config.detector, config.series
    pairs: list[tuple[str, Any, Any]] = [("detector.name", manifest.detector, chosen.name)]
    if config.windows.size != "auto":
        pairs.append(("windows.size", manifest.size, config.windows.size))
    pairs.append(("input.records", manifest.records, config.input.records))
    names = config.input.columns
    # What a single variate is called in training data says nothing: there is no order to mistake.
    lone = len(names) == len(manifest.variates) == 1 and manifest.records == "signals"
    if not lone and manifest.records not in BY_ROLE:
        pairs.append(("the variates", list(manifest.variates), list(names)))
    for name, value in chosen.params.items():
        pairs.append((f"detector.params.{name}", manifest.params.get(name, "the default"), value))
    shape = manifest.series
    # What says nothing of its kind is a gauge.
    theirs, ours = (kind.replace("auto", "gauge") for kind in (shape.kind, series.kind))
    pairs.append(("series.kind", theirs, ours))
    pairs.append(("series.step", _step(shape.step), _step(series.step)))
    if shape.step is not None:
        pairs.append(("series.aggregate", shape.aggregate, series.aggregate))
    return [
        f"{what}: the artifact has {theirs}, the pipeline {ours}"
        for what, theirs, ours in pairs
        if theirs != ours
    ]


def require_fit(manifest: Manifest, config: PipelineConfig) -> None:
    """Refuse an artifact that does not fit the pipeline, with every difference."""
    found = differences(manifest, config)
    if found:
        msg = (
            f"{named(config.detector.artifact)} does not fit pipeline {config.name!r}: "
            f"{'; '.join(found)}. Change the pipeline, or fit an artifact for it"
        )
        raise UnfitArtifactError(msg)


def _require_parameters(
    kind: type[ItemDetector[Any]], manifest: Manifest, given: Mapping[str, Any]
) -> None:
    """Refuse parameters that a detector does not have, of another type, or from elsewhere."""
    hints = typing.get_type_hints(kind.__init__)
    known = inspect.signature(kind.__init__).parameters
    for name, value in manifest.params.items():
        if name not in known or name == "size":
            msg = f"params: it has no parameter {name!r}"
            raise ArtifactError(msg)
        if name in hints:
            TypeAdapter(hints[name]).validate_json(json.dumps(value), strict=True)
        if isinstance(value, int) and abs(value) >= MAX_WHOLE:
            msg = f"params.{name}: expected a number below {MAX_WHOLE}, got {value}"
            raise ArtifactError(msg)
        if name in kind.from_elsewhere and value not in (known[name].default, given.get(name)):
            msg = (
                f"the artifact has detector.params.{name} = {shown(value)!r}, which is loaded from "
                "elsewhere; set the same in the pipeline, if that is wanted"
            )
            raise UnfitArtifactError(msg)


def _first(error: Exception) -> str:
    """Return an error in one line, without the values that it was made of."""
    if isinstance(error, ValidationError):
        problem = error.errors()[0]
        path = ".".join(str(part) for part in problem["loc"])
        return shown(f"{path}: {problem['msg']}" if path else problem["msg"])
    return shown(str(error).partition("\n")[0])


def _step(step: int | None) -> str:
    return "none" if step is None else f"{step} ms"


def _seal(manifest: Manifest, parts: Mapping[str, bytes]) -> Manifest:
    hashes = {name: hashlib.sha256(content).hexdigest() for name, content in sorted(parts.items())}
    return manifest.model_copy(update={"files": hashes, "id": _identity(manifest, hashes)})


def _identity(manifest: Manifest, hashes: Mapping[str, str]) -> str:
    told = manifest.model_dump(mode="json", exclude=set(_UNIDENTIFIED))
    text = json.dumps([told, sorted(hashes.items())], sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _require_whole(url: str | Path, manifest: Manifest, parts: Mapping[str, bytes]) -> None:
    for name, content in parts.items():
        if hashlib.sha256(content).hexdigest() != manifest.files[name]:
            msg = f"{named(url)}: {name} is damaged (its SHA-256 differs); copy or fit it again"
            raise ArtifactError(msg)
    if WEIGHTS not in parts or _identity(manifest, manifest.files) != manifest.id:
        msg = f"{named(url)}: {MANIFEST} was changed after it was written; copy or fit it again"
        raise ArtifactError(msg)


def _arrays(parts: Mapping[str, bytes]) -> Arrays:
    # Arrays made from a buffer are read-only, and compiled code was built for writable ones.
    return {name: np.array(value) for name, value in load_arrays(parts[WEIGHTS]).items()}


def _protocols(fs: Any) -> tuple[str, ...]:
    return (fs.protocol,) if isinstance(fs.protocol, str) else tuple(fs.protocol)


def _replace_directory(target: Path, parts: Mapping[str, bytes]) -> None:
    """Write beside, then rename; what was there before stays as `PREVIOUS`, until the next time."""
    foreign = target.exists() and not (target / MANIFEST).exists()
    if foreign and (not target.is_dir() or any(target.iterdir())):
        msg = f"{target} exists and is no artifact; name another place, or remove it"
        raise ArtifactError(msg)
    mark = uuid.uuid4().hex[:8]
    fresh = target.with_name(f".{target.name}.{mark}.new")
    stale = target.with_name(f".{target.name}.{mark}.old")
    try:
        fresh.mkdir(parents=True)
        for name, content in parts.items():
            (fresh / name).write_bytes(content)
        if target.exists():
            target.rename(stale)
        fresh.rename(target)
        if (stale / MANIFEST).exists():
            kept = target.with_name(PREVIOUS.format(target.name))
            shutil.rmtree(kept, ignore_errors=True)
            stale.rename(kept)
    except OSError as error:
        if stale.exists() and not target.exists():
            stale.rename(target)
        msg = f"artifact {target}: cannot be written ({error})"
        raise ArtifactError(msg) from error
    finally:
        shutil.rmtree(fresh, ignore_errors=True)
        shutil.rmtree(stale, ignore_errors=True)
