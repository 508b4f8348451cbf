"""Write the reference pages from what they describe: ``python -m tests.docs.make`` (``make docs``).

A page that is typed by hand is wrong within a month; a test compares these with the code.
"""

from __future__ import annotations

import ast
import inspect
import json
import re
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from connectors.codecs import CODECS
from connectors.records.asyncapi import document
from connectors.telemetry import METRICS, table
from jobs.catalogue import Entry, entry
from streamad.config import PipelineConfig, binds_state
from streamad.config.live import live_settings
from streamad.config.section import Section
from streamad.detectors import DETECTORS
from tests.docs.alerts import alerts_page
from tests.docs.baseline import baseline_page
from tests.docs.cli import cli_page
from tests.docs.flink import flink_page
from tests.docs.input import bounds_table, reasons_table
from tests.docs.pagers import pagers_page

FOLDER = Path(__file__).resolve().parents[2] / "docs"
README = FOLDER.parent / "README.md"
BENCHMARKS = FOLDER / "benchmarks.json"
BEGIN, END = "<!-- benchmarks: made by `make docs` -->", "<!-- end of benchmarks -->"
MADE = "<!-- Made by `make docs`. Do not edit: change what it is made from. -->"
_UNITS = ((86_400_000, "d"), (3_600_000, "h"), (60_000, "m"), (1_000, "s"), (1, "ms"))


def pages() -> dict[str, str]:
    """Return every generated page by its name in ``docs/``."""
    made = {
        "pipeline.md": pipeline_page(),
        "detectors.md": detectors_page(),
        "metrics.md": metrics_page(),
        "cli.md": cli_page(),
        "alerts.md": alerts_page(),
        "baseline.md": baseline_page(),
        "flink.md": flink_page(),
        "pagers.md": pagers_page(),
    }
    return {name: f"{MADE}\n\n{text.strip()}\n" for name, text in made.items()}


# ---------------------------------------------------------------------- pipeline.md


def pipeline_page() -> str:
    """Return the reference of every setting of a pipeline file."""
    tables = "\n\n".join(_section_table(path, section) for path, section in _sections())
    return f"""# The pipeline file

YAML; only `name` and `input.topics` are required. `streamad validate pipeline.yaml` reports an
unknown setting with its line and the nearest right name.

Durations are written `300ms`, `10s`, `5m`, `2h`, `7d`; a bare number is refused. `${{NAME}}` and
`${{NAME:-default}}` are replaced from the environment. The address of the
cluster is set only in the environment (`KAFKA_BOOTSTRAP_SERVERS`, see [operations](operations.md)).

State made with other values of settings marked † is not used (`delivery.on_state_mismatch`). All
others can be changed at any time. A running job takes over those marked ‡
[without a restart](operations.md#settings-without-a-restart).

{tables}

### Formats

{_formats()}

### Bounds

One message can neither stop the job nor slow it down. Beyond a bound it becomes a
dead-letter record, unless the table has something else.

{bounds_table()}

### Reasons

Why a message or a row is not used. Each becomes a dead-letter record, except where it is
only counted.

{reasons_table()}"""


def _sections() -> Iterator[tuple[str, type[Section]]]:
    """Yield each section with its path, outer ones first."""
    waiting: list[tuple[str, type[Section]]] = [("", PipelineConfig)]
    while waiting:
        path, section = waiting.pop(0)
        yield path, section
        inner = [
            (f"{path}.{name}".lstrip("."), field.annotation)
            for name, field in section.model_fields.items()
        ]
        nested = [(p, a) for p, a in inner if isinstance(a, type) and issubclass(a, Section)]
        waiting = nested + waiting


def _section_table(path: str, section: type[Section]) -> str:
    told, types = described(section), _types(section)
    lines = ["| setting | type | default | what |", "|---|---|---|---|"]
    for name, field in section.model_fields.items():
        if isinstance(field.annotation, type) and issubclass(field.annotation, Section):
            continue
        mark = _mark(f"{path}.{name}".lstrip("."))
        kind = _kind(types[name], field.metadata)
        default = _default(field, is_duration="Duration" in types[name] or name in _RARITIES)
        lines.append(f"| `{name}`{mark} | {kind} | {default} | {_cell(told[name])} |")
    title = f"## `{path}`" if path else "## The pipeline"
    about = inspect.getdoc(section) or ""
    return f"{title}\n\n{about}\n\n" + "\n".join(lines)


