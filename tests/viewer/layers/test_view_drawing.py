"""Figures of a view: pixels where they are on the screen, shapes as vectors, one legend a scale."""

import re

import numpy as np
import pytest
from napari.components import ViewerModel
from PIL import Image as PilImage

from hrviewer.errors import HrviewerError
from hrviewer.io.figures.view_figure import ScaleLegend, compose, write_view_figure
from hrviewer.viewer.layers.view_drawing import describe_view


def show(viewer, centre, zoom, size):
    """Point the camera of a viewer without a window."""
    viewer.canvas.size = size
    viewer.scene.camera.center, viewer.scene.camera.zoom = centre, zoom


@pytest.fixture
def colours():
    return np.random.default_rng(0).integers(0, 255, (12, 16, 3), dtype=np.uint8)


def test_pixels_are_where_the_screen_has_them(colours):
    viewer = ViewerModel()
    viewer.add_image(colours, rgb=True, scale=(0.5, 0.5), units=("um", "um"))
    # The camera is centred on the corner between pixels 1 and 2, four pixels wide.
    show(viewer, (0.75, 0.75), 10, (20, 20))
    drawing = describe_view(viewer)
    assert drawing.unit == "µm"
    np.testing.assert_array_equal(compose(drawing, (4, 4)), colours[:4, :4])
    show(viewer, (-0.25, 0.75), 10, (20, 20))
    above = compose(describe_view(viewer), (4, 4))
    assert not above[:2].any()
    np.testing.assert_array_equal(above[2:], colours[:2, :4])


def test_levels_rotations_and_transposed_axes(colours):
    big = np.kron(colours, np.ones((4, 4, 1), np.uint8))
    viewer = ViewerModel()
    viewer.add_image([big, colours], rgb=True, multiscale=True)
    show(viewer, (23.5, 31.5), 1, (48, 64))
    np.testing.assert_array_equal(compose(describe_view(viewer), (48, 64)), big)
    np.testing.assert_array_equal(compose(describe_view(viewer), (12, 16)), colours)
    viewer.dims.order = (1, 0)
    show(viewer, (31.5, 23.5), 1, (64, 48))
    np.testing.assert_array_equal(compose(describe_view(viewer), (64, 48)), big.swapaxes(0, 1))
    turned = ViewerModel()
    layer = turned.add_image(colours, rgb=True)
    layer.rotate = 90
    corner = layer.data_to_world((5.5, 7.5))
    show(turned, corner, 1, (16, 12))
    # A quarter turn, in the direction that napari turns by.
    first = layer.world_to_data((corner[0] - 7.5, corner[1] - 5.5))
    expected = np.rot90(colours, 1 if first[1] > 8 else -1)
    np.testing.assert_array_equal(compose(describe_view(turned), (16, 12)), expected)


def test_overlays_cover_by_their_opacity_and_not_where_nothing_is_known():
    viewer = ViewerModel()
    viewer.add_image(np.full((2, 2, 3), 100, np.uint8), rgb=True)
    values = np.array([[0.0, 10.0], [np.nan, 10.0]], np.float32)
    viewer.add_image(
        values, colormap="gray", contrast_limits=(0, 10), opacity=0.5,
        blending="translucent_no_depth",
    )  # fmt: skip
    show(viewer, (0.5, 0.5), 1, (2, 2))
    joined = compose(describe_view(viewer), (2, 2))
    np.testing.assert_allclose(joined[..., 0], [[50, 177.5], [100, 177.5]], atol=1)
    viewer.layers[1].visible = False
    assert (compose(describe_view(viewer), (2, 2)) == 100).all()


