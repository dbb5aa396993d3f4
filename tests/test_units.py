from __future__ import annotations

import math

import pytest

from hrviewer.units import (
    format_amount,
    format_duration,
    format_si,
    format_signed,
    nice_ceiling,
)


@pytest.mark.parametrize(
    ("value", "words"),
    [(0, "0 B"), (999, "999 B"), (999.9, "1 kB"), (1.23e12, "1.23 TB"), (math.nan, "–")],
)
def test_si(value, words):
    assert format_si(value, "B") == words


def test_si_without_a_unit():
    assert format_si(5e4) == "50 k"
    assert format_si(3) == "3"


@pytest.mark.parametrize(
    ("value", "words"),
    [(2418.3, "2,418"), (99.6, "100"), (12.34, "12.3"), (0.7134, "0.713"), (1.23e6, "1.23 M")],
)
def test_amount(value, words):
    assert format_amount(value) == words


def test_signed():
    assert [format_signed(off) for off in (2070, -1260.4, 0, 994, math.nan)] == [
        "+2,070", "-1,260", "0", "+994", "–",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(0.44, "0.4 s"), (42.3, "42 s"), (185, "3 min 05 s"), (7800, "2 h 10 min")],
)
def test_duration(seconds, words):
    assert format_duration(seconds) == words


@pytest.mark.parametrize(
    ("value", "end"), [(1, 1), (1.1, 2), (2.0001, 5), (7, 10), (3e-4, 5e-4), (0, 1), (math.inf, 1)]
)
def test_nice(value, end):
    assert nice_ceiling(value) == pytest.approx(end)