def _mark(path: str) -> str:
    if path in live_settings(PipelineConfig):
        return " ‡"
    return " †" if binds_state(path) else ""


def described(section: type[Section]) -> dict[str, str]:
    """Return what stands below each setting where it is declared."""
    return {
        target: text
        for target, text in _class_lines(section)
        if text is not None and target in section.model_fields
    }


def _class_lines(section: type[Section]) -> Iterator[tuple[str, str | None]]:
    body = _class_node(section).body
    for node, after in zip(body, [*body[1:], None], strict=True):
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            text = None
            if isinstance(after, ast.Expr) and isinstance(after.value, ast.Constant):
                text = " ".join(str(after.value.value).split())
            yield node.target.id, text


def _class_node(section: type[Section]) -> ast.ClassDef:
    tree = ast.parse(inspect.getsource(sys.modules[section.__module__]))
    found = [n for n in tree.body if isinstance(n, ast.ClassDef) and n.name == section.__name__]
    return found[0]


def _types(section: type[Section]) -> dict[str, str]:
    """Return the types as they are written: an alias says more than what it stands for."""
    return {
        node.target.id: re.sub(r"^Live(?:IfGiven)?\[(.*)\]$", r"\1", ast.unparse(node.annotation))
        for node in _class_node(section).body
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name)
    }


_WORDS = {
    "str": "text",
    "int": "integer",
    "float": "number",
    "bool": "true or false",
    "Duration": "duration",
    "Probability": "0 < p < 1",
    "Rarity": "return period or 0 < p < 1",
    "tuple[str, ...]": "list of text",
    "dict[str, str]": "mapping",
    "dict[str, Any]": "mapping",
}


def _kind(written: str, metadata: list[Any]) -> str:
    bare = re.sub(r"^Annotated\[(.*), \w+\(.*\)\]$", r"\1", written)
    kind = " or ".join(_word(part) for part in bare.split(" | ") if part != "None")
    low = next((m.ge for m in metadata if hasattr(m, "ge")), None)
    high = next((m.le for m in metadata if hasattr(m, "le")), None)
    if low is not None and high is not None:
        return f"{kind}, {low:,} to {high:,}"
    if low is not None:
        return f"{kind}, {low:,} or more"
    return kind


def _word(part: str) -> str:
    if part.startswith("Literal["):
        return " or ".join(f"`{one}`" for one in ast.literal_eval(f"[{part[8:-1]}]"))
    return _WORDS.get(part, part)


_RARITIES = ("level",)
"""Settings that are a return period unless they are a probability."""


def _default(field: Any, *, is_duration: bool) -> str:
    if field.is_required():
        return "**required**"
    value = field.get_default(call_default_factory=True)
    if value is None or value in ((), {}):
        return ""
    if is_duration:
        return f"`{duration(int(value))}`"
    if isinstance(value, bool):
        return f"`{str(value).lower()}`"
    if isinstance(value, tuple):
        return ", ".join(f"`{one}`" for one in value)
    return f"`{value}`"


def duration(value_ms: int) -> str:
    """Return a duration as it is written in a pipeline file.

    Examples
    --------
    >>> [duration(ms) for ms in (0, 500, 60_000, 86_400_000)]
    ['0s', '500ms', '1m', '1d']
    """
    if value_ms == 0:
        return "0s"
    size, unit = next((size, unit) for size, unit in _UNITS if value_ms % size == 0)
    return f"{value_ms // size}{unit}"


def _cell(text: str) -> str:
    return text.replace("``", "`").replace("|", "\\|")


def _formats() -> str:
    lines = ["| `input.format` | what |", "|---|---|"]
    for name in CODECS:
        about = (inspect.getdoc(CODECS.load(name)) or "").split("\n\n")[0]
        lines.append(f"| `{name}` | {_cell(' '.join(about.split()))} |")
    return "\n".join(lines)


# ---------------------------------------------------------------------- detectors.md


def detectors_page() -> str:
    """Return the table of detectors and what each says of itself."""
    entries = [entry(name) for name in DETECTORS]
    rows = [
        "| name | default size | least size | lag | training | cost | bytes per key |",
        "|---|---:|---:|---:|---|---|---:|",
        *(_detector_row(one) for one in entries),
    ]
    told = "\n\n".join(_detector_text(one) for one in entries)
    return f"""# Detectors

Set one as `detector.name` in a pipeline, or as `--detector` on the command line. Sizes are samples
per window; *lag* is the number of samples between the scored sample and the newest one; *bytes per
key* are for one variate at the default size, without the key's name. `streamad detectors` prints
the same.

{chr(10).join(rows)}

{told}

Your own detector is one file: [add a detector](add-a-detector.md)."""


