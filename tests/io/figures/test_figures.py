"""Figures and reports: complete and self-contained."""

from __future__ import annotations

import re
from html.parser import HTMLParser

import numpy as np
import pytest
from made_runs import blobs
from matplotlib.figure import Figure
from PIL import Image

from hrviewer.errors import HrviewerError
from hrviewer.io import export
from hrviewer.io.figures.overlay_figure import bar_length, load_figure_data, make_caption
from hrviewer.io.figures.plots import AxisLabel, PlotTheme, draw_histogram, plot_points
from hrviewer.pyramid import open_pyramid


@pytest.mark.parametrize("name", ["output", "saliency", "cost"])
def test_figure_has_the_requested_resolution(made, tmp_path, name):
    path = export(made(), tmp_path / "a.png", map=name, dpi=100, inches=4, channel=0)
    with Image.open(path) as picture:
        assert picture.width == 400
        assert picture.info["dpi"] == pytest.approx((100, 100), abs=0.1)
        assert len(picture.convert("RGB").getcolors(10**6)) > 100


def test_figure_data_is_the_map(made):
    plane = blobs((100, 120), (30, 40, 10))
    plane[80:] = np.nan
    data = load_figure_data(made(output=plane[None]), "output", -1, 120)
    # 16 pixels of 0.25 × 0.5 µm per cell.
    np.testing.assert_allclose(data.values, plane / (16 * 0.25 * 0.5 * 1e-6), rtol=1e-6)
    assert data.label == "cells per mm²"
    assert data.limits == (0.0, 5e5)
    assert data.unit == "µm"
    assert data.pixel_size == pytest.approx((4 * 0.25, 4 * 0.5))
    assert data.photo is None


def test_marks_are_large_enough_to_be_recognised(made):
    """A cell of one pixel becomes a square of four that has the mean of its cells."""
    plane = np.zeros((80, 120))
    plane[40, 60] = 1.6
    data = load_figure_data(made(output=plane[None]), "output", -1, 120, mark=4)
    rows, columns = np.nonzero(data.values)
    assert data.values.shape == (80, 120)
    assert (np.ptp(rows), np.ptp(columns), len(rows)) == (3, 3, 16)
    assert data.values.max() == pytest.approx(0.1 / (16 * 0.25 * 0.5 * 1e-6))