def test_shapes_are_vectors_at_their_places(tmp_path, colours):
    viewer = ViewerModel()
    viewer.add_image(colours, rgb=True)
    square = np.array([(2, 3), (2, 9), (8, 9), (8, 3)], float)
    viewer.add_shapes(
        [square], shape_type="rectangle", edge_color="red", face_color="transparent",
        edge_width=0.5, name="region",
    )  # fmt: skip
    viewer.add_vectors([[(1, 1), (4, 0)]], edge_color="blue", edge_width=0.2)
    viewer.add_points([(5, 5)], size=2, face_color="lime")
    show(viewer, (5.5, 7.5), 20, (240, 320))
    drawing = describe_view(viewer)
    region, lines, dots = drawing.shapes
    np.testing.assert_allclose(region.paths[0], square)
    assert region.width == pytest.approx(10)
    np.testing.assert_allclose(lines.paths[0], [(1, 1), (5, 1)])
    np.testing.assert_allclose(dots.centres, [(5, 5)])
    np.testing.assert_allclose(dots.diameters, [2])
    path = write_view_figure(drawing, tmp_path / "a.svg", dpi=100, inches=4)
    text = path.read_text()
    assert text.count("<image") == 1
    assert "#ff0000" in text
    assert "#0000ff" in text
    # 16 pixels of the image are four inches wide, of 72 points each.
    number = r"(-?[\d.]+)"
    corners = re.search(
        rf'M {number} {number} \nL {number} {number} \nL [^"]*" style="stroke: #ff0000', text
    )
    assert corners is not None
    x, _, x1, _ = map(float, corners.groups())
    assert (x, x1) == pytest.approx(((3 + 0.5) * 18, (9 + 0.5) * 18), abs=0.1)


def test_every_format_has_its_legends_and_size(tmp_path, colours):
    pytest.importorskip("matplotlib")
    viewer = ViewerModel()
    viewer.add_image(colours, rgb=True, scale=(0.5, 0.5), units=("um", "um"))
    show(viewer, (2.75, 3.75), 40, (240, 320))
    gradient = np.linspace((0, 0, 0, 1), (1, 1, 0, 1), 16)
    scale = ScaleLegend("output: nuclei per mm²", "0", "≥ 20 k", gradient)
    drawing = describe_view(viewer, [scale], [("tumour", (1, 0, 0))], "slide · 42 nuclei")
    svg = write_view_figure(drawing, tmp_path / "a.svg", dpi=100, inches=4).read_text()
    for words in ("output: nuclei per mm²", "≥ 20 k", "tumour", "slide · 42 nuclei"):
        assert words in svg
    assert write_view_figure(drawing, tmp_path / "a.pdf").read_bytes().startswith(b"%PDF")
    with PilImage.open(write_view_figure(drawing, tmp_path / "a.png", dpi=100, inches=4)) as png:
        assert png.width == 400
        assert png.height > 300
        # The view is in the upper part, as large as it was asked for.
        pixels = np.asarray(png.convert("RGB"))[:300]
    np.testing.assert_allclose(pixels[10, 10].astype(int), colours[0, 0], atol=2)
    np.testing.assert_allclose(pixels[10, 390].astype(int), colours[0, -1], atol=2)


@pytest.mark.parametrize(
    ("name", "options", "words"),
    [
        ("a.gif", {}, "ends in none of"),
        ("a.png", {"dpi": 1200, "inches": 40}, "lower resolution"),
        ("there.png", {}, "exists"),
    ],
)
def test_what_cannot_be_written_is_one_line(tmp_path, colours, name, options, words):
    (tmp_path / "there.png").touch()
    viewer = ViewerModel()
    viewer.add_image(colours, rgb=True)
    show(viewer, (5.5, 7.5), 20, (240, 320))
    with pytest.raises(HrviewerError, match=words):
        write_view_figure(describe_view(viewer), tmp_path / name, **options)


def test_what_cannot_be_drawn_is_one_line(colours):
    viewer = ViewerModel()
    with pytest.raises(HrviewerError, match="nothing to export"):
        describe_view(viewer)
    viewer.add_image(np.zeros((4, 4, 4)))
    viewer.dims.ndisplay = 3
    with pytest.raises(HrviewerError, match="2D/3D"):
        describe_view(viewer)
