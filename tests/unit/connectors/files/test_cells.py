"""Cells: numbers with units and separators of many countries, and times of every spelling."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import numpy as np
import polars as pl
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from connectors.files.moments import CLOCKS, DATES, is_time, read_moments
from connectors.files.numbers import has_decimal_commas, read_numbers
from streamad.errors import ConfigError

numbers = st.floats(-1e9, 1e9, allow_nan=False).map(lambda x: round(x, 3) + 0.0)


@settings(max_examples=100, deadline=None, derandomize=True)
@given(st.lists(numbers, min_size=3, max_size=30), st.sampled_from(["", "%", " ms", " req/s"]))
def test_numbers_are_read_as_they_were_written(given_, unit):
    points = pl.Series([f"{number:,.3f}{unit}" for number in given_])
    swap = str.maketrans(",.", ".,")
    commas = pl.Series([text.translate(swap) for text in points])
    assert not has_decimal_commas([points], separator=",")
    assert has_decimal_commas([commas], separator=";")
    for column, with_commas in ((points, False), (commas, True)):
        read = read_numbers(column, commas=with_commas)
        np.testing.assert_allclose(read.values.to_numpy(), given_)
        assert (read.unit, read.fits) == (unit.strip(), True)


@pytest.mark.parametrize(
    ("cells", "values", "unit"),
    [
        (["1 kB", "2.5 MB", "0 B"], [1e3, 2.5e6, 0], "bytes"),
        (["1 KiB", "1 GiB"], [1024, 2**30], "bytes"),
        (["900 µs", "1.5 ms", "2 s", "1 min"], [9e-4, 1.5e-3, 2, 60], "seconds"),
        (["1.2 K", "3 Mil", "7"], [1200, 3e6, 7], ""),
        (["1 kB/s", "2.5 MB/s", "3 B/s"], [1e3, 2.5e6, 3], "bytes/s"),
        (["1 KiB/s", "1 MiB/s"], [1024, 2**20], "bytes/s"),
        (["1 kb/s", "2 Mb/s"], [1e3, 2e6], "bits/s"),
        (["800 kbps", "1.5 Mbps"], [8e5, 1.5e6], "bps"),
        (["900 req/s", "1.2K req/s", "1 M req/s"], [900, 1200, 1e6], "req/s"),
        (["800 W", "1.2 kW", "0"], [800, 1200, 0], "W"),
        (["800 mV", "1.2 V"], [0.8, 1.2], "V"),
        (["512Mi", "1Gi"], [2**29, 2**30], "bytes"),
        (["1 234,5", "2"], [1234.5, 2], ""),
        (["\N{MINUS SIGN}3.5", "4"], [-3.5, 4], ""),
        (["1e3", " 2 ", "N/A", "", "-", "null", "+Inf"], [1e3, 2, *[None] * 5], ""),
    ],
)
def test_units_and_what_stands_for_nothing(cells, values, unit):
    read = read_numbers(pl.Series(cells), commas=any("," in cell for cell in cells))
    assert read.values.to_list() == pytest.approx(values)
    assert read.unit == unit
    assert not read.unread.any()


@pytest.mark.parametrize(
    "cells",
    [
        ["web-1", "web-2"],
        ["1 apple", "2 pears"],
        ["1 kW", "2 kB"],
        ["10.0.0.1"],
        ["10 20"],
        ["10:00"],
        ["1/2/26"],
        [None],
    ],
)
def test_texts_are_no_numbers(cells):
    assert not read_numbers(pl.Series(cells, dtype=pl.String)).fits


def test_a_few_bad_cells_do_not_make_a_column_of_texts():
    read = read_numbers(pl.Series(["1", "2", "3", "4", "broken"]))
    assert read.fits
    assert read.unread.to_list() == [False] * 4 + [True]


EARLIEST = datetime(1999, 1, 1, tzinfo=UTC)
moments = st.integers(0, 2_177_000_000).map(lambda s: EARLIEST + timedelta(seconds=s))
TEXTS = [c.replace("%S%.f", "%S") for c in CLOCKS]


@settings(max_examples=300, deadline=None, derandomize=True)
@given(moments, st.sampled_from(DATES), st.sampled_from(TEXTS), st.integers(60, 90_000))
def test_dates_are_read_in_the_pattern_they_were_written_in(first, date, clock, step):
    # Forty days or more, so that the order of day and month shows.
    assume("%H" in clock or "%I" in clock)
    every = timedelta(seconds=max(step, 7_200) - max(step, 7_200) % 60)
    times = [first + every * i for i in range(500)]
    texts = pl.Series([t.strftime(date + clock) for t in times])
    fine = 1 if "%S" in clock else 60
    read = read_moments(texts)
    assert read is not None
    wanted = [int(t.timestamp()) // fine * fine * 1000 for t in times]
    assert read.ms.tolist() == wanted


@pytest.mark.parametrize(
    "pattern",
    [
        "%Y%m%d%H%M%S",
        "%Y%m%d%H%M",
        "%a %b %d %H:%M:%S %Y",
        "%a %b %e %H:%M:%S UTC %Y",
        "%Y年%m月%d日 %H:%M",
        "%Y年%m月%d日 %H时%M分%S秒",
        "%Y年%m月%d日 %H時%M分",
        "%Y.%m.%d. %H:%M",
        "%Y. %m. %d. %H:%M",
        "%d. %m. %Y %H:%M:%S",
    ],
)
def test_dates_of_other_countries_and_of_programs_are_read(pattern: str):
    times = [datetime(2026, 5, 28, 23, tzinfo=UTC) + timedelta(minutes=7 * i) for i in range(400)]
    read = read_moments(pl.Series([t.strftime(pattern) for t in times]))
    assert read is not None
    assert read.ms.tolist() == [int(t.timestamp()) * 1000 for t in times]


def test_days_alone_are_read_where_their_order_shows():
    days = [datetime(2026, 1, 25, tzinfo=UTC) + timedelta(days=i) for i in range(20)]
    for pattern in ("%d/%m/%Y", "%m/%d/%Y"):
        read = read_moments(pl.Series([day.strftime(pattern) for day in days]))
        assert read is not None
        assert np.diff(read.ms).tolist() == [86_400_000] * 19


def test_days_and_months_that_may_be_exchanged_are_refused():
    cells = [f"03/02/2026 {hour:02}:00" for hour in range(24)]
    with pytest.raises(ConfigError, match=r"2026-0[23]-0[23] or 2026-0[23]-0[23]; write"):
        read_moments(pl.Series(cells))


@pytest.mark.parametrize(
    "text",
    [
        "2026-03-02",
        "2026-03-02T00:00:00+01:00",
        "02.03.2026 10:00",
        "Mar 2, 2026",
        "1772409600",
        "1772409600.25",
        "1772409600000000000",
    ],
)
def test_a_time_is_no_name(text: str):
    assert is_time(text)


@pytest.mark.parametrize("text", ["cpu", "p99", "host-2026", "51.17", "1.2.3", "", "2019"])
def test_a_name_is_no_time(text: str):
    assert not is_time(text)


def test_a_column_of_names_or_small_numbers_is_no_time():
    assert read_moments(pl.Series(["a", "b"])) is None
    assert read_moments(pl.Series([], dtype=pl.String)) is None
