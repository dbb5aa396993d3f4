"""Figures of intervals, by hand."""

from __future__ import annotations

from dataclasses import replace

from benchmarks.coverage import Pair, images, region_of, render_table, summarize, tabulate
from hrviewer.geometry import Rect


def pair(ci95, ci95_truth, *, size=2048, seed=0, value=100.0) -> Pair:
    return Pair("zoom", "crowd", size, seed, 0, value, 100.0, 120.0, ci95, ci95_truth)


def test_figures() -> None:
    pairs = [
        pair([90.0, 110.0], [80.0, 119.0]),
        pair([101.0, 111.0], [80.0, 130.0], seed=1, value=110.0),
        pair(None, None, seed=1, value=None),
    ]
    found = summarize(pairs)
    assert (found["pairs"], found["images"], found["with_interval"]) == (3, 2, 0.667)
    assert (found["ci95"], found["ci95_truth"]) == (0.5, 0.5)
    assert (found["median_half_width"], found["median_error"]) == (0.075, 0.05)
    assert found["median_score"] == 0.35  # of 0.2, and 0.1 with a miss by 0.01
    table = tabulate([*pairs, pair([90.0, 110.0], None, size=4096)])
    assert [*table["zoom"]] == ["all", "crowd 2048", "crowd 4096"]
    assert table["zoom"]["crowd 4096"]["ci95_truth"] is None
    line = render_table([*pairs, pair([90.0, 110.0], None, size=4096)]).splitlines()[-1]
    assert line == "| `zoom` | 3 | 4 | 75% | 67% | 50% | 50% | 8% | 10% | 0.20 |"


def test_seeds_go_on_from_size_to_size() -> None:
    found = list(images("2048x2x4,4096x1x1", 10100))
    assert found == [(2048, 10100, 4), (2048, 10101, 4), (4096, 10102, 1)]


def test_quarters_of_an_image_take_the_place_of_draws() -> None:
    image = Rect(0, 0, 2048, 2048)
    quarters = [region_of(image, 1024, draw) for draw in range(1, 5)]
    assert region_of(image, 2048, 0) == image
    assert sum(quarter.area for quarter in quarters) == image.area
    assert {(quarter.y, quarter.x) for quarter in quarters} == {
        (0, 0), (0, 1024), (1024, 0), (1024, 1024)
    }  # fmt: skip
    whole = replace(pair([90.0, 110.0], None), strategy="uniform")
    assert summarize([whole, replace(whole, size=1024, draw=1)])["images"] == 1
