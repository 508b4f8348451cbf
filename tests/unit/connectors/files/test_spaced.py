"""Columns that spaces part: read as they were printed, or refused with the line that is unclear."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from connectors.files import read_sheet
from connectors.files.delimited import read_delimited
from streamad.errors import ConfigError
from tests.unit.connectors.files.test_tools import EPOCHS, A, B, N, comma, iso, lines, read, two

PADDED = {
    "plain": lines("time  cpu  mem", row=lambda i: f"{EPOCHS[i]}  {A[i]:9} {B[i]:9}"),
    "one space": lines("time cpu mem", row=lambda i: f"{EPOCHS[i]} {A[i]} {B[i]}"),
    "dates with a space": lines("time   cpu   mem", row=lambda i: f"{iso(i)}   {A[i]}   {B[i]}"),
    "dates of two words": lines("when cpu mem", row=lambda i: f"{iso(i)} {A[i]} {B[i]}"),
    "dates of four words": lines(
        "when cpu mem", row=lambda i: f"{iso(i, '%b %d %Y %H:%M:%S')} {A[i]} {B[i]}"
    ),
    "date and clock apart": lines("date clock cpu mem", row=lambda i: f"{iso(i)} {A[i]} {B[i]}"),
    "decimal commas": lines(
        "Zeit cpu mem", row=lambda i: f"{EPOCHS[i]} {comma(A[i])} {comma(B[i])}"
    ),
    "units": lines("time   cpu   mem", row=lambda i: f"{EPOCHS[i]}   {A[i]} %   {B[i]} s"),
    "a rule below the names": lines(
        "time  cpu  mem", "----  ---  ---", row=lambda i: f"{EPOCHS[i]}  {A[i]}  {B[i]}"
    ),
    "names in a comment": lines(
        "# written by hand", "# time cpu mem", row=lambda i: f"{EPOCHS[i]} {A[i]} {B[i]}"
    ),
    "a title before": lines(
        "Report of today", "", "time cpu mem", row=lambda i: f"{iso(i)} {A[i]} {B[i]}"
    ),
    "a table that pandas prints": lines(
        "                     time     cpu    mem", row=lambda i: f"{i:<3} {iso(i)}  {A[i]}  {B[i]}"
    ),
    "tabs, padded": lines("time\t cpu\t mem", row=lambda i: f"{EPOCHS[i]}\t {A[i]:9}\t {B[i]}"),
    "tabs, several": lines("time\t\tcpu\tmem", row=lambda i: f"{EPOCHS[i]}\t{A[i]}\t\t{B[i]}"),
    "texts beside": lines(
        "time   cpu   mem   state", row=lambda i: f"{EPOCHS[i]}   {A[i]}   {B[i]}   not bad"
    ),
}


@pytest.mark.parametrize("name", PADDED)
def test_columns_padded_by_spaces_are_read(tmp_path: Path, name: str):
    (tmp_path / "a.txt").write_text(PADDED[name])
    assert read(tmp_path / "a.txt") == two("cpu", "mem")


@pytest.mark.parametrize("decimal", [str, comma])
def test_columns_padded_by_spaces_need_no_names(tmp_path: Path, decimal: Callable[[float], str]):
    text = lines(row=lambda i: f"{EPOCHS[i]}  {decimal(A[i])}  {decimal(B[i])}")
    (tmp_path / "a.txt").write_text(text)
    assert read(tmp_path / "a.txt") == two("column_2", "column_3")


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("time a b\n1772409600 1 2\n1772409660 1\n1772409720 1 3\n", "line 3 has 2 words where"),
        (
            "time a b\n" + "".join(f"{1772409600 + i} 1{' 2' * (i != 400)}\n" for i in range(500)),
            "line 402 has 2 fields and the others 3",
        ),
        (
            "time a b\n" + "".join(f"{1772409600 + i} web {i} 1\n" for i in range(9)),
            "line 1 has 3 words where most have 4",
        ),
    ],
)
def test_columns_that_cannot_be_known_are_refused(text: str, told: str):
    with pytest.raises(ConfigError, match=told) as refused:
        read_delimited(text.encode(), "a.txt")
    assert "commas or tabs" in str(refused.value)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    "text",
    [
        lines("time, cpu, mem", row=lambda i: f"{iso(i)}, {A[i]}, {B[i]}"),
        lines(row=lambda i: f"{iso(i)}, {A[i]}, {B[i]}"),
        lines("time;the cpu;mem", row=lambda i: f"{iso(i)};{comma(A[i])};{comma(B[i])}"),
        lines("time\tcpu\tmem", row=lambda i: f"{iso(i)}\t{A[i]}\t{B[i]}"),
    ],
)
def test_spaces_beside_a_separator_part_nothing(tmp_path: Path, text: str):
    (tmp_path / "a.txt").write_text(text)
    sheet = read_sheet(tmp_path / "a.txt")
    assert (sheet.frame.width, sheet.frame.height) == (3, N)
    assert sheet.separator != " "


def test_a_single_column_with_units_stays_one(tmp_path: Path):
    (tmp_path / "a.txt").write_text(lines("CPU usage", row=lambda i: f"{A[i]} %"))
    assert read_sheet(tmp_path / "a.txt").frame.columns == ["CPU usage"]