def _detector_row(one: Entry) -> str:
    return (
        f"| [`{one.name}`](#{one.name}) | {one.default_size} | {one.min_size} | {one.lag} "
        f"| {_training(one)} | {one.cost} | {one.bytes_per_key:,} |"
    )


def _training(one: Entry) -> str:
    if one.needs_training:
        return "needed"
    return f"none; warms up {one.warm_up} windows" if one.warm_up else "none"


def _detector_text(one: Entry) -> str:
    about = inspect.getdoc(DETECTORS.load(one.name)) or ""
    # What follows is for programmers: parameters, examples.
    prose = about.split("\nParameters\n")[0].split("\nExamples\n")[0].strip()
    paper = f"\n\n{one.paper}" if one.paper else ""
    return f"### {one.name}\n\n{one.summary[:1].upper()}{one.summary[1:]}.\n\n{_cell(prose)}{paper}"


# ---------------------------------------------------------------------- metrics.md


def metrics_page() -> str:
    """Return the table of metrics."""
    return f"""# Metrics

`streamad run pipeline.yaml --health-port 8080` serves `/metrics` (Prometheus), `/healthz` and
`/readyz`. {len(METRICS)} metrics; no label ever holds the key of a series. Units are seconds and
bytes.

{table()}

Recommended alarms, as `helm/streamad/files/rules.yaml` has them for Prometheus; each has an
entry in the [runbook](runbook.md):

{_alarms()}"""


def _alarms() -> str:
    text = (FOLDER.parent / "helm" / "streamad" / "files" / "rules.yaml").read_text("utf-8")
    lines = ["| alarm | severity | after | expression |", "|---|---|---|---|"]
    for group in yaml.safe_load(text)["groups"]:
        for rule in group["rules"]:
            link = f"[`{rule['alert']}`](runbook.md#{rule['alert'].lower()})"
            asked = _cell("`" + rule["expr"] + "`")
            lines.append(f"| {link} | {rule['labels']['severity']} | {rule['for']} | {asked} |")
    return "\n".join(lines)


# ---------------------------------------------------------------------- README.md


def with_benchmarks(readme: str) -> str:
    """Return the README with the table of measured figures, where `BENCHMARKS` holds any.

    ``{"machine": "...", "rows": [{"what": "...", "figure": "...", "command": "..."}]}``
    """
    before, begin, rest = readme.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        return readme
    return f"{before}{begin}\n{_benchmarks()}{end}{after}"


def _benchmarks() -> str:
    if not BENCHMARKS.exists():
        return ""
    told = json.loads(BENCHMARKS.read_text(encoding="utf-8"))
    rows = [f"| {r['what']} | {r['figure']} | `{r['command']}` |" for r in told["rows"]]
    head = ["| what | measured | by |", "|---|---|---|"]
    return "\n".join(["", f"On {told['machine']}:", "", *head, *rows, "", ""])


# ---------------------------------------------------------------------- asyncapi.yaml


def asyncapi_page() -> str:
    """Return the AsyncAPI document of the topics."""
    project = tomllib.loads((FOLDER.parent / "pyproject.toml").read_text(encoding="utf-8"))
    text = yaml.safe_dump(
        document(project["project"]["version"]), sort_keys=False, width=100, allow_unicode=True
    )
    return f"# Made by `make docs`. Do not edit: change what it is made from.\n{text}"


# ---------------------------------------------------------------------- all


def stale() -> list[str]:
    """Return the pages that differ from what they are made from."""
    return [
        path.relative_to(FOLDER.parent).as_posix()
        for path, text in files().items()
        if not path.exists() or path.read_text(encoding="utf-8") != text
    ]


def files() -> dict[Path, str]:
    """Return all that is written, by its path."""
    made = {FOLDER / name: text for name, text in pages().items()}
    made[FOLDER / "asyncapi.yaml"] = asyncapi_page()
    return made | {README: with_benchmarks(README.read_text(encoding="utf-8"))}


def main() -> int:
    """Write all pages, or with ``--check`` say which are stale."""
    if "--check" in sys.argv[1:]:
        old = stale()
        sys.stderr.writelines(f"{name} is stale; run `make docs`\n" for name in old)
        return int(bool(old))
    for path, text in files().items():
        path.write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
