"""The same picture in other data types and formats gives the same count."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
import zarr
from microscope_files import write_dicom
from PIL import Image
from toys import Bright, toy_bundle

from hrviewer.errors import HrviewerError
from hrviewer.runs import run

Pixels = np.ndarray[Any, np.dtype[Any]]


@pytest.fixture(scope="module")
def picture() -> Pixels:
    """Return dark dots on a bright ground, as of a stained section."""
    rng = np.random.default_rng(3)
    pixels = rng.integers(225, 250, (128, 192, 3), np.uint8)
    for y, x in rng.integers(4, (124, 188), (60, 2)):
        pixels[y - 3 : y + 3, x - 3 : x + 3] = rng.integers(40, 120, 3)
    return pixels


def tiff(dtype: str, factor: float, **options: Any) -> Callable[[Path, Pixels], Path]:
    def write(folder: Path, pixels: Pixels) -> Path:
        scaled = (pixels.astype("f8") * factor).astype(dtype)
        planar = options.get("planarconfig") == "separate"
        path = folder / ("a.ome.tif" if "metadata" in options else "a.tif")
        stored = np.moveaxis(scaled, -1, 0) if planar else scaled
        tifffile.imwrite(path, stored, **{"photometric": "rgb", **options})
        return path

    return write


def rgba(folder: Path, pixels: Pixels) -> Path:
    opaque = np.full((*pixels.shape[:2], 1), 255, np.uint8)
    Image.fromarray(np.concatenate([pixels, opaque], axis=2)).save(folder / "a.png")
    return folder / "a.png"


def ome_zarr(folder: Path, pixels: Pixels) -> Path:
    group = zarr.open_group(folder / "a.zarr", mode="w")
    group.create_array("0", data=np.moveaxis(pixels, -1, 0).astype("u2") * 16)
    axes = [{"name": name} for name in "cyx"]
    multiscales = [{"axes": axes, "datasets": [{"path": "0"}]}]
    group.attrs["ome"] = {"version": "0.5", "multiscales": multiscales}
    return folder / "a.zarr"


def cog(folder: Path, pixels: Pixels) -> Path:
    rasterio = pytest.importorskip("rasterio")
    path = folder / "cog.tif"
    with rasterio.open(
        path, "w", driver="COG", width=pixels.shape[1], height=pixels.shape[0], count=3,
        dtype="uint16", blocksize=128, photometric="RGB",
    ) as out:  # fmt: skip
        out.write((np.moveaxis(pixels, -1, 0) / 255 * 10_000).round().astype("u2"))
    return path


def dicom(folder: Path, pixels: Pixels) -> Path:
    pytest.importorskip("openslide")
    write_dicom(folder / "a.dcm", pixels)
    return folder / "a.dcm"


@pytest.mark.filterwarnings("ignore::UserWarning:rasterio")
@pytest.mark.parametrize(
    "write",
    [
        pytest.param(tiff("u1", 1), id="uint8"),
        pytest.param(tiff("u2", 16), id="12 bits"),
        pytest.param(tiff("u2", 257), id="uint16"),
        pytest.param(tiff("f4", 1 / 255), id="float 0-1"),
        pytest.param(tiff("f4", 1), id="float 0-255"),
        pytest.param(tiff("u1", 1, planarconfig="separate"), id="planar"),
        pytest.param(tiff("u2", 4, metadata={"axes": "YXS", "SignificantBits": 10}), id="OME-TIFF"),
        pytest.param(rgba, id="RGBA"),
        pytest.param(ome_zarr, id="OME-Zarr"),
        pytest.param(cog, id="COG of reflectances"),
        pytest.param(dicom, id="DICOM"),
    ],
)
def test_the_count_does_not_depend_on_how_the_picture_is_stored(
    write: Callable[[Path, Pixels], Path], picture: Pixels, tmp_path: Path
) -> None:
    result = run(write(tmp_path, picture), toy_bundle(), "patches", tile=64, progress=False,
                 out=tmp_path / "r.run.zarr")  # fmt: skip
    assert result.estimate["value"] == pytest.approx(picture[..., 0].sum() / 255, rel=0.005)
    full = result.header["engine"]["value_range"]
    noted = any("are scaled to 0–255" in note for note in result.header["notes"])
    assert noted or full in ([0, 255], [0, 65535])


def test_ranges_of_the_user_and_of_the_card(picture: Pixels, tmp_path: Path) -> None:
    path = tiff("u2", 16)(tmp_path, picture)
    expected = picture[..., 0].sum() / 255

    def count(bundle: Any, name: str, **options: Any) -> float:
        result = run(path, bundle, "patches", tile=64, progress=False, cache="use",
                     out=tmp_path / f"{name}.run.zarr", **options)  # fmt: skip
        value: float = result.estimate["value"]
        return value

    assert count(toy_bundle(), "measured") == pytest.approx(expected, rel=0.005)
    # Another range is another result, although the cache has one of the same patches.
    assert count(toy_bundle(), "given", value_range=(0, 8160)) == pytest.approx(
        expected / 2, rel=1e-5
    )
    network = Bright()
    stated_input = network.card.input.model_copy(update={"value_range": (0.0, 16 * 255.0)})
    network.card = network.card.model_copy(update={"input": stated_input})
    stated = toy_bundle(network)
    assert count(stated, "card") == pytest.approx(expected, rel=1e-5)
    assert count(stated, "both", value_range=(0, 8160)) == pytest.approx(expected / 2, rel=1e-5)
    with pytest.raises(HrviewerError, match="another value range"):
        count(toy_bundle(), "given", value_range=(0, 4080), resume=True)


def write_channels(path: Path, names: list[str] | None, count: int) -> Path:
    pixels = np.full((count, 64, 64), 200, np.uint8)
    metadata = {"axes": "CYX"} | ({"Channel": {"Name": names}} if names else {})
    tifffile.imwrite(path, pixels, photometric="minisblack", metadata=metadata)
    return path


def test_a_model_for_colour_says_which_channels_it_takes(tmp_path: Path) -> None:
    stains = write_channels(tmp_path / "a.ome.tif", ["DAPI", "CD8", "CD3", "FoxP3", "AF"], 5)
    with pytest.raises(HrviewerError, match=r"is for colour and .* \(DAPI, CD8.* --channels"):
        run(stains, toy_bundle(), "patches", progress=False)
    three = run(stains, toy_bundle(), "patches", channels=["CD3", 0, 1], tile=64, progress=False,
                out=tmp_path / "a.run.zarr")  # fmt: skip
    assert any("takes CD3, DAPI, CD8 of 3 channels" in note for note in three.header["notes"])
    grey = run(write_channels(tmp_path / "b.ome.tif", None, 2), toy_bundle(), "patches", tile=64,
               progress=False, out=tmp_path / "b.run.zarr")  # fmt: skip
    assert any("takes channel 0 of 2 channels as grey" in note for note in grey.header["notes"])


def dicom_crop(shared: Path, folder: Path) -> Path:
    """Return what OpenSlide decodes of a slide in DICOM, whose pixels were compressed twice."""
    openslide = pytest.importorskip("openslide")
    slide = openslide.OpenSlide(sorted((shared / "data/wsi/CMU-1-Small-Region-dicom").iterdir())[0])
    region = slide.read_region((0, 0), 0, slide.dimensions)
    path = folder / "decoded.tif"
    tifffile.imwrite(path, np.asarray(region.convert("RGB")), photometric="rgb", tile=(256, 256))
    return path


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::UserWarning:rasterio")
def test_a_section_in_all_forms_has_one_count(shared: Path, tmp_path: Path) -> None:
    pytest.importorskip("hrviewer_histology")
    case = shared / "cases" / "formats" / "he_u8.tif"
    pixels = tifffile.imread(case)
    forms: dict[str, Path] = {"uint8": case, "float": case.with_name("he_f32_0to1.tif")}
    writers: dict[str, Callable[[Path, Pixels], Path]] = {
        "12 bits": tiff("u2", 16), "uint16": tiff("u2", 257), "float 0-255": tiff("f4", 1),
        "planar": tiff("u1", 1, planarconfig="separate"), "RGBA": rgba, "OME-Zarr": ome_zarr,
        "OME-TIFF": tiff("u2", 4, metadata={"axes": "YXS", "SignificantBits": 10}), "COG": cog,
        "DICOM": dicom,
    }  # fmt: skip
    for name, write in writers.items():
        (tmp_path / name).mkdir()
        forms[name] = write(tmp_path / name, pixels)

    def count(name: str, path: Path, **options: Any) -> float:
        result = run(path, "nuclei", "patches", progress=False, pixel_size=0.5,
                     out=tmp_path / f"{name}.run.zarr", **options)  # fmt: skip
        value: float = result.estimate["value"]
        return value

    expected = count("first", case)
    assert expected > 10
    for name, path in forms.items():
        assert count(name, path) == pytest.approx(expected, rel=0.005), name
    # The twin in DICOM has other pixels than the slide, but those that are independently decoded.
    region = (600, 400, 512, 512)
    twin = shared / "data/wsi/CMU-1-Small-Region-dicom"
    assert count("dicom", twin, region=region) == pytest.approx(
        count("decoded", dicom_crop(shared, tmp_path), region=region), rel=1e-6
    )
