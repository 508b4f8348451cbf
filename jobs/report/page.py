"""The report as one page: no script, nothing from elsewhere, fit to be mailed and printed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from jobs.offline.backtest import DAY_MS
from jobs.report.html import bar, link, section, span, strip, table, text
from jobs.report.measure import MOST_ANOMALIES, WEEK_MS
from jobs.report.records import PROMISES, IncidentLine, Outcome, Report, Similar
from jobs.report.style import STYLE
from jobs.report.table import after, share
from streamad.wording import clock, duration

SHORT_WEEKS = 2.0
"""Shorter replays are given in days."""
_POLICY = "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'"
WHY = {
    "budget": "the budget was spent",
    "soak": "the series was new (budget.soak)",
    "past": "found long after it happened (alerts.max_age)",
    "hold": "too short (incidents.hold)",
    "kind": "of a kind that does not page (budget.kinds)",
    "not yet": "still open at the end",
}
"""Why an incident does not page; others are shown as they stand."""


def page(report: Report, pictures: Mapping[str, str]) -> str:
    """Return the page; pictures : SVGs by the id of an incident."""
    title = f"back-test of {text(report.pipeline, 80)}"
    body = "".join(
        (
            _head(report, title), _budgets(report), _days(report), _weeks(report), _found(report),
            _incidents(report, pictures), _keys(report), _calibration(report), _learning(report),
            _rejected(report),
        )
    )  # fmt: skip
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">'
        '<meta name="viewport" content="width=device-width,initial-scale=1">'
        f"<title>{title}</title><style>{STYLE}</style></head><body><main>{body}</main></body>"
        "</html>\n"
    )


def _head(report: Report, title: str) -> str:
    when = "no rows"
    if report.first_ms is not None and report.last_ms is not None:
        first, last = clock(report.first_ms, dated=True), clock(report.last_ms, dated=True)
        when = f"{first} to {last} UTC"
    artifact = f", artifact {text(report.artifact, 40)}" if report.artifact else ""
    facts = (
        (_length(report), "replayed"), (f"{report.keys:,}", "series"),
        (f"{report.points:,}", "rows"), (f"{report.windows:,}", "windows scored"),
        (f"{report.configured.alerts:,}", "alerts as configured"),
        (f"{report.configured.incidents:,}", "incidents as configured"),
    )  # fmt: skip
    notes = "".join(f'<p class="small">Note: {text(note)}.</p>' for note in report.notes)
    boxes = "".join(f'<div><b>{n}</b><span class="dim small">{of}</span></div>' for n, of in facts)
    return (
        f'<h1>{title[:1].upper()}{title[1:]}</h1><p class="dim">{text(report.source, 120)}, '
        f"{when}; {text(report.detector, 60)}{artifact}</p>"
        f'<section class="verdict">{_verdict(report)}</section>'
        f'<div class="facts">{boxes}</div>{notes}'
    )


def _length(report: Report) -> str:
    if report.weeks < SHORT_WEEKS:
        return f"{7 * report.weeks:.1f} days"
    return f"{report.weeks:.1f} weeks"


def _verdict(report: Report) -> str:
    """Return in two sentences what would come, and what it would find."""
    one = report.configured
    asked = "no budget is set" if one.asked is None else f"{text(one.name)} asked"
    if one.asked is not None and one.groups > 1:
        asked += f" for each of {one.groups} groups"
    pages = "page" if one.pages == 1 else "pages"
    said = (
        f"As configured ({asked}), <b>{one.pages:,} {pages}</b> would have been sent in "
        f"{_length(report)}: <b>{one.per_week:.1f} per week</b>."
    )
    if held := sum(one.withheld.values()):
        said += f" {held:,} {'incident' if held == 1 else 'incidents'} did not page."
    if one.found is not None:
        said += f" <b>{one.found} of {report.n_anomalies}</b> labelled anomalies paged"
        if one.delay_ms is not None:
            within = f"within {duration(one.delay_ms)}" if one.delay_ms else "at once"
            said += f", half of them {within}"
        false = one.false_pages or 0
        said += f"; {false:,} {'page touches' if false == 1 else 'pages touch'} no label."
    return said


def _budgets(report: Report) -> str:
    heads = ["budget of a group", "asked", "came", "pages per week", "pages", "overdrawn",
             "withheld", "flaps"]  # fmt: skip
    body = table(
        heads,
        [_budget_row(one) for one in report.outcomes],
        chosen=_chosen(report),
        kinds=("", "", "", "bar"),
    )
    groups = report.configured.groups
    together = f", of all {groups} groups together" if groups > 1 else ""
    about = (
        '<span class="key k-page"></span>came <span class="key k-mark"></span>asked'
        f"{together}. The first weeks of a replay are a budget's first, too: it has no past to "
        "compare with yet. Set one in the pipeline file: "
        "<code>alerts: {budget: 5 per week}</code>."
    )
    return section("Pages per week at several budgets", about, body)


def _chosen(report: Report) -> int:
    return next(at for at, one in enumerate(report.outcomes) if one.configured)


def _budget_row(one: Outcome) -> list[str]:
    drawn, wanted = '<span class="dim">every incident pages</span>', "-"
    if one.asked is not None:
        asked = one.asked * one.groups
        wanted = f"{asked:g}"
        # The scale is the budget's own, so that keeping to it looks the same in each row.
        drawn = bar([(one.per_week, "page")], whole=2 * asked, mark=asked)
    return [_name(one), wanted, f"{one.per_week:.1f}", drawn, f"{one.pages:,}",
            f"{one.overdrawn:,}", f"{sum(one.withheld.values()):,}", f"{one.flaps:,}"]  # fmt: skip


def _name(one: Outcome) -> str:
    return text(one.name) + (" (configured)" if one.configured else "")


def _days(report: Report) -> str:
    """Return a strip of days for each budget."""
    if report.first_ms is None or report.last_ms is None:
        return ""
    n = len(report.configured.by_day)
    last = (report.last_ms - report.first_ms) // DAY_MS
    begin = report.first_ms + (last + 1 - n) * DAY_MS
    names = [clock(begin + day * DAY_MS, dated=True)[:10] for day in range(n)]
    rows = [
        [text(one.name), strip(one.by_day, names), f"{max(one.by_day, default=0):,}"]
        for one in report.outcomes
    ]
    ends = f'<span class="ends"><span>{names[0]}</span><span>{names[-1]}</span></span>'
    body = table(["budget", ends, "most"], rows, chosen=_chosen(report), kinds=("", "strip"))
    about = "A cell is a day from the first row on: the darker, the more pages (5 and more: full)."
    return section("Which days", about, body)


def _weeks(report: Report) -> str:
    one = report.configured
    if report.first_ms is None or not one.by_week:
        return ""
    n = len(one.by_week)
    whole = max(a + b for a, b in zip(one.by_week, one.withheld_by_week, strict=True)) or 1
    rows = []
    for at, (pages, held) in enumerate(zip(one.by_week, one.withheld_by_week, strict=True)):
        begin = clock(report.first_ms + at * WEEK_MS, dated=True)[:10]
        drawn = bar([(pages, "page"), (held, "held")], whole=whole)
        rows.append([f"{at + 1}, from {begin}", drawn, f"{pages:,}", f"{held:,}"])
    body = table(["week", "", "pages", "withheld"], rows[-60:], kinds=("", "bar"))
    why = "; ".join(f"{n:,}: {text(WHY.get(w, w))}" for w, n in one.withheld.items())
    more = f" Why withheld: {why}." if why else ""
    hidden = f" The last 60 of {n} weeks." if n > 60 else ""
    about = (
        '<span class="key k-page"></span>pages <span class="key k-held"></span>withheld, as '
        f"configured.{more}{hidden}"
    )
    return section("Week by week", about, body)


def _found(report: Report) -> str:
    if report.configured.found is None:
        return ""
    if not report.n_anomalies:
        return section("Labelled anomalies", "The labels mark no row of what was replayed.", "")
    n = report.n_anomalies
    heads = ["budget of a group", "found", "only withheld", "missed", "pages with a label",
             "pages without", "median delay", "C-index", "by evidence"]  # fmt: skip
    body = table(
        heads,
        [
            [_name(one), f"{one.found} of {n}", str(one.found_withheld), str(one.missed),
             str(one.true_pages), str(one.false_pages), after(one.delay_ms),
             _c_index(one.c_index), _c_index(one.c_index_strength)]
            for one in report.outcomes
        ],
        chosen=_chosen(report),
    )  # fmt: skip
    about = (
        f"An anomaly of the column <code>{text(report.label, 60)}</code> is found by a page that "
        "came while it lasted, or within a window's length after; an alert that was open before "
        "finds nothing. The delay is from its begin to the page. The C-index is the share of pairs "
        "of an incident with a label and one without in which the first is the more severe, paged "
        "or not: .5 is chance. Evidence does not move with the budget, as severity does."
    )
    return section("What the pages would have found", about, body + _anomalies(report))


def _c_index(found: float | None) -> str:
    return "-" if found is None else f"{found:.2f}"


def _anomalies(report: Report) -> str:
    looks = {"paged": '<span class="good">paged</span>', "withheld": "incident, no page",
             "missed": '<span class="bad">missed</span>'}  # fmt: skip
    rows = [
        [
            text(", ".join(one.keys[:3]) + (", ..." if len(one.keys) > 3 else "")),
            span(one.begin_ms, one.end_ms),
            looks[one.fate] + (" (still learning)" if one.learning else ""),
            after(one.after_ms),
        ]
        for one in report.anomalies
    ]
    body = table(["series", "labelled", "as configured", "after"], rows, texts=(0, 1))
    n = report.n_anomalies
    cut = f" (the first {MOST_ANOMALIES} of {n:,})" if n > MOST_ANOMALIES else ""
    return (
        f"<details><summary><span>Each anomaly{cut}, those that did not page first</span></summary>"
        f"{body}</details>"
    )


# ------------------------------------------------------------------ incidents


def _incidents(report: Report, pictures: Mapping[str, str]) -> str:
    n = report.configured.incidents
    if not n:
        return section("Incidents", "There were none.", "")
    shown = len(report.incidents)
    about = f"The strongest {shown} of {n:,}, those that paged first." if n > shown else (
        "Those that paged first, the strongest on top."
    )  # fmt: skip
    about += (
        " In pictures: the band is the anomalous part, the dashed line what was expected."
        if pictures
        else ""
    )
    body = "".join(
        _incident(one, pictures.get(one.id, ""), is_open=at == 0)
        for at, one in enumerate(report.incidents)
    )
    return section("Incidents", about, body)


def _incident(one: IncidentLine, picture: str, *, is_open: bool) -> str:
    facts = "".join(f"<dt>{name}</dt><dd>{value}</dd>" for name, value in _facts(one))
    return (
        f"<details{' open' if is_open else ''}><summary><span class='line'>{_tags(one)}<br>"
        f"{text(one.summary, 500)}</span>{picture}</summary>"
        f'<dl class="inside">{facts}</dl></details>'
    )


def _tags(one: IncidentLine) -> str:
    made = []
    if one.paged_ms is not None:
        look, name = ("over", "overdrawn") if one.overdrawn else ("page", "page")
        made.append(f'<span class="tag {look}">{name}</span>')
    else:
        made.append(f'<span class="tag">{_why(one.withheld)}</span>')
    made.append(f'<span class="tag">severity {one.severity:.1f}</span>')
    if one.n_members > 1:
        made.append(f'<span class="tag">{one.n_members:,} alerts</span>')
    if one.real is not None:
        look = "good" if one.real else "bad"
        made.append(f'<span class="tag {look}">{"labelled" if one.real else "no label"}</span>')
    return "".join(made)


def _why(withheld: str) -> str:
    reason, _, name = withheld.partition(":")
    shown = WHY.get(reason or "not yet", reason)
    return text(f"{shown}: {name}" if name else shown, 120)


def _facts(one: IncidentLine) -> Iterator[tuple[str, str]]:
    yield "when", span(one.began_ms, one.until_ms) + ("" if one.resolved else ", still open")
    if one.paged_ms is not None:
        yield "paged", f"{clock(one.paged_ms, dated=True)} UTC"
    yield (
        "how bad",
        f"severity {one.severity:.1f} (1.0 is the boundary); strength {one.strength:.1f}, "
        f"{one.threshold:.1f} needed",
    )
    if one.n_members > 1:
        named = ", ".join(text(name, 100) for name in one.members)
        yield "affected", named + (", ..." if one.n_members > len(one.members) else "")
    if one.causes:
        yield "probable causes", "; ".join(text(cause, 200) for cause in one.causes)
    if len(one.shares) > 1:
        order = sorted(one.shares.items(), key=lambda item: -item[1])[:5]
        yield "share of the score", ", ".join(f"{text(name, 80)} {s:.0%}" for name, s in order)
    by = ", ".join(text(name, 60) for name in one.detectors)
    yield "found by", by + (f", artifact <code>{text(one.artifact, 40)}</code>"
                            if one.artifact else "")  # fmt: skip
    if one.similar:
        yield "earlier ones", "<br>".join(_earlier(other) for other in one.similar)
    if one.links:
        yield "look at", ", ".join(link(name, url) for name, url in one.links.items())


def _earlier(one: Similar) -> str:
    fate = f"did not page: {_why(one.withheld)}" if one.withheld else "paged"
    real = {True: ", labelled", False: ", no label", None: ""}[one.real]
    return f"{span(one.began_ms, one.until_ms)}: {fate}{real}"


# ------------------------------------------------------------------ the rest


def _keys(report: Report) -> str:
    if not report.top_keys:
        return ""
    rows = [
        [text(one.key, 120), f"{one.pages:,}", f"{one.withheld:,}", f"{one.alerts:,}",
         f"{one.open_share:.1%}"]
        for one in report.top_keys
    ]  # fmt: skip
    heads = ["series", "pages led", "withheld", "alerts", "time with an alert open"]
    about = "Series that raised most; one that is always open is no use to anybody: leave it out."
    return section("Top series", about, table(heads, rows, texts=(0,)))


def _calibration(report: Report) -> str:
    if not report.calibration:
        return ""
    heads = ["windows", "number", *(f"p &lt; {promise:g}" for promise in PROMISES)]
    rows = []
    for one in report.calibration:
        cells = [_share(seen, promise) for seen, promise in zip(one.seen, PROMISES, strict=True)]
        rows.append([f"{one.of}, {one.look}", f"{one.windows:,}", *cells])
    about = (
        "The share of windows that were so rare by their own p-value, and how many times the "
        "promise that is. Windows overlap and anomalies are among them, so somewhat more is usual."
    )
    return section("Calibration", about, table(heads, rows, texts=(0,)))


def _share(seen: float, promise: float) -> str:
    return f'{share(seen)} <span class="dim small">{seen / promise:.1f}x</span>'


def _learning(report: Report) -> str:
    one = report.learning
    rows = [["series", f"{one.series:,}"]]
    if one.median_ms is not None:
        rows.append(["first p-value, median series, after", duration(one.median_ms)])
    if one.longest_ms is not None:
        longest = f"{duration(one.longest_ms)} ({text(one.longest_key, 80)})"
        rows.append(["first p-value, slowest series, after", longest])
    rows += [
        ["share of all time before", f"{one.share:.1%}"],
        ["a new series may page after", duration(one.soak_ms)],
    ]
    if one.never:
        named = ", ".join(text(name, 80) for name in one.never_named)
        more = ", ..." if one.never > len(one.never_named) else ""
        rows.append(["series without any p-value", f"{one.never:,} ({named}{more})"])
    about = "What is still being learned cannot alert; an artifact ('streamad fit') shortens it."
    return section("Learning", about, table(["", ""], rows, texts=(1,)))


def _rejected(report: Report) -> str:
    rows = [
        [text(reason, 80), f"{n:,}", text(report.details.get(reason, ""), 200)]
        for reason, n in report.rejected.items()
    ]
    rows += [[text(reason, 80), f"{n:,}", "not asked for by the pipeline"]
             for reason, n in report.passed.items()]  # fmt: skip
    if report.late:
        rows.append(["late", f"{report.late:,}", "came after later rows of its series"])
    if report.incomplete:
        rows.append(
            ["incomplete windows", f"{report.incomplete:,}", "too many samples missing: not scored"]
        )
    if not rows:
        return section("Not judged", "Every row was used.", "")
    body = table(["reason", "number", "for example"], rows, texts=(2,))
    return section("Not judged", "Rows and windows that no score was made of.", body)
