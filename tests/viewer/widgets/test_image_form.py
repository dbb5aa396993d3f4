"""Plane and channels in the panel, and the layers of an image's channels."""

from __future__ import annotations

import numpy as np
import pytest
import tifffile
import zarr
from napari.components import ViewerModel

from benchmarks.range_server import RangeServer
from hrviewer.viewer.controller import Controller
from hrviewer.viewer.image.geometry import is_image_layer
from hrviewer.viewer.widgets.image_form import ImageForm

STACK = np.arange(3 * 4 * 20 * 30, dtype=np.uint16).reshape(3, 4, 20, 30)


@pytest.fixture
def opened(qtbot, tmp_path):
    """A controller and the form, with a stack of three channels and four planes open."""
    path = tmp_path / "stack.ome.tif"
    names = {"Name": ["DAPI", "FITC", "Cy5"]}
    tifffile.imwrite(path, STACK, metadata={"axes": "CZYX", "Channel": names})
    controller = Controller(ViewerModel(), run_folder=tmp_path / "runs")
    form = ImageForm(controller)
    qtbot.addWidget(form)
    assert form.isHidden()
    controller.image_loader.open(path)
    wait(qtbot, controller)
    yield controller, form
    controller.close()


def wait(qtbot, controller):
    def done():
        controller.tick()
        assert not controller.image_loader.is_running

    qtbot.waitUntil(done, timeout=20_000)


def test_another_plane_takes_the_place_of_the_image(qtbot, opened):
    controller, form = opened
    assert list(form.planes) == ["z"]
    assert [layer.name for layer in controller.viewer.layers] == [
        f"stack.ome.tif: {name}" for name in ("DAPI", "FITC", "Cy5")
    ]
    assert controller.state.image.name == "stack.ome.tif"
    assert [is_image_layer(layer) for layer in controller.viewer.layers] == [True, False, False]
    form.planes["z"].setValue(2)
    wait(qtbot, controller)
    assert controller.state.image.source.pyramid().plane == {"z": 2}
    assert len(controller.state.images) == 1
    assert len(controller.viewer.layers) == 3
    np.testing.assert_array_equal(controller.viewer.layers[1].data, STACK[1, 2])
    assert form.planes["z"].value() == 2


def test_channels_are_chosen_by_name(qtbot, opened):
    controller, form = opened
    assert form.channels.text() == "all 3: DAPI, FITC, Cy5"
    menu = form.channels.menu()
    assert [action.text() for action in menu.actions()] == ["DAPI", "FITC", "Cy5"]
    menu.actions()[0].setChecked(False)
    menu.aboutToHide.emit()
    wait(qtbot, controller)
    assert controller.state.image.source.pyramid().selected_channels == (1, 2)
    assert form.channels.text() == "FITC, Cy5"
    assert len(controller.viewer.layers) == 2


def test_the_layers_of_an_image_go_together(opened):
    controller, form = opened
    controller.viewer.layers.remove(controller.image_layer)
    assert not controller.viewer.layers
    assert controller.state.image is None
    assert form.isHidden()


def test_another_series_takes_the_place_of_the_image(qtbot, opened, tmp_path):
    controller, form = opened
    assert form.series is None
    path = tmp_path / "two.tif"
    with tifffile.TiffWriter(path) as tiff:
        tiff.write(np.zeros((40, 50), np.uint8))
        tiff.write(np.ones((30, 20), np.uint8))
    # It has fewer axes than the image below it.
    controller.image_loader.open(path)
    wait(qtbot, controller)
    assert [form.series.itemText(i) for i in range(2)] == ["0 (40 × 50)", "1 (30 × 20)"]
    assert form.series.currentData() == "0"
    form.series.setCurrentIndex(1)
    form.series.activated.emit(1)
    wait(qtbot, controller)
    assert controller.state.image.source.pyramid().selected_series == "1"
    assert controller.state.image.source.shape == (30, 20)
    assert len(controller.state.images) == 2


def test_the_fields_of_a_remote_plate_are_listed_on_a_thread(qtbot, opened, tmp_path):
    pytest.importorskip("aiohttp")
    controller, form = opened
    wells = [{"path": f"A/{i}"} for i in range(1, 4)]
    plate = zarr.open_group(tmp_path / "plate.zarr", mode="w", zarr_format=3)
    plate.attrs["ome"] = {"version": "0.5", "plate": {"wells": wells}}
    for well in wells:
        group = plate.create_group(well["path"])
        group.attrs["ome"] = {"version": "0.5", "well": {"images": [{"path": "0"}]}}
        field = group.create_group("0")
        field.create_array("0", data=STACK[0, 0])
        image = {"axes": [{"name": "y"}, {"name": "x"}], "datasets": [{"path": "0"}]}
        field.attrs["ome"] = {"version": "0.5", "multiscales": [image]}
    with RangeServer(tmp_path) as server:
        controller.image_loader.open(f"{server.url}/plate.zarr")
        wait(qtbot, controller)
        assert form.series.currentData() == "A/1/0"

        def listed():
            controller.tick()
            assert form.series.count() == 3

        qtbot.waitUntil(listed, timeout=20_000)
        assert form.series.currentData() == "A/1/0"
        form.series.setCurrentIndex(2)
        form.series.activated.emit(2)
        wait(qtbot, controller)
        assert controller.state.image.source.pyramid().selected_series == "A/3/0"


def test_a_stain_takes_the_place_of_the_colours(qtbot, tmp_path):
    path = tmp_path / "section.ome.tif"
    pixels = np.full((60, 80, 3), 255, np.uint8)
    pixels[:30] = 126, 122, 186  # haematoxylin
    pixels[30:45] = 230, 110, 220  # eosin
    facts = {"axes": "YXS", "PhysicalSizeX": 0.5, "PhysicalSizeY": 0.5}
    tifffile.imwrite(path, pixels, photometric="rgb", metadata=facts)
    controller = Controller(ViewerModel(), run_folder=tmp_path / "runs")
    form = ImageForm(controller)
    qtbot.addWidget(form)
    controller.image_loader.open(path)
    wait(qtbot, controller)
    image_layer, layers = controller.image_layer, controller.viewer.layers

    def choose(index):
        form.stain.setCurrentIndex(index)
        form.stain.activated.emit(index)
        return [layer.name for layer in layers if layer.visible]

    assert choose(1) == ["section.ome.tif", "section.ome.tif: haematoxylin"]
    amount = layers[1].data.compute()
    assert amount[:30].mean() > 10 * amount[30:45].mean() > 0
    assert (amount[45:] == 0).all()
    assert controller.image_layer is image_layer
    assert len(controller.state.images) == 1
    assert choose(2) == ["section.ome.tif", "section.ome.tif: eosin"]
    assert choose(0) == ["section.ome.tif"]
    layers.remove(image_layer)
    assert not layers
    controller.close()
