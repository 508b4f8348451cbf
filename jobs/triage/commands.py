"""What the commands of ``streamad triage`` do with their arguments."""

from __future__ import annotations

import sys
from collections import Counter
from pathlib import Path
from typing import Any

import orjson

from connectors.files.triage import read_book, write_book
from jobs.console import say
from jobs.triage.reading import read_alerts
from streamad.errors import ConfigError, UnknownNameError
from streamad.shown import safe_json
from streamad.triage.book import Book, Group
from streamad.triage.grouping import LEAST_ALERTS, Projection
from streamad.triage.stories import stories_of, vectors_of_stories
from streamad.wording import clock

METHOD, METHODS = "method of triage", ("kmeans", "pbn")
UNCLEAR = 0.25
"""Below this silhouette groups run into each other."""


def group_alerts(
    source: Path, *, book: Path, since: str | None, k: int | None, method: str, as_json: bool
) -> None:
    """Group the alerts that are like no named group, keep the groups, and print them."""
    known = read_book(book) if book.exists() else Book()
    projection = _projection(method, known)
    stories = vectors_of_stories(stories_of(read_alerts(source, since=since)))
    if not len(stories):
        msg = f"{source}: holds no alert" + (" of that time" if since else "")
        raise ConfigError(msg)
    names = known.propose(stories, k=k, projection=projection)
    write_book(known, book)
    if as_json:
        _write_json(known)
        return
    counted = Counter(name for name in names if name)
    _print_groups(known, recognised=counted)
    n_new = len(stories) - counted.total()
    say(f"{len(stories)} alerts: {counted.total()} of named groups, {n_new} of none")
    for line in _advice(known, n_new, book):
        say(line)


def _projection(method: str, book: Book) -> Projection | None:
    """Return what a method puts before k-means; raises ConfigError where it cannot be used."""
    if method not in METHODS:
        raise UnknownNameError(METHOD, method, METHODS)
    if method == "kmeans":
        return None
    try:
        from streamad.training.pbn import LEAST_CLASSES, project
    except ImportError as error:
        msg = f"pbn trains with torch ({error}); pip install 'streamad-pipeline[train]'"
        raise ConfigError(msg) from None
    if len(book.named) < LEAST_CLASSES:
        msg = (
            f"pbn learns from named groups: expected at least {LEAST_CLASSES}, got "
            f"{len(book.named)}; name some first, or use --method kmeans"
        )
        raise ConfigError(msg)
    return project


def _advice(book: Book, n_new: int, path: Path) -> list[str]:
    if not book.proposed:
        few = n_new < LEAST_ALERTS
        why = f"fewer than {LEAST_ALERTS} are not grouped" if few else "no two of them are alike"
        return [f"no groups are proposed: {why}"] if n_new else []
    first = next(iter(book.proposed))
    lines = [f'give a group a name: streamad triage name {first} "disk full" --book {path}']
    if book.n_alone:
        lines.insert(0, f"{book.n_alone} alerts are like no other one")
    if book.silhouette < UNCLEAR:
        lines.insert(
            0, f"these groups run into each other (silhouette {book.silhouette:.2f}); look twice"
        )
    return lines


def show_groups(book: Path, *, as_json: bool) -> None:
    """Print the named and the proposed groups."""
    known = read_book(book)
    if as_json:
        _write_json(known)
    else:
        _print_groups(known, recognised=Counter())


def name_group(label: str, name: str, *, book: Path) -> None:
    """Name a proposed group, or another name of a named one."""
    known = read_book(book)
    if label in known.named and label not in known.proposed:
        known.rename(label, name)
    else:
        known.name(label, name)
    write_book(known, book)
    name = " ".join(name.split())
    say(f"{name}: {_many(known.named[name].n)}; recognised from now on, by {book}")


def drop_name(name: str, *, book: Path) -> None:
    """Forget a name."""
    known = read_book(book)
    known.drop(name)
    write_book(known, book)
    say(f"{name}: forgotten")


def recognise_alerts(source: Path, *, book: Path, since: str | None) -> None:
    """Print what each alert of a source looks like, as JSON lines."""
    known = read_book(book)
    if not known.named:
        msg = f"{book}: no group has a name; give one with: streamad triage name GROUP NAME"
        raise ConfigError(msg)
    stories = vectors_of_stories(stories_of(read_alerts(source, since=since)))
    names = known.recogniser().names_of(stories.whole)
    for name, alert in zip(names, stories.alerts, strict=True):
        _line({"id": alert.id, "key": alert.key, "looks_like": name, "summary": alert.summary})
    n_known = sum(map(bool, names))
    say(f"{len(names)} alerts: {n_known} of named groups, {len(names) - n_known} of none")


# ---------------------------------------------------------------------- printed


def _print_groups(book: Book, *, recognised: Counter[str]) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None)
    for column in ("group", "alerts", "what they share, and an example"):
        table.add_column(column, justify="right" if column == "alerts" else "left")
    for name, one in book.named.items():
        new = f" ({recognised[name]} here)" if recognised[name] else ""
        table.add_row(Text(repr(name)), f"{one.n}{new}", _shown(one))
    for label, one in book.proposed.items():
        table.add_row(Text(label), str(one.n), _shown(one))
    if table.row_count:
        Console().print(table)


def _shown(one: Group) -> Any:
    from rich.text import Text

    lines = [one.about or "nothing in common that has a word"]
    lines += [f"{clock(e.began_ms, dated=True)} UTC: {e.summary}" for e in one.examples[:1]]
    return Text("\n".join(lines))


def _write_json(book: Book) -> None:
    for name, one in book.named.items():
        _line({"group": name, "named": True, **_facts(one)})
    for label, one in book.proposed.items():
        _line({"group": label, "named": False, **_facts(one)})


def _facts(one: Group) -> dict[str, Any]:
    return {"alerts": one.n, "about": one.about, "examples": one.examples}


def _line(body: dict[str, Any]) -> None:
    sys.stdout.write(safe_json(orjson.dumps(body).decode()) + "\n")


def _many(n: int) -> str:
    return f"{n} alert{'' if n == 1 else 's'}"
