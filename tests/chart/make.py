"""Write what is generated of the chart: ``python -m tests.chart.make`` (`make docs` does so)."""

from __future__ import annotations

import json
from pathlib import Path

import yaml

from streamad.alerting.config import AlertingConfig
from streamad.config import PipelineConfig
from streamad.config.live import live_settings
from tests.chart.dashboards import dashboards
from tests.chart.readme import readme
from tests.chart.schema import CHART, values_schema


def files() -> dict[Path, str]:
    """Return every generated file and its text."""
    return {
        CHART / "values.schema.json": json.dumps(values_schema(), indent=1, ensure_ascii=False)
        + "\n",
        CHART / "README.md": readme(),
        CHART / "files" / "live.yaml": live(),
        **{CHART / "files" / "dashboards" / name: text for name, text in dashboards().items()},
    }


def live() -> str:
    """Return the settings that a running job takes over, by the kind of file.

    ``all``: any change of it; ``value``: another value, where there was one and is one.
    """
    kinds = {"pipeline": PipelineConfig, "alerting": AlertingConfig}
    tree = {
        kind: {path: "value" if one.given else "all" for path, one in live_settings(model).items()}
        for kind, model in kinds.items()
    }
    return f"# Made by `make docs`.\n{yaml.safe_dump(tree, sort_keys=False)}"


def main() -> None:
    """Write them."""
    for path, text in files().items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
