"""Plain words in what people read: the documents, and the messages of the code."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PAGES = [
    ROOT / "README.md",
    ROOT / "CHANGELOG.md",
    *sorted((ROOT / "docs").glob("*.md")),
    *sorted((ROOT / "docs" / "adr").glob("*.md")),
]
SOURCES = sorted(
    p for name in ("streamad", "connectors", "jobs") for p in (ROOT / name).rglob("*.py")
)
UNITS = "bytes|GiB|MiB|cost|windows?|rows?|points?|samples?|values?|scores?|messages?|alerts?|bits"
ITEMS = "key|row|window|message|second|batch|series|day|week|point|sample|partition|variate"
INSTEAD = {
    r"tells?|told|telling": "report, show, log",
    r"says?|said|saying": "report, state, show",
    r"hears?|heard": "receive, read",
    r"anew": "again, from the start",
    r"fares?": "does",
    r"mend(?:s|ed)?": "fix, recover",
    r"take(?:s|n)? in": "read, accept",
    r"(?:go|goes|went|going) on": "continue, resume",
    r"(?:is|are|be) dear": "is expensive",
    r"dead letters?": "dead-letter record",
    r"pulls? (?:its|the) plug": "kill, stop",
    r"deal(?:s|t)? out|dealt": "assign",
    rf"(?:{UNITS}) an? (?:{ITEMS})": "per",
}
WRONG = re.compile(r"\b(?:" + "|".join(f"({one})" for one in INSTEAD) + r")\b", re.IGNORECASE)
REPORTING = {
    "say",
    "info",
    "warning",
    "error",
    "exception",
    "critical",
    "ArgumentParser",
    "add_row",
}


def found_in(text: str) -> Iterator[str]:
    for match in WRONG.finditer(text):
        better = list(INSTEAD.values())[(match.lastindex or 1) - 1]
        yield f"{match[0]!r}: write {better}"


def prose(page: Path) -> Iterator[tuple[int, str]]:
    """Yield the lines of a page but for its code."""
    fenced = False
    for number, line in enumerate(page.read_text(encoding="utf-8").splitlines(), 1):
        if line.lstrip().startswith("```"):
            fenced = not fenced
        elif not fenced:
            yield number, re.sub(r"`[^`]*`", "", line)


def messages(source: Path) -> Iterator[tuple[int, str]]:
    """Yield texts that are raised, logged or printed."""
    for node in ast.walk(ast.parse(source.read_text(encoding="utf-8"))):
        shown: list[ast.expr] = []
        if isinstance(node, ast.Assign) and any(
            isinstance(t, ast.Name) and t.id in {"msg", "text", "why", "detail", "reason", "note"}
            for t in node.targets
        ):
            shown = [node.value]
        elif isinstance(node, ast.Raise) and isinstance(node.exc, ast.Call):
            shown = node.exc.args
        elif isinstance(node, ast.Call):
            name = getattr(node.func, "attr", getattr(node.func, "id", ""))
            shown = list(node.args) if name in REPORTING else []
            shown += [k.value for k in node.keywords if k.arg in {"help", "short_help", "title"}]
        for one in shown:
            for part in ast.walk(one):
                if isinstance(part, ast.Constant) and isinstance(part.value, str):
                    yield part.lineno, re.sub(r"`[^`]*`", "", part.value)


@pytest.mark.parametrize("page", PAGES, ids=lambda p: str(p.relative_to(ROOT)))
def test_pages_use_plain_words(page: Path):
    wrong = [f"{page.name}:{n}: {w}" for n, line in prose(page) for w in found_in(line)]
    assert not wrong, "\n".join(wrong)


def test_messages_use_plain_words():
    wrong = [
        f"{source.relative_to(ROOT)}:{n}: {w}"
        for source in SOURCES
        for n, text in messages(source)
        for w in found_in(text)
    ]
    assert not wrong, "\n".join(wrong)


def test_the_check_finds_what_it_is_for():
    assert list(found_in("10 bytes a key are told")) == [
        "'bytes a key': write per",
        "'told': write report, show, log",
    ]
    assert not list(found_in("see dead-letter records, per key; a key is told apart"[:40]))
