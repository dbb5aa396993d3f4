"""The demonstration's film, region, camera path, table and contact sheet; no window."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from hrviewer.geometry import Rect
from hrviewer.pyramid import open_pyramid
from hrviewer.viewer.demo.demo import Row, busiest_region, contact_sheet, table, zoom_path
from hrviewer.viewer.demo.film import Film


def noise(seed, shape=(90, 160)):
    return np.random.default_rng(seed).integers(0, 256, (*shape, 4), np.uint8)


def test_a_film_plays_its_frames(tmp_path):
    film = Film(width=80)
    for seed in range(3):
        film.add(noise(seed), 0.25)
    film.hold(1.0)
    film.save(tmp_path / "a.webp")
    with Image.open(tmp_path / "a.webp") as made:
        assert made.size == (80, 45)
        assert made.n_frames == 3
        durations = []
        for i in range(3):
            made.seek(i)
            made.load()
            durations.append(made.info["duration"])
    assert durations == [250, 250, 1250]


def test_equal_frames_are_one(tmp_path):
    film = Film(width=80)
    film.add(noise(0), 0.2)
    film.add(noise(0), 0.3)
    assert film.durations == [500]


def test_a_film_fits_its_size(tmp_path):
    film = Film(width=160)
    for seed in range(16):
        film.add(noise(seed), 0.1)
    limit = 40_000
    assert film.save(tmp_path / "a.webp", limit) <= limit
    with Image.open(tmp_path / "a.webp") as made:
        assert 1 < made.n_frames < 16


def test_the_busiest_region_has_the_detail():
    image = np.full((1024, 2048, 3), 240, np.uint8)
    image[600:900, 1500:1800] = noise(1, (300, 300))[..., :3]
    region = busiest_region(open_pyramid(image), 320)
    assert region.h == region.w == 320
    assert (region & Rect(600, 1500, 300, 300)).area > 0.8 * 300 * 300


def test_the_region_of_a_small_image_fits():
    image = noise(2, (100, 70))[..., :3]
    region = busiest_region(open_pyramid(image))
    assert region in Rect(0, 0, 100, 70)


def test_the_camera_goes_from_all_to_the_region():
    image, region = Rect(0, 0, 1000, 1000), Rect(700, 100, 200, 200)
    path = list(zoom_path(image, region, 10.0, 1.0, 5))
    assert path[0] == ((500, 500), 10.0)
    assert path[-1] == (pytest.approx((800, 200)), pytest.approx(1.0))
    pixels = [pixel for _, pixel in path]
    assert pixels == sorted(pixels, reverse=True)


def test_the_table_gives_errors_against_ground_truth_or_patches():
    rows = [
        Row("patches", "110 nuclei", 110.0, (110.0, 110.0), 4e9, 2.0, 1e6),
        Row("zoom", "99 nuclei", 99.0, (90.0, 120.0), 1e9, 1.0, 5e5),
    ]
    known = table(rows, 100.0).splitlines()
    assert "ground truth" in known[0]
    assert "+10.0 %" in known[1]
    assert "exhaustive" in known[1]
    assert "90 – 120" in known[2]
    assert "-1.0 %" in known[2]
    assert known[3].split() == ["ground", "truth", "100"]
    unknown = table(rows, None)
    assert "-10.0 %" in unknown
    assert "ground truth" not in unknown


def test_a_contact_sheet_has_all_overlays():
    sheet = contact_sheet({name: noise(i) for i, name in enumerate("abcd")}, "zoom: 5 objects")
    assert sheet.width > 1280
    assert np.asarray(sheet).std() > 50
