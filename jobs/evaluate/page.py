"""An evaluation as one page: no script, nothing from elsewhere, fit to be mailed and printed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from jobs.evaluate.layouts import Labelled, load
from jobs.evaluate.plots import STYLE as CHARTS
from jobs.evaluate.plots import Row, intervals, series_picture
from jobs.evaluate.summary import HEADLINE, Line, Record, Summary
from jobs.evaluate.table import after, bounds, number, percent, share
from jobs.report.html import section, table, text
from jobs.report.style import STYLE
from streamad.errors import StreamadError
from streamad.evaluation.alerts import PROMISES
from streamad.evaluation.baselines import ALWAYS
from streamad.evaluation.nab import PROFILES

MOST_PICTURES, MOST_STRIPS = 10, 5
MOST_SETS = 16
_POLICY = "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'"


def page(summary: Summary, records: Sequence[Record], series: Sequence[Labelled]) -> str:
    """Return the page; records : results of all series, with what pictures need."""
    title = f"evaluation on {text(summary.source, 80)}"
    body = "".join(
        (
            _head(summary, title), _ranking(summary), _differences(summary), _alerts(summary),
            _calibration(summary), _sets(summary), _series(summary, records, series), _about(),
        )
    )  # fmt: skip
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">'
        '<meta name="viewport" content="width=device-width,initial-scale=1">'
        f"<title>{title}</title><style>{STYLE}{CHARTS}</style></head><body><main>{body}</main>"
        "</body></html>\n"
    )


def _head(summary: Summary, title: str) -> str:
    facts = (
        (f"{summary.series:,}", "series"), (f"{len(summary.sets):,}", "sets"),
        (f"{summary.anomalies:,}", "labelled anomalies"),
        (f"{summary.weeks:,.0f}", "weeks of series with times"),
        (f"{len(summary.lines)}", "detectors and baselines"),
    )  # fmt: skip
    boxes = "".join(f'<div><b>{n}</b><span class="dim small">{of}</span></div>' for n, of in facts)
    notes = "".join(f'<p class="small">Note: {text(note)}.</p>' for note in summary.notes)
    return (
        f'<h1>{title[:1].upper()}{title[1:]}</h1><p class="dim">layout {text(summary.layout)}; '
        f"compared with {text(summary.reference)}</p>"
        f'<section class="verdict">{_verdict(summary)}</section>'
        f'<div class="facts">{boxes}</div>{notes}'
    )


def _verdict(summary: Summary) -> str:
    """Return in two sentences what ranks best, and what its alerts are worth."""
    best = summary.lines[0]
    made = (
        f"<b>{text(best.detector)}</b> ranks best: VUS-PR {share(best.measures[HEADLINE].value)} "
        f"({bounds(best.measures[HEADLINE])}) over {best.labelled} series with an anomaly."
    )
    own = next((line for line in summary.lines if not _is_plain(line)), best)
    return made + (
        f" Alerts of <b>{text(own.detector)}</b> find {percent(own.found.value)} of anomalies "
        f"({percent(own.by_chance)} by chance), {_how_soon(own)}, with "
        f"{number(own.false_per_week.value)} false alerts per week and series."
        if own.anomalies
        else ""
    )


def _how_soon(line: Line) -> str:
    shown = after(line)
    if shown == "-":
        return "none in time"
    if shown == "at once" or shown.startswith("-"):
        return "half of them by their first labelled row"
    return f"half of them within {text(shown)}"


def _ranking(summary: Summary) -> str:
    rows = [_row(line, line.measures[HEADLINE]) for line in summary.lines]
    heads = ["detector", "series", "VUS-PR", "95 % interval", "VUS-ROC", "AUC-PR", "AUC-ROC",
             "ms per row", "failed", "left out"]  # fmt: skip
    body = table(
        heads,
        [
            [
                text(line.detector, 40), str(line.labelled),
                share(line.measures[HEADLINE].value), bounds(line.measures[HEADLINE]),
                *(share(line.measures[m].value) for m in ("vus_roc", "auc_pr", "auc_roc")),
                f"{line.ms_per_row:.2f}", str(line.failed), str(line.skipped),
            ]
            for line in summary.lines
        ],
    )  # fmt: skip
    about = (
        "Mean VUS-PR over series with an anomaly, on the rows after training, with the interval "
        "that other series of this kind would give. Baselines are grey. A score stands at the row "
        "it judges; how late it comes shows in the delay of alerts."
    )
    return section("How well scores rank", about, intervals(rows) + body)


def _differences(summary: Summary) -> str:
    rows = [
        _row(line, line.differences[HEADLINE])
        for line in summary.lines
        if HEADLINE in line.differences
    ]
    if not rows:
        return ""
    about = (
        f"VUS-PR less that of <b>{text(summary.reference)}</b>, series by series. An interval "
        "that does not touch the dashed line is more than the choice of series."
    )
    return section("Differences, series by series", about, intervals(rows, zero=True))


def _alerts(summary: Summary) -> str:
    rows = [_row(line, line.found, mark=line.by_chance) for line in summary.lines]
    heads = ["detector", "alerts", "per week", "false/week", "false/10k rows", "right", "found",
             "chance", "after", "NAB", "low FP", "low FN"]  # fmt: skip
    body = table(
        heads,
        [
            [
                text(line.detector, 40), f"{line.episodes:,}", number(line.per_week.value),
                number(line.false_per_week.value), number(line.false_per_10k.value),
                share(line.right.value), share(line.found.value), share(line.by_chance),
                text(after(line)), *(number(line.nab[p], 1) for p in PROFILES),
            ]
            for line in summary.lines
        ],
    )  # fmt: skip
    about = (
        '<span class="key k-page"></span>anomalies found by an alert that opened for them, as a '
        'share of all <span class="key k-chance"></span>what the same alerts would find at random '
        "times. Levels are the defaults of a pipeline, calibrated per series; nothing is tuned to "
        "labels. Right: alerts that overlap an anomaly. NAB: the benchmark's score in its three "
        "profiles."
    )
    return section("What alerts are worth", about, intervals(rows) + body)


def _calibration(summary: Summary) -> str:
    heads = ["detector", "windows", *(f"p &lt; {p:g}" for p in PROMISES),
             *(f"newest, p &lt; {p:g}" for p in PROMISES)]  # fmt: skip
    none = ["-"] * len(PROMISES)
    body = table(
        heads,
        [
            [
                text(line.detector, 40), f"{line.windows:,}",
                *(map(percent, line.below) if line.below else none),
                *(map(percent, line.newest_below) if line.newest_below else none),
            ]
            for line in summary.lines
        ],
    )  # fmt: skip
    about = (
        "Share of ordinary windows, more than a window away from any label, with a p-value below "
        "what stands above the column: that share is what was promised. Newest: the look at the "
        "newest samples, where a detector has one."
    )
    return section("Calibration", about, body)


def _sets(summary: Summary) -> str:
    names = sorted({name for line in summary.lines for name in line.sets})
    if len(names) < 2:
        return ""
    shown = sorted(names, key=lambda name: -summary.sets.get(name, 0))[:MOST_SETS]
    heads = ["detector", *(f"{text(name, 24)} ({summary.sets.get(name, 0)})" for name in shown)]
    body = table(
        heads,
        [
            [text(line.detector, 40), *(share(line.sets.get(n, float("nan"))) for n in shown)]
            for line in summary.lines
        ],
    )
    left = f" The {MOST_SETS} largest of {len(names)} sets." if len(names) > MOST_SETS else ""
    return section("Set by set", f"Mean VUS-PR; in brackets the series of a set.{left}", body)


def _series(summary: Summary, records: Sequence[Record], series: Sequence[Labelled]) -> str:
    results: dict[tuple[str, str], dict[str, Record]] = {}
    for one in records:
        if "trace" in one:
            results.setdefault((one["set"], one["series"]), {})[one["detector"]] = one
    names = _strips(summary)
    made = []
    for labelled in _worth_seeing(results, series, names):
        own = results[labelled.set, labelled.name]
        picture = _picture(labelled, {name: own[name] for name in names if name in own})
        if picture:
            head = text(f"{labelled.set}/{labelled.name}", 90)
            made.append(f"<h3>{head}</h3>{picture}")
    if not made:
        return ""
    about = (
        '<span class="key k-label"></span>labelled <span class="key k-page"></span>score, from its '
        'median up to its greatest <span class="key k-alert"></span>alert: a bar over its event, a '
        "tick at the row where it opened. The part that was learned has a grey ground. Shown are "
        "series on which the first two detectors differ most, both ways."
    )
    return section("Series", about, "".join(made))


def _strips(summary: Summary) -> list[str]:
    """Return the detectors that have a strip: those that are asked about, the reference, others."""
    own = [line.detector for line in summary.lines if not _is_plain(line)]
    rest = [line.detector for line in summary.lines if _is_plain(line)]
    return list(dict.fromkeys([*own[: MOST_STRIPS - 1], summary.reference, *rest]))[:MOST_STRIPS]


def _worth_seeing(
    results: Mapping[tuple[str, str], Mapping[str, Record]],
    series: Sequence[Labelled],
    names: Sequence[str],
) -> list[Labelled]:
    """Return the series on which two detectors differ most, as many where either is better."""

    def gap(one: Labelled) -> float | None:
        own = results.get((one.set, one.name), {})
        values = [own[name][HEADLINE] for name in names[:2] if name in own]
        known = [value for value in values if value is not None]
        return known[0] - known[1] if len(known) == 2 else None

    there = [one for one in series if (one.set, one.name) in results]
    ranked = sorted((g, at) for at, one in enumerate(there) if (g := gap(one)) is not None)
    order = [at for pair in zip(ranked, reversed(ranked), strict=True) for _, at in pair]
    order = list(dict.fromkeys([*order, *range(len(there))]))[:MOST_PICTURES]
    return [there[at] for at in sorted(order)]


def _picture(labelled: Labelled, own: Mapping[str, Record]) -> str:
    try:
        loaded = load(labelled)
    except StreamadError:
        return ""
    return series_picture(
        loaded.table.batch.values[:, 0],
        loaded.labels,
        {name: one["trace"] for name, one in own.items()},
        train_end=loaded.train_end,
    )


def _about() -> str:
    rows: tuple[tuple[str, str], ...] = (
        ("protocol", "fitted on rows before train_end, or on nothing; later rows come one after "
         "another through the operator that scores live; nothing looks ahead but by the lag a "
         "detector declares, and that lag is part of every delay"),
        ("found", "an alert opened from half a window before the anomaly's first row to a window "
         "after its last; one that was open already finds nothing"),
        ("false", "the event of an alert overlaps no anomaly, half a window of slack on each side"),
        ("by chance", "mean over moving all alerts of a series round it together"),
        ("intervals", "95 %, by drawing series with replacement"),
        ("NAB", "the benchmark's own formula on the rows at which alerts opened; its public board "
         "tunes one threshold over all labels, this does not"),
        ("point adjustment", "is not used: one hit inside an anomaly would count as all of its "
         "rows, and a random score looks excellent"),
    )  # fmt: skip
    items = "".join(f"<dt>{head}</dt><dd>{line}</dd>" for head, line in rows)
    return section("How it is measured", "", f'<dl class="inside">{items}</dl>')


def _row(line: Line, interval: Any, mark: float | None = None) -> Row:
    return Row(name=line.detector, interval=interval, plain=_is_plain(line), mark=mark)


def _is_plain(line: Line) -> bool:
    return line.detector.partition(":")[0] in ALWAYS