def test_the_map_of_a_small_region_lies_where_it_belongs(made):
    """A region of 45 × 60 pixels that starts inside a cell of 4, with squares of 4 pixels."""
    rows, columns = np.mgrid[:80, :120]
    run = made(output=(rows * 1000.0 + columns)[None])
    run.header["region"] = [5, 10, 45, 60]
    data = load_figure_data(run, "output", -1, 60)
    cells = data.values * (16 * 0.25 * 0.5 * 1e-6)
    np.testing.assert_allclose(cells[:, 0] // 1000, (5 + np.arange(45) + 0.5) // 4)
    np.testing.assert_allclose(np.round(cells[0] % 1000), (10 + np.arange(60) + 0.5) // 4)
    marked = load_figure_data(run, "output", -1, 60, mark=4).values
    assert marked.shape == (45, 60)
    assert np.abs(marked - data.values).max() <= data.values.max() * 0.12


def test_an_outlier_does_not_make_a_histogram_of_millions_of_bars():
    """As the seconds of a batch whose images but one were cached."""
    panel = Figure().subplots()
    draw_histogram(panel, [*np.linspace(0.01, 0.011, 99), 300.0], "seconds", PlotTheme())
    assert len(panel.patches) < 20


def test_image_is_the_background(made):
    run = made(geo=True)
    with open_pyramid(run.header["image"]["path"]) as pyramid:
        run.header["image"]["fingerprint"] = pyramid.fingerprint
    data = load_figure_data(run, "saliency", -1, 200)
    assert data.photo is not None
    assert data.photo.shape == (*data.values.shape, 3)


def test_one_class_and_the_sum(made):
    output = np.stack([blobs((50, 50), (10, 10, 5)), 2 * blobs((50, 50), (10, 10, 5))])
    run = made(output=output)
    both, second = (load_figure_data(run, "output", channel, 50) for channel in (-1, 1))
    assert np.nanmax(both.values) / np.nanmax(second.values) == pytest.approx(3 / 2)
    assert both.label.startswith("objects per")
    assert second.label.startswith("stroma")
    with pytest.raises(HrviewerError, match="no channel 7; it has: 0 cell, 1 stroma"):
        load_figure_data(run, "output", 7, 50)


@pytest.mark.parametrize(("width", "bar"), [(100, 20), (199, 20), (200, 50), (8, 2), (0.4, 0.1)])
def test_scale_bars_are_round_and_at_most_a_quarter(width, bar):
    assert bar_length(width) == pytest.approx(bar)


def test_default_caption_describes_the_run(made):
    run = made()
    caption = make_caption(run)
    assert "a.svs: toy, patches" in caption
    assert "3.5 cells" in caption
    run.header["complete"] = False
    assert "incomplete" in make_caption(run)
    assert make_caption(run, "mine $x_1$") == "mine $x_1$"


def test_dollar_signs_in_captions_are_literal(made, tmp_path):
    export(made(), tmp_path / "a.png", caption="costs $5 per $\\frac slide", dpi=50)


class Page(HTMLParser):
    """Collects what a page shows and what it needs."""

    def __init__(self) -> None:
        super().__init__()
        self.needs: list[str] = []
        self.words: list[str] = []

    def handle_starttag(self, tag, attrs):
        self.needs += [v for k, v in attrs if k in ("src", "href") and v]

    def handle_data(self, data):
        self.words.append(data)


def test_report_is_complete_and_self_contained(made, tmp_path):
    run = made()
    run.header["image"]["path"] = "<b>.svs"
    run.header["estimate"]["ci95"] = [2.4, 4.4]
    run.header["truth"] = {"value": 4, "error": -0.5, "game": {"0": 0.5}}
    page = Page()
    text = export(run, tmp_path / "a.html").read_text("utf-8")
    page.feed(text)
    words = " ".join(page.words)
    assert len(page.needs) == 3
    assert all(need.startswith("data:image/png;base64,") for need in page.needs)
    assert not re.search(r"https?://|url\(", text)
    for part in ("<b>.svs", "toy", "patches", '{"tile": 64}', "a note", "1.2.3",
                 "3.5 cells; 95 % interval: 2.4 – 4.4 for exhaustive inference",
                 "FLOPs", "f00d", "4, error -0.5"):  # fmt: skip
        assert part in words
    assert "incomplete" not in words


COSTS = [(77.9e9, 97.6e9), (18.6e6, 32.4e6), (2.4e10, 3e11), (1e9, 1e12)]


@pytest.mark.parametrize("costs", COSTS)
def test_points_lie_inside_the_axes_which_have_several_ticks(costs):
    figure = Figure()
    panel = figure.add_subplot()
    label, errors = AxisLabel("cost", "FLOP"), np.array([22.3, 171.0])
    plot_points(panel, np.array(costs), errors, ["zoom", "uniform"], label, PlotTheme())
    figure.canvas.draw()
    low, high = panel.get_xlim()
    inside = [tick for tick in panel.get_xticks() if low <= tick <= high]
    assert 2 <= len(inside) <= 6
    bottom, top = panel.get_ylim()
    assert bottom == 0
    assert top > 171 * 1.05


@pytest.mark.parametrize("errors", [(0.0, 0.05), (0.0055, 0.05), (0.0, 0.0)])
def test_points_on_the_axis_are_drawn_whole(errors):
    panel = Figure().add_subplot()
    label = AxisLabel("cost", "FLOP")
    plot_points(panel, np.array([1e6, 2e6]), np.array(errors), ["a", "b"], label, PlotTheme())
    bottom, top = panel.get_ylim()
    room = 0.05 * (top - bottom)
    assert bottom + room < min(errors)
    assert max(errors) < top - room
