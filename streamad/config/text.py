"""The text behind a configuration: where a setting stands, and what is wrong with it, in words."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Any, cast

import yaml
from pydantic import BaseModel

from streamad.errors import ConfigError, nearest
from streamad.shown import is_secret_name, safe_text

MAX_FILE_BYTES = 1_048_576
MAX_DEPTH = 32
MAX_NODES = 20_000
"""A long list of topics or variates has some thousands."""

MAX_SAID_CHARS = 500

_QUOTED = re.compile(r"'([^']*)'")


def read_yaml(text: str, *, name: str) -> tuple[Any, dict[str, Any]]:
    """Return the YAML nodes (they know their lines) and the mapping a text holds.

    A name given twice in one section is refused: YAML would silently take the last.
    """
    try:
        _require_bounded(text, name=name)
        node = yaml.compose(text, Loader=yaml.SafeLoader)
        tree = yaml.safe_load(text)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f"{name}:{mark.line + 1}" if mark else name
        said = safe_text(str(getattr(error, "problem", None) or error))
        msg = f"{where}: not YAML: {said}"
        raise ConfigError(msg) from error
    except (ValueError, OverflowError) as error:
        # A date that does not exist, a number of thousands of digits.
        msg = f"{name}: a value cannot be read ({safe_text(str(error), MAX_SAID_CHARS)}); quote it"
        raise ConfigError(msg) from error
    if not isinstance(tree, dict):
        got = "nothing" if tree is None else f"a {type(tree).__name__}"
        msg = f"{name}:1: expected settings as 'name: value' lines, got {got}"
        raise ConfigError(msg)
    for key in _repeated(node):
        line = key.start_mark.line + 1
        given = safe_text(key.value, 200)
        msg = f"{name}:{line}: {given!r} is given twice in one section; keep one of them"
        raise ConfigError(msg)
    return node, tree


def _require_bounded(text: str, *, name: str) -> None:
    """Refuse text that would take minutes, or all memory, before anything is made of it.

    Events come one by one from the text. An alias counts as all that it repeats.
    """
    if len(text) > MAX_FILE_BYTES:
        raise ConfigError(too_large(name))
    size = _Size()
    for event in yaml.parse(text, Loader=yaml.SafeLoader):
        if why := size.add(event):
            line = cast("yaml.Mark", event.start_mark).line + 1
            msg = f"{name}:{line}: {why}"
            raise ConfigError(msg)


class _Size:
    """How large and how deep a text would be with its aliases written out."""

    def __init__(self) -> None:
        # Nodes and depth below each collection that is open, and of each anchor that is complete.
        self._open: list[tuple[str | None, int, int]] = []
        self._anchors: dict[str, tuple[int, int]] = {}
        self._n_nodes = 0

    def add(self, event: Any) -> str:
        """Count an event; return why the text is refused, or an empty string."""
        if isinstance(event, yaml.CollectionStartEvent):
            self._open.append((event.anchor, 1, 1))
        elif isinstance(event, yaml.CollectionEndEvent):
            anchor, n_nodes, height = self._open.pop()
            self._close(anchor, n_nodes, height)
        elif isinstance(event, yaml.AliasEvent):
            alias = str(event.anchor)
            if any(anchor == alias for anchor, _, _ in self._open):
                return f"expected a value, got '*{safe_text(alias, 40)}', which holds itself"
            # One that is not known is refused later, with its name.
            self._close(None, *self._anchors.get(alias, (1, 0)))
        elif isinstance(event, yaml.ScalarEvent):
            self._close(event.anchor, 1, 0)
        else:
            return ""
        if self._depth() > MAX_DEPTH:
            return f"expected at most {MAX_DEPTH} levels of nesting, got more; four are needed"
        if self._n_nodes + sum(n for _, n, _ in self._open) > MAX_NODES:
            return (
                f"expected at most {MAX_NODES} names and values (an alias counts as what it "
                "repeats), got more; give a pipeline file"
            )
        return ""

    def _close(self, anchor: str | None, n_nodes: int, height: int) -> None:
        if anchor is not None:
            self._anchors[anchor] = (n_nodes, height)
        if not self._open:
            self._n_nodes += n_nodes
            return
        above, total, tallest = self._open[-1]
        self._open[-1] = (above, total + n_nodes, max(tallest, height + 1))

    def _depth(self) -> int:
        return max((place + height for place, (_, _, height) in enumerate(self._open)), default=0)


def too_large(name: str) -> str:
    """Return the message for a file beyond `MAX_FILE_BYTES`."""
    return (
        f"{name}: expected a pipeline file of at most {MAX_FILE_BYTES} bytes, got more; "
        "give the path of a pipeline file in YAML"
    )


def _repeated(node: Any) -> Iterator[yaml.ScalarNode]:
    if isinstance(node, yaml.MappingNode):
        seen = set()
        for key, value in node.value:
            if key.value in seen:
                yield cast("yaml.ScalarNode", key)
            seen.add(key.value if isinstance(key, yaml.ScalarNode) else id(key))
            yield from _repeated(value)
    elif isinstance(node, yaml.SequenceNode):
        for item in node.value:
            yield from _repeated(item)


def line_of(node: Any, path: list[str | int]) -> int:
    """Return the 1-based line of the deepest part of ``path`` that the file really has."""
    line = 1
    for part in path:
        if isinstance(node, yaml.MappingNode):
            pairs = {cast("yaml.ScalarNode", k).value: (k, v) for k, v in node.value}
            if str(part) not in pairs:
                break
            key, node = pairs[str(part)]
            line = key.start_mark.line + 1
        elif (
            isinstance(node, yaml.SequenceNode) and isinstance(part, int) and part < len(node.value)
        ):
            node = node.value[part]
            line = node.start_mark.line + 1
        else:
            break
    return line


def line_holding(text: str, piece: str) -> int:
    """Return the 1-based line where ``piece`` first stands."""
    return text[: max(text.find(piece), 0)].count("\n") + 1


def explain(problem: Any, root: Any, *, name: str, model: type[BaseModel]) -> str:
    """Return one line for one of pydantic's problems: file, line, setting, expectation, nearest."""
    path = [part for part in problem["loc"] if isinstance(part, str | int)]
    where = f"{name}:{line_of(root, path)}"
    dotted = ".".join(str(part) for part in path) or "pipeline"
    if problem["type"] == "extra_forbidden":
        hint = _hint(str(path[-1]), path[:-1], model)
        return f"{where}: unknown setting {safe_text(dotted, 200)!r}; {hint}"
    return f"{where}: {safe_text(f'{dotted}: {_said(problem)}', MAX_SAID_CHARS)}"


