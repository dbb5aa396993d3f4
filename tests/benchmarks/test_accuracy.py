"""The error of counts, measured on populations whose error is known."""

from __future__ import annotations

import json

import numpy as np
import pytest

from benchmarks.accuracy import (
    CountPairs,
    Remainders,
    coverage,
    fit_count_error,
    fit_deviation,
    fit_prediction_error,
    parse_scales,
    parse_sizes,
    write_accuracy,
)
from benchmarks.network_maps import sum_blocks
from hrviewer.models import ModelBundle
from hrviewer.models.accuracy import Measurement

ORIGIN = Measurement(domain="a test", synthetic="dots", images=500, data="made", command="none")


def population(n: int, seed: int) -> CountPairs:
    """Return counts 10 % too high, whose errors grow with their root and in proportion."""
    rng = np.random.default_rng(seed)
    corrected = np.exp(rng.uniform(0, 7, n))
    deviation = np.sqrt(0.5 * corrected + (0.05 * corrected) ** 2 + 0.09)
    true = corrected + rng.standard_normal(n) * deviation
    return CountPairs(corrected * 1.1, true, np.full(n, 2048))


def test_the_terms_of_the_error_are_recovered() -> None:
    known = population(4000, 0)
    bias, constant, per_object, relative = fit_deviation(known.predicted, known.true)
    assert bias == pytest.approx(0.1, abs=0.01)
    assert constant == pytest.approx(0.3, abs=0.4)
    assert per_object == pytest.approx(0.5, abs=0.15)
    assert relative == pytest.approx(0.05, abs=0.01)


def test_intervals_hold_true_counts_of_other_images() -> None:
    error = fit_count_error(population(200, 1), ORIGIN)
    assert 0.95 <= coverage(population(4000, 2), error)["2048"] <= 0.995
    # Images without objects have no error to learn from, but are not certain.
    empty = CountPairs(np.zeros(50), np.zeros(50), np.full(50, 2048))
    assert fit_count_error(empty, ORIGIN).deviation(0) >= 0.3


def test_the_error_that_an_image_shares_is_found_though_there_are_few_large_images() -> None:
    rng = np.random.default_rng(5)
    side = np.repeat([1024.0, 8192.0], [400, 12])
    predicted = np.where(side == 1024, 10.0, 1000.0)
    shared = 1 + 0.1 * rng.standard_normal(len(side))
    exact = predicted * shared + rng.standard_normal(len(side)) * np.sqrt(0.5 * predicted)
    sums = Remainders(predicted, np.zeros_like(predicted), exact, exact, side)
    found = fit_prediction_error(sums, ORIGIN)
    assert 0.06 < found.ratio_deviation < 0.14
    assert 0.3 < found.per_object < 0.7
    assert found.ratio == pytest.approx(1, abs=0.05)


def test_a_figure_replaces_that_of_its_domain(tmp_path) -> None:
    card = {
        "name": "net",
        "task": "density",
        "input": {"channels": "rgb", "tile": 64},
        "output": {"stride": 1, "classes": ["thing"]},
    }
    roles = {"main": {"weights": "main.onnx", "card": card}}
    (tmp_path / "main.onnx").touch()
    (tmp_path / "bundle.json").write_text(json.dumps({"name": "net", "roles": roles}))
    first = fit_count_error(population(50, 3), ORIGIN)
    photos = ORIGIN.model_copy(update={"synthetic": None, "domain": "photos"})
    for found in (first, fit_count_error(population(50, 4), photos), first):
        write_accuracy(tmp_path, "main", found)
    accuracy = ModelBundle.read(tmp_path).card.accuracy
    assert accuracy.count_error_for("dots") == first
    assert [one.domain for one in accuracy.count_error] == ["photos", "a test"]


def test_images_and_regions() -> None:
    assert list(parse_sizes("2048x2,4096x1")) == [(2048, 10000), (2048, 10001), (4096, 10002)]
    assert sum_blocks(np.ones((3, 5)), 2).tolist() == [[4, 4, 2], [2, 2, 1]]


def test_scales_are_written_as_ranges() -> None:
    assert parse_scales("1..1.25,2..3/4,8") == [
        1.0625,
        1.125,
        1.1875,
        1.25,
        2,
        2.25,
        2.5,
        2.75,
        3,
        8,
    ]
