"""Tables are whole where they are read by programs, and legible on narrow terminals."""

from __future__ import annotations

import re

import pandas as pd
import pytest

from hrviewer.cli.batch import print_batch
from hrviewer.cli.tables import print_table

COLUMNS = {
    "strategy": ["transformer", "zoom"],
    "estimate": ["1,216.0", "[red]1,258.1"],
    "of once per pixel": ["0.22", "0.1"],
    "error": ["+40.2", "+82.1"],
}


@pytest.fixture
def shown(monkeypatch, capsys):
    """The lines of the table on a terminal of some columns; 0 for none."""

    def lines(width: int) -> list[str]:
        if width:
            for name, value in ("FORCE_COLOR", "1"), ("TERM", "xterm"), ("COLUMNS", str(width)):
                monkeypatch.setenv(name, value)
        print_table(COLUMNS, left=("strategy",), dropped_first=("of once per pixel", "error"))
        return re.sub("\x1b\\[[0-9;]*m", "", capsys.readouterr().out).splitlines()

    return lines


def test_programs_get_every_column_in_one_line(shown):
    title, first, second = shown(0)
    assert title.split() == ["strategy", "estimate", "of", "once", "per", "pixel", "error"]
    assert first.split() == ["transformer", "1,216.0", "0.22", "+40.2"]
    assert second.split()[1] == "[red]1,258.1"  # not markup


@pytest.mark.parametrize(
    ("width", "missing"),
    [(80, ""), (60, ""), (40, "of once per pixel"), (30, "of once per pixel, error")],
)
def test_columns_that_do_not_fit_are_named(shown, width, missing):
    lines = shown(width)
    text = " ".join(" ".join(lines).split())
    assert [line for line in lines if len(line.rstrip()) > width] == []
    assert "transformer" in text
    assert "[red]1,258.1" in text
    assert ("+82.1" in text) is ("error" not in missing)
    assert text.partition("in a wider terminal also: ")[2].strip() == missing


def test_a_batch_lists_counts_and_shares_as_people_write_them(capsys):
    rows = [
        {"image": "/a/b.svs", "status": "done", "estimate": 1145.47, "ci95_low": 1100.2,
         "ci95_high": 1203.9, "seconds": 2.04},
        {"image": "/a/c.svs", "status": "done", "estimate": 0.7134, "ci95_low": None,
         "ci95_high": None, "seconds": 1.0},
        {"image": "/a/d.svs", "status": "failed", "estimate": None, "ci95_low": None,
         "ci95_high": None, "seconds": None},
    ]  # fmt: skip
    print_batch(pd.DataFrame(rows))
    _, *lines = (line.split() for line in capsys.readouterr().out.splitlines())
    assert lines == [
        ["b.svs", "done", "1,145", "1,100", "–", "1,204", "2.0"],
        ["c.svs", "done", "0.713", "1.0"],
        ["d.svs", "failed"],
    ]
