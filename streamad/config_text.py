"""The text behind a configuration: where a setting stands, and what is wrong with it, in words."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, cast

import yaml
from pydantic import BaseModel

from streamad.errors import ConfigError, nearest

_QUOTED = re.compile(r"'([^']*)'")


def read_yaml(text: str, *, name: str) -> tuple[Any, dict[str, Any]]:
    """Return the YAML nodes (they know their lines) and the mapping a text holds.

    A name given twice in one section is refused: YAML would silently take the last.
    """
    try:
        node = yaml.compose(text, Loader=yaml.SafeLoader)
        tree = yaml.safe_load(text)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f"{name}:{mark.line + 1}" if mark else name
        msg = f"{where}: not YAML: {getattr(error, 'problem', None) or error}"
        raise ConfigError(msg) from error
    if not isinstance(tree, dict):
        got = "nothing" if tree is None else f"a {type(tree).__name__}"
        msg = f"{name}:1: expected settings as 'name: value' lines, got {got}"
        raise ConfigError(msg)
    for key in _repeated(node):
        line = key.start_mark.line + 1
        msg = f"{name}:{line}: {key.value!r} is given twice in one section; keep one of them"
        raise ConfigError(msg)
    return node, tree


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
        return f"{where}: unknown setting {dotted!r}; {_hint(str(path[-1]), path[:-1], model)}"
    return f"{where}: {dotted}: {_said(problem)}"


def _said(problem: Any) -> str:
    got, kind = problem.get("input"), str(problem["type"])
    if kind == "missing":
        return "is required"
    shown = "nothing" if got is None else repr(got) if isinstance(got, str | int | float) else ""
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
