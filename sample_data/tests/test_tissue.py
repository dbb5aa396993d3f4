from itertools import pairwise

import numpy as np
import pytest
from hrviewer.geometry import Rect
from scipy import ndimage

from hrviewer_samples.tissue import Tissue
from hrviewer_samples.tissue.materials import make_palette
from hrviewer_samples.tissue.slide import make_slide

SIZE = 2048


def busiest(slide: Tissue, side: int = 512) -> Rect:
    """Return the aligned square that holds most nuclei."""
    at = slide.ground_truth(Rect(0, 0, slide.size, slide.size)).points.astype(int) // side
    cells, counts = np.unique(at, axis=0, return_counts=True)
    y, x = cells[counts.argmax()] * side
    return Rect(int(y), int(x), side, side)


@pytest.fixture(scope="module", params=[0, 1, 4])
def slide(request: pytest.FixtureRequest) -> Tissue:
    return Tissue(SIZE, request.param)


def shrunk(image: np.ndarray, by: int) -> np.ndarray:
    h, w = image.shape[0] // by, image.shape[1] // by
    return image[: h * by, : w * by].reshape(h, by, w, by, 3).mean((1, 3))


@pytest.mark.parametrize("scale", [1, 2, 8, 64])
def test_a_part_does_not_depend_on_the_request(slide: Tissue, scale: int) -> None:
    whole = busiest(slide)
    side = 512 if scale < 64 else 0
    rect = whole if side else Rect(0, 0, SIZE, SIZE)
    pixels = slide.render(rect, scale)
    y, x = 3 * scale, 5 * scale
    h, w = rect.h // scale * scale - y - 2 * scale, rect.w - x - scale
    part = Tissue(SIZE, slide.seed).render(Rect(rect.y + y, rect.x + x, h, w), scale)
    np.testing.assert_array_equal(part, pixels[3 : 3 + len(part), 5 : 5 + part.shape[1]])


def test_out_of_focus_parts_meet_without_a_seam() -> None:
    seed = next(s for s in range(100) if make_slide(SIZE, s).blur and make_slide(SIZE, s).cells > 1)
    slide = Tissue(SIZE, seed)
    rect = busiest(slide)
    left = slide.render(Rect(rect.y, rect.x, 512, 200), 1)
    right = slide.render(Rect(rect.y, rect.x + 200, 512, 312), 1)
    np.testing.assert_array_equal(np.hstack([left, right]), slide.render(rect, 1))


def test_sides_that_no_scale_divides_are_rounded_up(slide: Tissue) -> None:
    assert slide.render(Rect(8, 16, 100, 33), 8).shape == (13, 5, 3)
    assert slide.render(Rect(0, 0, SIZE, SIZE), 4096).shape == (1, 1, 3)


@pytest.mark.parametrize("scale", [2, 4, 8, 16, 32, 64])
def test_a_level_is_the_finer_one_downsampled(slide: Tissue, scale: int) -> None:
    whole = Rect(0, 0, SIZE, SIZE)
    fine = slide.render(whole, scale // 2).astype(float)
    coarse = slide.render(whole, scale).astype(float)
    assert np.abs(shrunk(fine, 2) - coarse).mean() < 2.0


def test_coarse_levels_keep_the_colour_of_tissue(slide: Tissue) -> None:
    rect = busiest(slide)
    mean = slide.render(rect, 1).mean((0, 1))
    for scale in (4, 8, 16, 32):
        np.testing.assert_allclose(slide.render(rect, scale).mean((0, 1)), mean, atol=2)


def test_ground_truth_of_parts_adds_up(slide: Tissue) -> None:
    whole = slide.ground_truth(Rect(0, 0, SIZE, SIZE))
    cuts = [0, 611, 1400, SIZE]
    parts = [
        slide.ground_truth(Rect(y, x, yy - y, xx - x)).points
        for y, yy in pairwise(cuts)
        for x, xx in pairwise(cuts)
    ]
    points = np.concatenate(parts)
    order = np.lexsort((points[:, 1], points[:, 0]))
    np.testing.assert_array_equal(points[order], whole.points)
    assert whole.classes == ("nucleus",)
    assert len(whole) > 20


def test_labels_match_the_ground_truth(slide: Tissue) -> None:
    rect = busiest(slide)
    truth, labels = slide.ground_truth(rect), slide.labels(rect)
    assert truth.boxes is not None
    assert labels.shape == (rect.h, rect.w)
    found = ndimage.find_objects(labels)
    seen = 0
    for number, (point, box) in enumerate(zip(truth.points, truth.boxes, strict=True), start=1):
        y, x = np.floor(point - (rect.y, rect.x)).astype(int)
        assert labels[y, x] > 0  # itself, or one that lies on top of it
        window = found[number - 1]
        if window is not None:
            seen += labels[y, x] == number
            top, left = box[:2] - (rect.y, rect.x)
            assert window[0].start >= top
            assert window[1].start >= left
            assert window[0].stop <= top + box[2]
            assert window[1].stop <= left + box[3]
    assert seen > 0.75 * len(truth)


def test_a_nucleus_is_darker_than_its_surroundings(slide: Tissue) -> None:
    rect = busiest(slide)
    red = slide.render(rect, 1)[..., 0].astype(float)
    labels = slide.labels(rect)
    numbers = np.intersect1d(labels, np.arange(1, len(slide.ground_truth(rect)) + 1))
    inside = ndimage.mean(red, labels, numbers)
    around = red[(labels == 0) & ndimage.binary_dilation(labels > 0, iterations=6)].mean()
    assert (inside < around).mean() > 0.95


def test_nuclear_stain_is_inside_the_labels(monkeypatch: pytest.MonkeyPatch) -> None:
    slide = Tissue(SIZE, next(s for s in range(100) if not make_slide(SIZE, s).blur))
    rect = busiest(slide)
    with_nuclei = slide.render(rect, 1)
    labels = slide.labels(rect.pad(8)) > 0  # rims of what lies beyond the edge are soft, too
    near = ndimage.binary_dilation(labels, iterations=2)[8:-8, 8:-8]
    core = ndimage.binary_erosion(labels)[8:-8, 8:-8]
    monkeypatch.setattr("hrviewer_samples.tissue.image.stain", lambda *args: None)
    changed = (with_nuclei != slide.render(rect, 1)).any(-1)
    assert not (changed & ~near).any()
    assert changed[core].mean() > 0.99


def test_counts_differ_between_seeds_and_most_tiles_are_empty() -> None:
    counts, empty = [], []
    for seed in range(10):
        points = Tissue(4096, seed).ground_truth(Rect(0, 0, 4096, 4096)).points
        counts.append(len(points))
        empty.append(1 - len(np.unique(points.astype(int) // 256, axis=0)) / 256)
    assert np.std(counts) / np.mean(counts) >= 0.45
    assert 0.8 < np.mean(empty) < 0.95


def test_reading_the_largest_slide_is_cheap() -> None:
    slide = Tissue(131_072, 1)
    assert slide.render(Rect(0, 0, 131_072, 131_072), 1024).shape == (128, 128, 3)
    y, x = (int(v) // 8 * 8 for v in make_slide(131_072, 1).islands[0, :2])
    assert len(slide.ground_truth(Rect(y, x, 1024, 1024))) > 100


def test_downsampled_tiles_keep_their_mean() -> None:
    full, small = make_palette(0, 1).tiles, make_palette(0, 16).tiles
    assert small.shape == (8, 32, 32, 3)
    np.testing.assert_allclose(small.mean((1, 2), float), full.mean((1, 2), float), rtol=1e-4)
