"""Images and the compose file: linted, and their start rehearsed. No container engine runs here."""

from __future__ import annotations

import json
import os
import re
import subprocess
from pathlib import Path

import jsonschema
import pytest
import yaml

from jobs.build import detector_info
from streamad.alerting.config import AlertingConfig
from streamad.config import PipelineConfig
from tests.chart.rendering import ROOT, TOOLS, tool

IMAGES = ROOT / "images"
FILES = sorted(IMAGES.glob("*/Dockerfile"))
COMPOSE = yaml.safe_load((IMAGES / "compose.yaml").read_text())


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.parent.name)
def test_hadolint_finds_nothing(path: Path):
    made = subprocess.run(
        [tool("hadolint"), "--failure-threshold", "info", str(path)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert made.returncode == 0, made.stdout


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.parent.name)
def test_bases_are_pinned_users_are_numbers_and_what_is_copied_is_there(path: Path):
    text = path.read_text()
    arguments = dict(re.findall(r"^ARG (\w+)=(\S+)$", text, re.MULTILINE))
    stages = set(re.findall(r"^FROM \S+ AS (\w+)$", text, re.MULTILINE))
    for base in re.findall(r"^FROM (\S+)", text, re.MULTILINE):
        named = arguments[base.strip("${}")] if base.startswith("$") else base
        # The image of plain jobs is the builder's own.
        assert "@sha256:" in named or named.startswith("streamad:"), base
    assert re.findall(r"^USER (\S+)$", text, re.MULTILINE)[-1] in ("10001:10001", "9999:9999")
    for line in re.findall(r"^COPY (?!--from)(.+)$", text, re.MULTILINE):
        *sources, _ = line.split()
        assert all((ROOT / one).exists() for one in sources), line
    for stage in re.findall(r"--from=(\w+)", text):
        assert stage in stages


def test_the_compose_file_fits_its_schema_and_what_it_mounts_is_there():
    tool("helm-unittest")  # stands for all of `make chart-tools`
    schema = json.loads((TOOLS / "compose-spec.json").read_text())
    # Its draft is 7, under an address that the library writes without encryption.
    jsonschema.Draft7Validator(schema).validate(COMPOSE)
    for name, service in COMPOSE["services"].items():
        if "build" not in service:
            assert re.search(r"@sha256:[0-9a-f]{64}$", service["image"]), name
        for volume in service.get("volumes", []):
            source = volume.split(":")[0]
            assert not source.startswith(".") or (IMAGES / source).exists(), volume
    folder = IMAGES / "compose"
    PipelineConfig.model_validate(yaml.safe_load((folder / "pipeline.yaml").read_text()))
    AlertingConfig.model_validate(yaml.safe_load((folder / "alerting.yaml").read_text()))


def test_kernels_are_compiled_by_detectors_that_run_as_they_are_called():
    text = (IMAGES / "compile-kernels").read_text()
    lists = dict(re.findall(r"^for (\w+) in (.+); do$", text, re.MULTILINE))
    trained = {
        name: detector_info(name).needs_training for name in " ".join(lists.values()).split()
    }
    assert not any(trained[name] for name in lists["detector"].split())
    assert all(trained[name] for name in lists["trained"].split())


def test_the_start_lays_kernels_down_once_and_becomes_the_job(tmp_path: Path):
    kernels, cache = tmp_path / "kernels", tmp_path / "cache"
    kernels.mkdir()
    cache.mkdir()
    (kernels / ".image").write_text("one")
    (kernels / "a.nbi").write_text("index")
    job = tmp_path / "job"
    job.write_text('#!/bin/sh\necho "$$ $@"\nexit 3\n')
    job.chmod(0o755)

    def start() -> subprocess.CompletedProcess[str]:
        environment = {
            "PATH": os.environ["PATH"],
            "STREAMAD_KERNELS": str(kernels),
            "NUMBA_CACHE_DIR": str(cache),
            "STREAMAD_COMMAND": str(job),
        }
        return subprocess.run(
            [str(IMAGES / "start"), "run", "a b.yaml"],
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )

    first = start()
    assert first.returncode == 3
    assert first.stdout.split(maxsplit=1)[1] == "run a b.yaml\n"
    (cache / "a.nbi").write_text("grown")
    assert start().returncode == 3
    assert (cache / "a.nbi").read_text() == "grown"
    (kernels / ".image").write_text("two")
    start()
    assert (cache / "a.nbi").read_text() == "index"
    # A folder that cannot be written must not keep the job from starting.
    cache.joinpath("a.nbi").unlink()
    cache.joinpath(".image").unlink()
    (kernels / ".image").unlink()
    assert start().returncode == 3