def _said(problem: Any) -> str:
    got, kind = problem.get("input"), str(problem["type"])
    if kind == "missing":
        return "is required"
    shown = "nothing" if got is None else repr(got) if isinstance(got, str | int | float) else ""
    if shown and _may_be_secret(problem["loc"]):
        shown = "a value that is not shown"
    expected = _EXPECTED.get(kind)
    if expected is None:
        text = str(problem["msg"]).removeprefix("Value error, ")
        bound = kind.startswith(("less", "greater"))
        expected = text.replace("Input should be", "must be" if bound else "expected")
    said = f"{expected[:1].lower()}{expected[1:]}"
    if kind == "literal_error" and isinstance(got, str):
        near = nearest(got, _QUOTED.findall(str(problem["ctx"]["expected"])))
        if near:
            return f"{said}, got {shown}; did you mean {near!r}?"
    return f"{said}, got {shown}" if shown and "got" not in said else said


def _may_be_secret(path: Sequence[str | int]) -> bool:
    """Say whether a value may be a credential: by its name, or as one of Flink's options."""
    names = [str(part) for part in path]
    return names[:2] == ["flink", "options"] or any(map(is_secret_name, names))


_EXPECTED = {
    "model_type": "expected a section ('name: value' lines)",
    "model_attributes_type": "expected a section ('name: value' lines)",
    "dict_type": "expected a section ('name: value' lines)",
    "tuple_type": "expected a list",
    "string_pattern_mismatch": (
        "expected 1 to 63 lower-case letters, digits, '.', '_' or '-', "
        "with a letter or digit at both ends"
    ),
    "string_type": "expected a text",
    "int_parsing": "expected a whole number",
    "int_type": "expected a whole number",
    "int_from_float": "expected a whole number",
    "float_parsing": "expected a number",
    "float_type": "expected a number",
    "bool_parsing": "expected true or false",
    "bool_type": "expected true or false",
}


def _hint(got: str, path: list[str | int], model: type[BaseModel]) -> str:
    known = _known_names(path, model)
    near = nearest(got, known)
    return f"did you mean {near!r}?" if near else f"known here: {', '.join(sorted(known))}"


def _known_names(path: list[str | int], model: type[BaseModel]) -> list[str]:
    section: Any = model
    for part in path:
        fields = getattr(section, "model_fields", {})
        if part not in fields:
            return []
        section = fields[part].annotation
    return list(getattr(section, "model_fields", {}))
