from __future__ import annotations

import numpy as np
import pytest
import tifffile
from skimage.io import imsave

from hrviewer.app.maps.raster import MAPS
from hrviewer.runs import run
from hrviewer.viewer.contributions import readers, sample_data
from hrviewer.viewer.image.geometry import pyramid_of

PATTERNS = ["svs", "ndpi", "mrxs", "scn", "vms", "bif", "dcm"]


def test_the_manifest_is_valid():
    from npe2 import PluginManifest

    manifest = PluginManifest.from_distribution("hrviewer")
    commands = {command.id: command for command in manifest.contributions.commands}
    assert all(name.startswith("hrviewer.") for name in commands)
    assert all(command.python_name for command in commands.values())
    patterns = manifest.contributions.readers[1].filename_patterns
    assert {f"*.{suffix}" for suffix in PATTERNS} <= set(patterns)


def test_the_manifest_imports_nothing_heavy():
    import subprocess
    import sys

    code = (
        "import sys, hrviewer.viewer, hrviewer.viewer.contributions.readers;"
        "heavy = {'torch', 'napari', 'qtpy', 'onnxruntime'} & set(sys.modules);"
        "assert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.fixture
def tiff(tmp_path, photo):
    path = tmp_path / "small.tif"
    tifffile.imwrite(path, photo, photometric="rgb")
    return path


def test_small_files_are_left_to_others(tiff, tmp_path):
    assert readers.read_image(str(tiff)) is None
    broken = tmp_path / "broken.tif"
    broken.write_bytes(b"II*\0 nothing")
    assert readers.read_image(str(broken)) is None
    assert readers.read_image(["a.svs", "b.svs"]) is None


def test_large_and_pyramidal_files_are_ours(tiff, tmp_path, photo, monkeypatch):
    monkeypatch.setattr(readers, "MAX_NAPARI_PIXELS", 1000)
    [(data, settings, kind)] = readers.read_image([str(tiff)])(str(tiff))
    assert kind == "image"
    assert settings["name"] == "small.tif"
    np.testing.assert_array_equal(data, photo)
    monkeypatch.undo()
    path = tmp_path / "levels.tif"
    with tifffile.TiffWriter(path) as writer:
        writer.write(photo, subifds=1, tile=(64, 64), photometric="rgb")
        writer.write(photo[::2, ::2], subfiletype=1, tile=(64, 64), photometric="rgb")
    assert readers.read_image(str(path)) is not None


def test_a_slide_opens_in_the_window(make_napari_viewer_proxy, shared):
    viewer = make_napari_viewer_proxy()
    path = shared / "data/wsi/CMU-1-Small-Region.svs"
    [layer] = viewer.open(str(path), plugin="hrviewer")
    assert layer.rgb
    assert layer.scale[0] == pytest.approx(0.499)
    assert [str(unit) for unit in layer.units] == ["micrometer"] * 2
    assert pyramid_of(layer).path == str(path)


def test_a_run_opens_with_its_image(make_napari_viewer_proxy, tmp_path, photo, toys):
    file = tmp_path / "photo.png"
    imsave(file, photo, check_contrast=False)
    made = run(file, toys, out=tmp_path / "x.run.zarr", cache="off")
    assert readers.read_run(str(tmp_path)) is None
    viewer = make_napari_viewer_proxy()
    layers = viewer.open(str(made.path), plugin="hrviewer")
    assert layers[0].name == "photo.png"
    assert [layer.metadata["hrviewer"]["overlay"] for layer in layers[1:]] == [
        "cost",
        "saliency",
        "patches",
        "output",
    ]
    assert set(MAPS) == {layer.metadata["hrviewer"]["overlay"] for layer in layers[1:]}


def test_a_run_without_its_image_is_reported(tmp_path, photo, toys, capsys):
    file = tmp_path / "photo.png"
    imsave(file, photo, check_contrast=False)
    made = run(file, toys, out=tmp_path / "x.run.zarr", cache="off")
    imsave(file, 255 - photo, check_contrast=False)
    with _notification(capsys, "has changed"):
        assert len(readers.read_run(str(made.path))([str(made.path)])) == 5
    file.unlink()
    with _notification(capsys, "without their image"):
        assert len(readers.read_run_layers(str(made.path))) == 4


class _notification:
    """Check napari's notification on a terminal."""

    def __init__(self, capsys, words):
        self.capsys, self.words = capsys, words

    def __enter__(self):
        self.capsys.readouterr()

    def __exit__(self, *error):
        out = self.capsys.readouterr()
        assert self.words in out.out + out.err


@pytest.mark.parametrize("name", ["ihc", "retina", "hubble_deep_field"])
def test_samples_need_no_network(name):
    [(data, settings, kind)] = getattr(sample_data, name)()
    assert data.ndim == 3
    assert settings["rgb"]
    assert "hrviewer" in settings["metadata"]
    assert kind == "image"
