"""What the demo watches, a row each: the pipeline, how it is disturbed, which alerts are of that.

All else of the demo is alike for all of them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from jobs.demo.disturbance import N_SERVICES, STRANGER
from streamad.events.rows import EventRows
from streamad.graphs.rows import EdgeRows
from streamad.records import Alert
from streamad.shown import safe_text

FOLDER: Final = Path(__file__).parents[1] / "pipelines"


@dataclass(frozen=True, slots=True, kw_only=True)
class Kind:
    """One kind of records of this machine.

    name : of its pipeline, and of the file; label : of what it watches
    after_ms : when its disturbance begins, after that of the first; doing : what is then done
    subject : the field of the key that names what an alert is about
    driven : beginnings of subjects that the disturbance moves, the surest first
    fitted : the detector is fitted on what came while the demo learned
    ends : what makes an alert of it end
    """

    name: str
    label: str
    after_ms: int
    doing: str
    subject: str
    driven: tuple[str, ...]
    fitted: bool = False
    ends: str = ""

    @property
    def path(self) -> Path:
        """Return the file of its pipeline."""
        return FOLDER / f"{self.name}.yaml"

    def rank(self, alert: Alert) -> int | None:
        """Return how surely the disturbance raised an alert, 0 surest; None: it did not."""
        if alert.pipeline != self.name or alert.kind != "anomaly":
            return None
        subject = alert.entity.get(self.subject, "")
        ranks = (rank for rank, one in enumerate(self.driven) if subject.startswith(one))
        return next(ranks, None)


_QUIET = "it is open until 10 minutes pass without another like it"

METRICS: Final = Kind(
    name="demo",
    label="metrics",
    after_ms=0,
    doing="two busy cores, and a file written over and over",
    subject="metric",
    driven=("disturbance.", "cpu", "disk_write", "network"),
)
STARTS: Final = Kind(
    name="demo-starts",
    label="process starts",
    after_ms=2_000,
    doing="a program starts that never ran here",
    subject="process",
    driven=(STRANGER, "cat"),
    fitted=True,
    ends=_QUIET,
)
CONNECTIONS: Final = Kind(
    name="demo-connections",
    label="connections",
    after_ms=3_500,
    doing=f"one program calls {N_SERVICES} services at once",
    subject="process",
    driven=("demo-worker",),
    ends=_QUIET,
)
KINDS: Final = (METRICS, STARTS, CONNECTIONS)


@dataclass(frozen=True, slots=True, kw_only=True)
class Counted:
    """How rows that are no measurements are shown: by how many there are, and one of them.

    label : of the line; within : readings of metrics that a number is of (0: the newest reading)
    text : a row in words
    """

    label: str
    within: int
    text: Callable[[Any, int], str]


def _start(rows: EventRows, row: int) -> str:
    one = rows.fields.row(row, named=True)
    user, parent = (safe_text(one[name] or "somebody") for name in ("user", "parent"))
    return f"{parent} starts {safe_text(one['process'])} ({user})"


def _edge(rows: EdgeRows, row: int) -> str:
    return f"{safe_text(rows.source[row])} -> {safe_text(rows.target[row])}"


COUNTED: Final = {
    STARTS.name: Counted(label="process starts /s", within=8, text=_start),
    CONNECTIONS.name: Counted(label="connected pairs", within=0, text=_edge),
}
"""By the pipeline's name; readings of metrics are shown one by one."""
