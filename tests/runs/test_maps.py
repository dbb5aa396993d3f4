"""Maps and layers of a run: lazy, labelled, in their place, and without napari."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
import zarr
from numpy.testing import assert_allclose
from toys import Bright, ToyBundle, blocks, picture, toy_bundle

from hrviewer.pyramid import open_pyramid
from hrviewer.runs import Run, lazy_map, run
from hrviewer.runs.lazy_map import LazyMap

SIZE = 300, 400


@pytest.fixture(scope="module")
def done(tmp_path_factory) -> Run:
    out = tmp_path_factory.mktemp("runs") / "a.run.zarr"
    return run(picture(*SIZE), toy_bundle(), "patches", tile=64, out=out, cache="off")


@pytest.fixture
def no_xarray(monkeypatch):
    def missing(name: str) -> None:
        raise ImportError(name)

    monkeypatch.setattr(lazy_map, "import_module", missing)


def test_maps_know_their_place_and_unit(done, no_xarray):
    assert list(done.maps) == ["output", "saliency", "cost"]
    output = done.maps["output"]
    assert isinstance(output, LazyMap)
    assert output.dims == ("channel", "y", "x")
    assert output.sizes == {"channel": 1, "y": 75, "x": 100}
    assert (output.ndim, output.dtype) == (3, np.float32)
    assert output.attrs == {"units": "count", "cell": 4.0, "pixel_size": None}
    assert output.coords["channel"].tolist() == ["thing"]
    assert_allclose(output.coords["y"][:2], [2, 6])
    assert_allclose(output.coords["x"][-1], 398)
    assert_allclose(np.asarray(output), done.output)
    assert_allclose(output[0, 3:5, ::7], done.output[0, 3:5, ::7])
    cost = done.maps["cost"]
    assert dict(zip(cost.coords["channel"], cost.attrs["units"], strict=True))["flops"] == "FLOP"
    assert "output" in repr(output)
    assert "cost" in repr(done.maps)
    for name in ("embeddings", "other"):
        with pytest.raises(KeyError):
            done.maps[name]


def test_a_map_is_read_when_it_is_indexed(done, no_xarray, monkeypatch):
    output = done.maps["output"]
    reads = []
    get = zarr.Array.__getitem__
    monkeypatch.setattr(
        zarr.Array, "__getitem__", lambda self, index: reads.append(index) or get(self, index)
    )
    assert output.shape == (1, 75, 100)
    assert not reads
    assert output[0, 0, 0] == done.output[0, 0, 0]
    assert (0, 0, 0) in reads


def test_maps_are_data_arrays_where_xarray_is_installed(done):
    xarray = pytest.importorskip("xarray")
    output = done.maps["output"]
    assert isinstance(output, xarray.DataArray)
    assert output.chunks is not None  # lazy
    assert output.attrs["units"] == "count"
    part = output.sel(channel="thing", y=slice(0, 40))
    assert_allclose(part.values, done.output[0, :10])


@pytest.mark.parametrize("size", [None, (0.5, 0.25)])
def test_layers_lie_on_the_image(tmp_path, size):
    with open_pyramid(picture(*SIZE)) as pyramid:
        pyramid.pixel_size = size
        found = run(pyramid, toy_bundle(), "zoom", out=tmp_path / "a.run.zarr", cache="off")
    layers = found.layers()
    assert [settings["name"] for _, settings, _ in layers] == [
        "cost", "saliency", "patches", "output",
    ]  # fmt: skip
    pixel = np.array(size or (1, 1))
    for data, settings, kind in layers:
        assert (kind, data.dtype, data.ndim) == ("image", np.float32, 2)
        # The first cell begins where the first pixel does; the last ends no earlier than the image.
        begin = np.array(settings["translate"]) - np.array(settings["scale"]) / 2
        assert_allclose(begin, -pixel / 2)
        assert (
            begin + settings["scale"] * np.array(data.shape) >= (np.array(SIZE) - 1) * pixel
        ).all()
        assert settings["units"] == (("um", "um") if size else ("pixel", "pixel"))
    cost, _, patches, output = (data for data, _, _ in layers)
    assert np.nansum(cost) * 16**2 == pytest.approx(found.cost_map().sum(), rel=1e-5)
    assert np.nanmax(patches) == len(found.patches)
    area = 4**2 * (0.5 * 0.25 if size else 1) / 1e6
    assert np.nansum(output) * area == pytest.approx(np.nansum(found.output), rel=1e-5)
    assert (
        layers[-1][1]["metadata"]["hrviewer"]["unit"]
        == f"things per {'mm²' if size else 'megapixel'}"
    )


def test_the_most_likely_class_is_a_layer_of_labels(tmp_path):
    class Thirds(Bright):
        def __init__(self) -> None:
            super().__init__("thirds", task="segmentation", classes=["a", "b", "c"])

        def predict(self, batch):
            share = blocks(batch) / 16
            return np.concatenate([1 - share, share * 0.7, share * 0.3], axis=1)

    found = run(
        picture(*SIZE), ToyBundle(main=Thirds()), out=tmp_path / "a.run.zarr", cache="off"
    )  # fmt: skip
    ((labels, settings, kind),) = [one for one in found.layers() if one[2] == "labels"]
    assert settings["name"] == "most likely class"
    assert settings["visible"]
    assert_allclose(labels, found.output.argmax(axis=0) + 1)
    assert [*settings["features"]["class"]] == ["", "a", "b", "c"]
    layers = pytest.importorskip("napari.layers")
    made = layers.Layer.create(labels, settings, kind)
    assert len({tuple(made.get_color(i)) for i in (1, 2, 3)}) == 3


def test_layers_need_no_napari(done):
    code = (
        "import sys; sys.modules['napari'] = sys.modules['qtpy'] = None\n"
        f"from hrviewer.runs import Run; print(len(Run({str(done.path)!r}).layers()))"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "4"


def test_napari_makes_layers_of_them(done):
    layers = pytest.importorskip("napari.layers")
    for layer in done.layers():
        made = layers.Layer.create(*layer)
        assert made.contrast_limits[0] == 0
