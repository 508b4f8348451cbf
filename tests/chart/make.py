"""Write what is generated of the chart: ``python -m tests.chart.make`` (`make docs` does so)."""

from __future__ import annotations

import json
from pathlib import Path

from tests.chart.dashboards import dashboards
from tests.chart.readme import readme
from tests.chart.schema import CHART, values_schema


def files() -> dict[Path, str]:
    """Return every generated file and its text."""
    return {
        CHART / "values.schema.json": json.dumps(values_schema(), indent=1, ensure_ascii=False)
        + "\n",
        CHART / "README.md": readme(),
        **{CHART / "files" / "dashboards" / name: text for name, text in dashboards().items()},
    }


def main() -> None:
    """Write them."""
    for path, text in files().items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
