"""Whether a folder holds the jars it should, byte by byte: ``python jars.py FOLDER LIST``.

Maven warns of a wrong checksum and installs the jar all the same, and the checksum comes from the
host that the jar came from. The list is in the repository, in the form that ``sha256sum`` writes.
It needs the standard library only: `make` runs it before anything is installed.
"""

from __future__ import annotations

import hashlib
import re
import sys
from pathlib import Path

_LINE = re.compile(r"([0-9a-f]{64})  ([A-Za-z0-9._-]+\.jar)")


def differences(folder: Path, listed: Path) -> list[str]:
    """Return what is wrong with the jars of a folder, one line each; empty: they are the listed."""
    wanted = _wanted(listed)
    found = {path.name: path for path in folder.glob("*") if not path.name.startswith(".")}
    wrong = [
        f"{name}: is not in {listed}; remove it, or list it" for name in found if name not in wanted
    ]
    for name, checksum in wanted.items():
        if name not in found:
            wrong.append(f"{name}: is listed in {listed} and was not fetched; fetch it again")
            continue
        got = _sha256(found[name])
        if got != checksum:
            wrong.append(
                f"{name}: expected the SHA-256 {checksum}, got {got}; do not use it: "
                "remove it from ~/.m2 and fetch it again"
            )
    return wrong


def _wanted(listed: Path) -> dict[str, str]:
    wanted = {}
    for line in listed.read_text(encoding="utf-8").splitlines():
        match = _LINE.fullmatch(line)
        if match is None:
            msg = f"{listed}: expected lines of a SHA-256 and the name of a jar, got {line[:80]!r}"
            raise ValueError(msg)
        wanted[match[2]] = match[1]
    return wanted


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def main(arguments: list[str]) -> int:
    """Print what is wrong; return the exit code."""
    folder, listed = map(Path, arguments)
    wrong = differences(folder, listed)
    for line in wrong:
        sys.stderr.write(f"{line}\n")
    return 1 if wrong else 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
