"""What keeps the house in order: one version, one licence, three packages, locks without hosts."""

from __future__ import annotations

import ast
import email
import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("streamad", "connectors", "jobs")
PYPROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text())
PROJECT: dict[str, Any] = PYPROJECT["project"]
EXTRAS: dict[str, list[str]] = PROJECT["optional-dependencies"]

# A lock and the extras it holds beside the base; `all` holds every one.
LOCKS: dict[str, list[str]] = {
    "base": [],
    "dev": ["dev"],
    "test": ["dev", "train", "graphs", "vision", "bench"],
    "train": ["train"],
    "flink": ["flink"],
    "all": list(EXTRAS),
}
# What a job that only scores must never load: seconds to start and hundreds of megabytes.
HEAVY = ("torch", "pyflink", "transformers", "chronos", "onnx", "onnxscript", "torch_geometric")


def sources() -> Iterator[Path]:
    for package in PACKAGES:
        yield from sorted((ROOT / package).rglob("*.py"))


def pins(lock: str) -> dict[str, set[str]]:
    """Read the versions a lock names; a package may have one a Python version."""
    found: dict[str, set[str]] = {}
    for line in (ROOT / "requirements" / f"{lock}.txt").read_text().splitlines():
        if match := re.match(r"([A-Za-z0-9._-]+)==([^ ;]+)", line):
            found.setdefault(canonicalize_name(match[1]), set()).add(match[2])
    return found


def declared(extras: list[str]) -> list[Requirement]:
    lines = [*PROJECT["dependencies"], *(line for extra in extras for line in EXTRAS[extra])]
    return [Requirement(line) for line in lines]


