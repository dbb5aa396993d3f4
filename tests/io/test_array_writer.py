"""Arrays as OME-Zarr: round trips in every orientation."""

from __future__ import annotations

import numpy as np
import pytest
import zarr
from hypothesis import given
from hypothesis import strategies as st
from ome_zarr_models import open_ome_zarr
from yaozarrs import validate_zarr_store

from hrviewer.errors import HrviewerError
from hrviewer.io.array_writer import WritableImage, axis_aligned, name_axes, write_arrays

TURNS = [np.array(m, float) for m in (
    [[1, 0], [0, 1]], [[-1, 0], [0, 1]], [[1, 0], [0, -1]], [[-1, 0], [0, -1]],
    [[0, 1], [1, 0]], [[0, -1], [1, 0]], [[0, 1], [-1, 0]], [[0, -1], [-1, 0]],
)]  # fmt: skip

steps = st.floats(0.01, 100)
places = st.floats(-1e4, 1e4)


@given(st.integers(0, 7), st.integers(1, 7), st.integers(1, 7), steps, steps, places, places)
def test_pixels_keep_their_world_position_in_all_eight_orientations(turn, h, w, sy, sx, ty, tx):
    data = np.arange(h * w).reshape(h, w)
    matrix, offset = TURNS[turn] @ np.diag([sy, sx]), np.array([ty, tx])
    turned, scale, translate, whole = axis_aligned(data, matrix, offset)
    assert whole
    assert (scale > 0).all()
    turned = np.asarray(turned)
    there = {int(data[at]): matrix @ at + offset for at in np.ndindex(data.shape)}
    for at in np.ndindex(turned.shape):
        np.testing.assert_allclose(scale * at + translate, there[int(turned[at])], atol=1e-6)


def test_other_rotations_are_dropped_and_reported():
    c, s = np.cos(0.3), np.sin(0.3)
    data = np.zeros((3, 4))
    same, scale, _, whole = axis_aligned(data, np.array([[c, -s], [s, c]]) * 2, np.zeros(2))
    assert not whole
    assert same is data
    np.testing.assert_allclose(scale, [2, 2])


@pytest.mark.parametrize(
    ("labels", "ndim", "axes"),
    [
        ((), 2, "yx"),
        (("-3", "-2", "-1"), 3, "zyx"),
        (("c", "y", "x"), 3, "cyx"),
        (("T", "y", "x"), 3, "tyx"),
        (("z", "t", "y", "x"), 4, "tzyx"),
        (("t", "c", "z", "y", "x"), 5, "tczyx"),
    ],
)
def test_axes_are_named_in_ome_zarr_order(labels, ndim, axes):
    assert name_axes(labels, ndim) == axes
    with pytest.raises(HrviewerError, match="two to five axes"):
        name_axes((), 6)


@pytest.mark.parametrize("axes", ["yx", "zyx", "cyx", "tczyx"])
@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.float32, bool])
def test_arrays_round_trip(tmp_path, axes, dtype):
    shape = (*(2 for _ in axes[:-2]), 601, 37)
    data = (np.random.default_rng(0).random(shape) * 250).astype(dtype)
    scale, shift = np.linspace(0.5, 2, len(axes)), np.linspace(-3, 7, len(axes))
    path = tmp_path / "a.ome.zarr"
    write_arrays([WritableImage("a", data, axes, scale, shift, "micrometer")], path)
    assert type(open_ome_zarr(zarr.open_group(path, mode="r"))).__name__ == "Image"
    validate_zarr_store(str(path))
    np.testing.assert_array_equal(zarr.open_array(path / "0")[:], data.astype(np.uint8)
                                  if dtype is bool else data)  # fmt: skip
    ome = zarr.open_group(path).attrs["ome"]["multiscales"][0]
    first, second = (d["coordinateTransformations"] for d in ome["datasets"])
    assert first[0]["scale"] == pytest.approx(scale)
    assert first[1]["translation"] == pytest.approx(shift)
    # The edges of both levels' first pixels are at the same place.
    for axis in (-2, -1):
        starts = [t["translation"][axis] - s["scale"][axis] / 2 for s, t in (first, second)]
        assert starts[0] == pytest.approx(starts[1])


def test_labels_are_part_of_the_first_image_and_keep_their_ids(tmp_path):
    numbers = np.random.default_rng(0).integers(0, 70000, (700, 600)).astype(np.int32)
    image = np.zeros((700, 600), np.uint8)
    path = tmp_path / "a.ome.zarr"
    one = (1, 1), (0, 0)
    write_arrays(
        [
            WritableImage("im", image, "yx", *one),
            WritableImage("a/b", numbers, "yx", *one, labels=True),
        ]
        * 2,
        path,
    )  # fmt: skip
    assert zarr.open_group(path / "OME").attrs["ome"]["series"] == ["0", "1"]
    assert zarr.open_group(path / "0" / "labels").attrs["ome"]["labels"] == ["a_b", "a_b 2"]
    for folder in ("0", "1", "0/labels/a_b", "0/labels/a_b 2"):
        validate_zarr_store(str(path / folder))
    np.testing.assert_array_equal(zarr.open_array(path / "0/labels/a_b/1")[:], numbers[::2, ::2])


def test_unsupported_types_are_rejected(tmp_path):
    with pytest.raises(HrviewerError, match="integers or floats"):
        write_arrays(
            [WritableImage("a", np.zeros((2, 2), complex), "yx", (1, 1), (0, 0))], tmp_path
        )
