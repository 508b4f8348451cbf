"""The command line's reference page, from the commands themselves."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator
from typing import Any

from typer.main import get_command

from jobs.cli import app
from jobs.settings import Settings

EXIT_CODES = """Results go to standard output, everything else to standard error. Exit codes: 0
done, 1 failed while running, 2 wrong command or configuration (nothing was started), 130
interrupted. `STREAMAD_DEBUG=1` shows the traceback of an error."""


def cli_page() -> str:
    """Return the reference of every command."""
    told = "\n\n".join(_command_text(path, command) for path, command in commands())
    return f"# The command line\n\n{EXIT_CODES}\n\n{told}\n\n{_environment()}"


def commands() -> Iterator[tuple[str, Any]]:
    """Yield every command that does something, by the words that call it."""
    yield from _below("streamad", get_command(app))


def _below(path: str, command: Any) -> Iterator[tuple[str, Any]]:
    if hasattr(command, "commands"):
        for name, inner in command.commands.items():
            yield from _below(f"{path} {name}", inner)
    else:
        yield path, command


def options(command: Any) -> set[str]:
    """Return every spelling of a command's options."""
    spelt = {name for one in command.params for name in (*one.opts, *one.secondary_opts)}
    return {name for name in spelt if name.startswith("-")} | {"--help", "-h"}


def _command_text(path: str, command: Any) -> str:
    usage = " ".join(filter(None, [path, *(_usage(one) for one in command.params)]))
    about = inspect.cleandoc(command.help or "").replace("\b\n", "")
    rows = [_row(one) for one in command.params]
    table = "\n".join(["| | | |", "|---|---|---|", *rows])
    return f"## {path}\n\n    {usage}\n\n{about}\n\n{table}\n\n{_examples(command)}".rstrip()


def _usage(param: Any) -> str:
    if param.param_type_name == "argument":
        word = str(param.metavar or param.name.upper()).strip("[]{}")
        return word if param.required else f"[{word}]"
    return "" if not param.required else f"{param.opts[0]} VALUE"


def _row(param: Any) -> str:
    if param.param_type_name == "argument":
        name = str(param.metavar or param.name.upper()).strip("[]{}")
    else:
        name = ", ".join(sorted(param.opts, key=len, reverse=True))
    shown = param.default
    hidden = shown is None or shown is False or shown == "" or callable(shown)
    default = "required" if param.required else "" if hidden else f"default `{shown}`"
    text = (getattr(param, "help", "") or "").replace("|", "\\|")
    return f"| `{name}` | {text} | {default} |"


def _examples(command: Any) -> str:
    text = inspect.cleandoc(command.epilog or "").replace("\b\n", "")
    lines = [line.strip() for line in text.splitlines() if "streamad" in line]
    if not lines:
        return ""
    return "```sh\n" + "\n".join(lines) + "\n```"


def _environment() -> str:
    lines = ["## Environment", "", "| variable | default |", "|---|---|"]
    for name, field in Settings.model_fields.items():
        lines.append(f"| `STREAMAD_{name.upper()}` | `{field.default}` |")
    lines.append("| `STREAMAD_MEMBER` | the host's name; must be unique per process, and stable |")
    return "\n".join(lines)


def spoken(text: str) -> list[str]:
    """Return the ``streamad`` commands a page shows in its code blocks, without their comments."""
    found = []
    for block in re.findall(r"```(?:sh|console|bash)\n(.*?)```", text, flags=re.DOTALL):
        for line in block.replace("\\\n", " ").splitlines():
            bare = re.sub(r"\s+#.*$", "", line).strip().removeprefix("$ ")
            # What comes before may set the environment, what comes after may be a pipe.
            match = re.match(r"(?:[A-Z_]+=\S+ )*(streamad .*)", bare)
            if match:
                bare = match[1].split(" | ")[0].split(" && ")[0]
                found.append(bare.strip().removesuffix("&").strip())
    return found