def test_the_wheel_holds_exactly_the_three_packages_with_types_and_licence(tmp_path: Path):
    # A copy of what would be built: the build leaves folders beside the sources.
    for package in PACKAGES:
        shutil.copytree(ROOT / package, tmp_path / package)
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, tmp_path)
    (tmp_path / "tests").mkdir()
    (tmp_path / "tests" / "__init__.py").touch()
    script = "from setuptools import build_meta; print(build_meta.build_wheel('.'))"
    subprocess.run(
        [sys.executable, "-W", "ignore", "-c", script],
        cwd=tmp_path,
        check=True,
        capture_output=True,
    )
    (wheel,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
        metadata = email.message_from_bytes(
            archive.read(next(name for name in names if name.endswith(".dist-info/METADATA")))
        )
    tops = {name.split("/")[0] for name in names}
    assert {top for top in tops if not top.endswith(".dist-info")} == set(PACKAGES)
    assert {f"{package}/py.typed" for package in PACKAGES} <= names
    assert any(name.endswith("licenses/LICENSE") for name in names)
    assert metadata["License-Expression"] == "Apache-2.0"
    in_tree = {
        path.relative_to(ROOT).as_posix()
        for package in PACKAGES
        for path in (ROOT / package).rglob("*")
        if path.is_file() and path.suffix not in {".pyc", ".nbi", ".nbc"}
    }
    assert in_tree <= names, "files that would be missing once installed: see package-data"


@pytest.mark.parametrize("lock", [*LOCKS, "build", "uv"])
def test_a_lock_names_no_host_and_hashes_everything(lock: str):
    text = (ROOT / "requirements" / f"{lock}.txt").read_text()
    assert not re.search(r"://|--index|--find-links|--trusted-host| @ ", text)
    blocks = re.split(r"^(?=[A-Za-z0-9])", text, flags=re.MULTILINE)
    unhashed = [block.split()[0] for block in blocks if block.strip() and "--hash" not in block]
    assert not unhashed
    assert len(blocks) > 1


@pytest.mark.parametrize("lock", LOCKS)
def test_a_lock_fits_what_is_declared(lock: str):
    locked = pins(lock)
    for requirement in declared(LOCKS[lock]):
        versions = locked.get(canonicalize_name(requirement.name), set())
        assert versions, f"requirements/{lock}.txt lacks {requirement}; run `make lock`"
        wrong = {version for version in versions if version not in requirement.specifier}
        assert not wrong, f"requirements/{lock}.txt has {wrong}, not {requirement}; run `make lock`"


def test_all_locks_are_one_resolution():
    everything = pins("all")
    for lock in LOCKS:
        differing = {
            name: versions
            for name, versions in pins(lock).items()
            if not versions <= everything.get(name, set())
        }
        assert not differing, f"requirements/{lock}.txt is not a part of all.txt; run `make lock`"


def test_a_lock_holds_nothing_that_is_no_longer_declared():
    text = (ROOT / "requirements" / "all.txt").read_text()
    names = {canonicalize_name(requirement.name) for requirement in declared(list(EXTRAS))}
    for block in re.split(r"^(?=[A-Za-z0-9])", text, flags=re.MULTILINE):
        if "streamad-pipeline (pyproject.toml)" in block:
            name = canonicalize_name(block.split("==")[0])
            assert name in names, f"{name} is locked but not declared; run `make lock`"


def test_the_base_lock_holds_no_torch_and_no_java():
    assert not pins("base").keys() & {"torch", "apache-flink", "transformers", "onnx", "py4j"}


def test_changelog_and_pyproject_name_the_same_version():
    top = re.search(r"^## \[([^\]]+)\]", (ROOT / "CHANGELOG.md").read_text(), flags=re.MULTILINE)
    assert top is not None
    assert top[1] == PROJECT["version"]


def test_readme_classifiers_tools_and_metadata_name_the_same_pythons():
    supported = [
        f"3.{minor}"
        for minor in range(8, 30)
        if f"3.{minor}" in SpecifierSet(PROJECT["requires-python"])
    ]
    named = [line.rsplit(" ", 1)[1] for line in PROJECT["classifiers"] if ":: 3." in line]
    assert named == supported
    readme = (ROOT / "README.md").read_text()
    pythons = re.findall(r"Python (3\.\d+(?:(?:,| or| and|/|-) ?3\.\d+)*)", readme)
    assert pythons, "README.md does not say which Python it needs"
    for mention in pythons:
        assert set(re.findall(r"3\.\d+", mention)) <= set(supported), mention
    assert PYPROJECT["tool"]["ruff"]["target-version"] == "py" + supported[0].replace(".", "")


def test_the_licence_is_the_whole_apache_licence():
    text = (ROOT / "LICENSE").read_text()
    assert "Version 2.0, January 2004" in text
    assert "END OF TERMS AND CONDITIONS" in text


def dotted(node: ast.AST) -> str:
    """Return ``a.b.c`` of a chain of names, or an empty string."""
    if isinstance(node, ast.Attribute):
        head = dotted(node.value)
        return f"{head}.{node.attr}" if head else ""
    return node.id if isinstance(node, ast.Name) else ""


def uses(path: Path) -> set[str]:
    """Return every dotted name and imported name of a file."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        names.add(dotted(node))
        if isinstance(node, ast.ImportFrom):
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
        elif isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
    return names


def test_only_jobs_reads_the_environment():
    readers = [
        path.relative_to(ROOT).as_posix()
        for path in sources()
        if uses(path) & {"os.environ", "os.getenv", "os.environb"}
    ]
    outside = [name for name in readers if not name.startswith(("jobs/", "streamad/testing/"))]
    assert not outside, "settings come in as arguments; only jobs/ reads the environment"


def test_no_pickle_is_ever_loaded():
    forbidden = {"torch.load", "joblib.load", "pickle", "cloudpickle", "dill", "joblib", "shelve"}
    found = {
        path.relative_to(ROOT).as_posix(): sorted(found)
        for path in sources()
        if (
            found := {
                name for name in uses(path) if name in forbidden or name.startswith("pickle.")
            }
        )
    }
    # The one reader of others' checkpoints, at a user's request: weights only, which runs no code.
    official = ROOT / "streamad/training/timercd/official.py"
    assert found.pop(official.relative_to(ROOT).as_posix()) == ["torch.load"]
    calls = [
        node
        for node in ast.walk(ast.parse(official.read_text()))
        if isinstance(node, ast.Call) and ast.unparse(node.func) == "torch.load"
    ]
    named = [{k.arg: ast.unparse(k.value) for k in call.keywords} for call in calls]
    assert [one.get("weights_only") for one in named] == ["True"]
    assert not found, "a pickle runs code when it is read; arrays go through safetensors or JSON"
    allowing = [
        path.relative_to(ROOT).as_posix()
        for path in sources()
        if re.search(r"allow_pickle\s*=\s*True|weights_only\s*=\s*False", path.read_text())
    ]
    assert not allowing


def test_every_room_has_its_place_in_the_layers():
    (layers,) = (
        contract["layers"]
        for contract in PYPROJECT["tool"]["importlinter"]["contracts"]
        if contract["type"] == "layers" and "containers" not in contract
    )
    placed = set(re.findall(r"[a-z_.]+", " ".join(layers)))
    rooms = {
        f"streamad.{path.stem}"
        for path in (ROOT / "streamad").iterdir()
        if path.stem != "__init__" and (path.suffix == ".py" or (path / "__init__.py").exists())
    }
    assert rooms <= placed, "name the room in [tool.importlinter]'s layers in pyproject.toml"
    assert placed >= {"jobs", "connectors"}


# Modules of these rooms belong to an extra; no other module may need one when it is imported.
EXTRA_ROOMS = (
    "streamad.networks",
    "streamad.training",
    "streamad.runtime.keyed.flink",
    "jobs.flink",
)


def base_modules() -> list[str]:
    names = [
        ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
        for path in sources()
        if path.name != "__main__.py"
    ]
    return [name for name in names if not name.startswith(EXTRA_ROOMS)]


def test_importing_every_base_module_loads_nothing_heavy():
    script = (
        "import importlib, sys\n"
        f"for name in {base_modules()!r}:\n"
        "    importlib.import_module(name)\n"
        f"    heavy = [h for h in {HEAVY!r} if h in sys.modules]\n"
        "    assert not heavy, f'{name} loads {heavy}'\n"
    )
    ended = subprocess.run(
        [sys.executable, "-c", script], check=False, capture_output=True, text=True, cwd=ROOT
    )
    assert ended.returncode == 0, ended.stderr


def test_asking_the_command_for_help_loads_neither_models_nor_kafka():
    script = (
        "import sys, jobs.cli\n"
        f"slow = {{*{HEAVY!r}, 'kafka', 'sklearn', 'pyod'}} & sys.modules.keys()\n"
        "assert not slow, slow\n"
    )
    ended = subprocess.run(
        [sys.executable, "-c", script], check=False, capture_output=True, text=True, cwd=ROOT
    )
    assert ended.returncode == 0, ended.stderr


def _names_of(module: str) -> set[str] | None:
    """Return what a module of ours has at its top, None where there is no such module."""
    place = ROOT.joinpath(*module.split("."))
    package = place / "__init__.py"
    file = package if package.exists() else place.with_suffix(".py")
    if not file.exists():
        # A folder of scripts without an `__init__.py` is a package too.
        return {one.stem for one in place.glob("*.py")} if place.is_dir() else None
    names = {one.stem for one in place.iterdir()} if package.exists() else set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.ClassDef | ast.FunctionDef):
            names.add(node.name)
        elif isinstance(node, ast.Import | ast.ImportFrom):
            names |= {(one.asname or one.name).partition(".")[0] for one in node.names}
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            names.add(node.id)
    return names


def test_scripts_that_no_test_runs_import_what_is_there():
    """Benchmarks take hours and are run by people: a name that moved would be seen too late."""
    missing = []
    for script in (ROOT / "tests").rglob("*.py"):
        for node in ast.walk(ast.parse(script.read_text())):
            if not isinstance(node, ast.ImportFrom) or node.level or node.module is None:
                continue
            if node.module.partition(".")[0] not in {"streamad", "connectors", "jobs", "tests"}:
                continue
            names = _names_of(node.module)
            lacking = [one.name for one in node.names if names is None or one.name not in names]
            missing += [f"{script.relative_to(ROOT)}: {node.module}.{one}" for one in lacking]
    assert not missing
