"""What ``streamad alerts severities`` does: from answers with a severity to a scale."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Final

from connectors.files.sheet import read_bytes
from jobs.console import say
from jobs.desk import showing
from jobs.desk.reading import alerting_of, alerts_of, answered, board, opened
from streamad.alerts.scale import WORDS, Scale
from streamad.errors import ConfigError
from streamad.evaluation.severities import Fitted, Graded, fit_scale, graded, read_graded

MAX_SCALE_BYTES: Final = 100_000


def scale_of(path: str | None) -> Scale | None:
    """Return the scale in the file that ``severities`` names, None where it names none."""
    if path is None:
        return None
    try:
        with Path(path).open("rb") as file:
            content = file.read(MAX_SCALE_BYTES + 1)
    except OSError as error:
        msg = (
            f"{path}: cannot be read ({error.strerror}); make one with: "
            f"streamad alerts severities FILE -o {path}"
        )
        raise ConfigError(msg) from error
    if len(content) > MAX_SCALE_BYTES:
        msg = f"{path}: larger than {MAX_SCALE_BYTES:,} bytes, so it is no scale of severities"
        raise ConfigError(msg)
    return Scale.loads(content.decode("utf-8", "replace"), name=path)


def fit_severities(file: Path, *, answers: Path | None, out: Path | None) -> None:
    """Fit a scale to what people answered, print how good it is, and write it."""
    fitted = fit_scale(_graded(file, answers))
    showing.out(told(fitted))
    if out is not None:
        out.write_text(fitted.scale.dumps(), "utf-8")
        say(f"wrote {out}; name it as 'severities' in the alerting file; a running desk reads it")


def _graded(file: Path, answers: Path | None) -> list[Graded]:
    if answers is not None:
        return read_graded(read_bytes(answers).splitlines(), name=str(answers))
    config = alerting_of(file)
    with opened(config) as log:
        found = board(log, config)
        alerts = alerts_of(log, config, set(found.answers))
    return graded(list(answered(found, alerts)))


def told(fitted: Fitted) -> list[str]:
    """Return a scale and its figures as lines."""
    steps = fitted.scale.steps()
    lines = showing.table(
        ["severity", "from (decades)"],
        [[word, f"{steps[word]:.1f}" if word in steps else "never"] for word in WORDS],
    )
    lines += [
        "",
        f"C-index {fitted.within:.2f} of evidence and {fitted.by_severity:.2f} of severity, among "
        f"{fitted.scale.answers} answers with a word",
    ]
    if not math.isnan(fitted.overall):
        lines[-1] += f"; {fitted.overall:.2f} with {fitted.n_false} false positives below them"
    lines += [
        f"the same word as people in {fitted.right:.0%} of answers it was not fitted to; "
        f"{fitted.right_default:.0%} by the default steps"
    ]
    if fitted.right < fitted.right_default:
        lines += ["the default steps fit better: leave 'severities' unset until there are more"]
    return lines
