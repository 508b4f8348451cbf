"""Read configuration files; errors name the line and the nearest right name."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

from pydantic import ValidationError

from streamad.config.pipeline import PipelineConfig
from streamad.config.section import Section
from streamad.config.text import MAX_FILE_BYTES, explain, line_holding, read_yaml, too_large
from streamad.errors import ConfigError
from streamad.shown import without_credentials

S = TypeVar("S", bound=Section)

_ENV = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)(?::-([^}]*))?\}")


def load_pipeline(path: str | Path, *, environment: Mapping[str, str]) -> PipelineConfig:
    """Read a pipeline file; every mistake is a ConfigError with line, expectation and nearest name.

    ``${NAME}`` and ``${NAME:-default}`` are replaced from ``environment`` in values.
    """
    return parse_pipeline(read_config(path), name=str(Path(path)), environment=environment)


def read_config(path: str | Path) -> str:
    """Return the text of a configuration file; raises ConfigError."""
    file = Path(path)
    try:
        with file.open("rb") as opened:
            content = opened.read(MAX_FILE_BYTES + 1)
        text = content.decode(errors="strict" if len(content) <= MAX_FILE_BYTES else "ignore")
    except (OSError, ValueError) as error:
        msg = f"{file}: cannot be read ({error}); give the path of a pipeline file in YAML"
        raise ConfigError(msg) from error
    if len(content) > MAX_FILE_BYTES:
        raise ConfigError(too_large(str(file)))
    return text


def parse_pipeline(
    text: str, *, name: str = "<pipeline>", environment: Mapping[str, str] | None = None
) -> PipelineConfig:
    """Validate the text of a pipeline file; see `load_pipeline`."""
    return parse_config(text, PipelineConfig, name=name, environment=environment)


def parse_config(
    text: str, model: type[S], *, name: str, environment: Mapping[str, str] | None = None
) -> S:
    """Validate the text of a configuration file of a kind; see `load_pipeline`."""
    node, tree = read_yaml(text, name=name)
    used: dict[str, str] = {}
    tree = _substitute(tree, environment or {}, name=name, text=text, used=used)
    try:
        return model.model_validate(tree)
    except ValidationError as error:
        lines = [explain(problem, node, name=name, model=model) for problem in error.errors()]
        # Without its cause: a traceback would repeat the values.
        raise ConfigError(_without_values("\n".join(lines), used)) from None


_LEAST_HIDDEN_CHARS = 4


def _without_values(text: str, used: Mapping[str, str]) -> str:
    """Return text with ``${NAME}`` in place of what the environment gave: it may be a secret."""
    for name, value in sorted(used.items(), key=lambda pair: -len(pair[1])):
        # As it was quoted, too: `repr` doubles a backslash.
        for written in {value, repr(value)[1:-1]}:
            if len(written) >= _LEAST_HIDDEN_CHARS:
                text = text.replace(written, f"${{{name}}}")
    return without_credentials(text)


def _substitute(
    value: Any, environment: Mapping[str, str], *, name: str, text: str, used: dict[str, str]
) -> Any:
    if isinstance(value, dict):
        return {
            key: _substitute(inner, environment, name=name, text=text, used=used)
            for key, inner in value.items()
        }
    if isinstance(value, list):
        return [_substitute(inner, environment, name=name, text=text, used=used) for inner in value]
    if not isinstance(value, str):
        return value

    def replace(match: re.Match[str]) -> str:
        default: str | None = match[2]
        found = environment.get(match[1]) or default
        if found is None:
            line = line_holding(text, f"${{{match[1]}}}")
            msg = (
                f"{name}:{line}: ${{{match[1]}}} is not set; set it in the environment, or write "
                f"${{{match[1]}:-default}}"
            )
            raise ConfigError(msg)
        if environment.get(match[1]):
            used[match[1]] = found
        return found

    return _ENV.sub(replace, value)
