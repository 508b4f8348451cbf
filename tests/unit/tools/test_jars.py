"""Jars are used only where they are byte by byte those that the repository lists."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path
from xml.etree import ElementTree

import pytest

from streamad.testing.jars import differences, main

ROOT = Path(__file__).resolve().parents[3]
NAMESPACE = {"m": "http://maven.apache.org/POM/4.0.0"}


@pytest.fixture
def jars(tmp_path: Path) -> tuple[Path, Path]:
    """A folder with two jars, and the list of them."""
    folder, listed = tmp_path / "libs", tmp_path / "jars.sha256"
    folder.mkdir()
    lines = []
    for name in ("one-1.0.jar", "two-2.0.jar"):
        (folder / name).write_bytes(name.encode())
        lines.append(f"{hashlib.sha256(name.encode()).hexdigest()}  {name}\n")
    listed.write_text("".join(lines))
    return folder, listed


def test_the_listed_jars_are_accepted(jars):
    assert differences(*jars) == []
    assert main([str(part) for part in jars]) == 0


def test_a_jar_with_another_byte_is_refused(jars, capsys):
    (jars[0] / "one-1.0.jar").write_bytes(b"one-1.0.jaR")
    assert main([str(part) for part in jars]) == 1
    assert "one-1.0.jar: expected the SHA-256" in capsys.readouterr().err


def test_a_jar_more_or_less_is_refused(jars):
    (jars[0] / "two-2.0.jar").rename(jars[0] / "three.jar")
    found = differences(*jars)
    assert [line.partition(":")[0] for line in found] == ["three.jar", "two-2.0.jar"]


def test_a_list_that_cannot_be_read_is_no_empty_list(jars):
    jars[1].write_text("nothing\n")
    with pytest.raises(ValueError, match="expected lines of a SHA-256"):
        differences(*jars)


@pytest.mark.parametrize("kind", ["flink", "kafka"])
def test_the_list_names_the_versions_of_the_pom(kind: str):
    listed = (ROOT / "tests" / kind / "jars.sha256").read_text()
    pom = ElementTree.parse(ROOT / "tests" / kind / "pom.xml")  # noqa: S314 - a file of ours
    for one in pom.iterfind(".//m:dependency", NAMESPACE):
        name = one.findtext("m:artifactId", None, NAMESPACE)
        version = one.findtext("m:version", None, NAMESPACE)
        assert f"  {name}-{version}.jar\n" in listed


def test_make_checks_what_it_fetches():
    makefile = (ROOT / "Makefile").read_text()
    assert makefile.count("mvn --strict-checksums") == 2
    assert len(re.findall(r"streamad/testing/jars\.py .*\.part tests/", makefile)) == 2
