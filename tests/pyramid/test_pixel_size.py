"""Pixel sizes in the dialects of TIFF, and places on Earth."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile

from hrviewer.pyramid import open_pyramid, reopen_pyramid
from hrviewer.pyramid.georeference import Georeference, metres_per_degree
from hrviewer.pyramid.units import UNKNOWN_PIXEL_SIZE, micrometres
from hrviewer.runs.provenance import image_info

PIXELS = np.zeros((64, 96), np.uint8)


@pytest.mark.parametrize(
    ("options", "size"),
    [
        ({"description": "Aperio Image Library|AppMag = 40|MPP = 0,2520"}, (0.252, 0.252)),
        ({"description": "Aperio Image Library|MPP = none"}, None),
        ({"resolution": (118.11, 118.11), "resolutionunit": 3}, None),  # a printer's 300 dpi
        ({"resolution": (28.346, 28.346), "resolutionunit": 3}, None),  # 72 dpi
        ({"resolution": (40000, 20000), "resolutionunit": 3}, (0.5, 0.25)),
        ({"resolution": (1000, 1000), "resolutionunit": 3}, (10, 10)),
        ({"resolution": (300, 300), "resolutionunit": 2}, None),
        ({"resolution": (2400, 2400), "resolutionunit": 2}, None),
        ({"resolution": (101600, 50800), "resolutionunit": 2}, (0.5, 0.25)),
    ],
)
def test_pixel_size_of_tags(
    tmp_path: Path, options: dict[str, Any], size: tuple[float, float] | None
) -> None:
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, PIXELS, metadata=None, **options)
    with open_pyramid(path) as image:
        assert image.pixel_size == (None if size is None else pytest.approx(size, rel=1e-4))
        assert (UNKNOWN_PIXEL_SIZE in image.notes) == (size is None)
    with open_pyramid(path, pixel_size=0.3) as image:
        assert image.pixel_size == (0.3, 0.3)


@pytest.mark.parametrize(
    ("attributes", "size"),
    [
        ('PhysicalSizeX="0,325" PhysicalSizeY="0,5"', (0.5, 0.325)),
        ('PhysicalSizeX="2.5e-4" PhysicalSizeXUnit="mm" PhysicalSizeY="0.5"', (0.5, 0.25)),
        ('PhysicalSizeX="250" PhysicalSizeXUnit="nm" PhysicalSizeY="0.5"', (0.5, 0.25)),
        ('PhysicalSizeX="unknown" PhysicalSizeY="0.5"', (0.5, 0.5)),
        ('PhysicalSizeX="0.5"', (0.5, 0.5)),
        ('PhysicalSizeX="-1" PhysicalSizeY="nan"', None),
        ('PhysicalSizeX="0.5" PhysicalSizeY="0.5" PhysicalSizeXUnit="pixel"', None),
    ],
)
def test_a_bad_attribute_never_costs_the_image(
    tmp_path: Path, attributes: str, size: tuple[float, float] | None
) -> None:
    path = tmp_path / "a.ome.tif"
    xml = (
        '<?xml version="1.0"?><OME xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06">'
        '<Image ID="Image:0"><Pixels ID="Pixels:0" DimensionOrder="XYCZT" Type="uint8" SizeX="96" '
        f'SizeY="64" SizeC="1" SizeZ="1" SizeT="1" {attributes}><Channel ID="Channel:0:0" '
        'SamplesPerPixel="1"/><TiffData/></Pixels></Image></OME>'
    )
    tifffile.imwrite(path, PIXELS, description=xml.encode(), metadata=None)
    with open_pyramid(path) as image:
        assert image.pixel_size == size


def test_philips_and_ventana_without_their_reader(cases: Path) -> None:
    from hrviewer.pyramid.readers.tiff import TiffReader

    for name, size in ("philips_sparse.tiff", 0.25), ("ventana_overlap.bif", 0.465):
        reader = TiffReader.open(str(cases / name), plane={}, channels=None, series=None)
        assert reader.pixel_size == pytest.approx((size, size))
        reader.close()


def write_geotiff(path: Path, crs: str, transform: tuple[float, ...], **tags: str) -> Path:
    rasterio = pytest.importorskip("rasterio")
    with rasterio.open(
        path, "w", driver="GTiff", width=96, height=64, count=1, dtype="uint8", crs=crs,
        transform=rasterio.Affine(*transform),
    ) as out:  # fmt: skip
        out.update_tags(**tags)
        out.write(PIXELS, 1)
    return path


NORTH_UP = 0.2, 0.0, 500_000.0, 0.0, -0.3, 5_000_000.0


@pytest.mark.parametrize(
    ("crs", "transform", "tags", "metres"),
    [
        ("EPSG:32633", NORTH_UP, {}, (0.3, 0.2)),
        ("EPSG:32633", NORTH_UP, {"AREA_OR_POINT": "Point"}, (0.3, 0.2)),
        ("EPSG:32633", (0.3, 0.4, 5e5, 0.4, -0.3, 5e6), {}, (0.5, 0.5)),  # turned
        ("EPSG:2263", (2.0, 0, 9e5, 0, -2.0, 2e5), {}, (0.6096, 0.6096)),  # US survey feet
        ("EPSG:4326", (1e-4, 0, 10, 0, -1e-4, 60.0032), {}, (11.1412, 5.5800)),  # at 60° north
        ("EPSG:3857", (1, 0, 0, 0, -1, 8_399_769.7), {}, (0.5, 0.5)),  # Mercator at 60° north
    ],
)
def test_a_geotiff_has_its_place_and_the_size_of_pixels_on_the_ground(
    tmp_path: Path,
    crs: str,
    transform: tuple[float, ...],
    tags: dict[str, str],
    metres: tuple[float, float],
) -> None:
    rasterio = pytest.importorskip("rasterio")
    path = write_geotiff(tmp_path / "a.tif", crs, transform, **tags)
    with open_pyramid(path) as image, rasterio.open(path) as file:
        assert image.georeference is not None
        assert image.georeference.transform == pytest.approx(tuple(file.transform)[:6], rel=1e-12)
        assert rasterio.crs.CRS.from_user_input(image.georeference.crs) == file.crs
        assert image.georeference.locate(7, 11) == pytest.approx(file.transform @ (11, 7))
        assert image.pixel_size == pytest.approx([side * 1e6 for side in metres], rel=2e-4)
        assert UNKNOWN_PIXEL_SIZE not in image.notes
        record = image_info(image)
    assert Georeference.from_record(record["georeference"]) == image.georeference
    assert reopen_pyramid(record).pixel_size == image.pixel_size
    with open_pyramid(path, pixel_size=7) as image:
        assert image.pixel_size == (7, 7)


def test_a_system_without_a_code_is_known_by_its_definition(tmp_path: Path) -> None:
    rasterio = pytest.importorskip("rasterio")
    own = "+proj=laea +lat_0=10 +lon_0=20 +datum=WGS84 +units=m"
    path = write_geotiff(tmp_path / "a.tif", own, NORTH_UP)
    with open_pyramid(path) as image, rasterio.open(path) as file:
        assert image.georeference is not None
        assert rasterio.crs.CRS.from_user_input(image.georeference.crs) == file.crs
        assert image.pixel_size == pytest.approx((3e5, 2e5))


@pytest.mark.parametrize("latitude", [-33.0, 0.0, 52.5, 80.0])
def test_degrees_on_the_ellipsoid(latitude: float) -> None:
    pyproj = pytest.importorskip("pyproj")
    geod = pyproj.Geod(ellps="WGS84")
    x = geod.line_length([10, 10.001], [latitude, latitude])
    y = geod.line_length([10, 10], [latitude - 0.0005, latitude + 0.0005])
    assert metres_per_degree(latitude) == pytest.approx((x * 1000, y * 1000), rel=1e-6)


def test_coordinates_as_text() -> None:
    utm = Georeference("EPSG:32633", (0.2, 0, 500_000, 0, -0.2, 5_000_000), 1.0)
    assert utm.describe(10, 20) == "500004.00 E, 4999998.00 N EPSG:32633"
    degrees = Georeference("EPSG:4326", (0.1, 0, -10, 0, -0.1, 60), geographic=True)
    assert degrees.describe(700, 20) == "10.000000° S, 8.000000° W"


@pytest.mark.parametrize(
    ("length", "unit"),
    [
        (325_000, "pm"), (325_000, "picometer"), (3250, "Å"), (325, "nanometers"),
        (0.325, "\\u00B5m"), (0.325, "μm"), (0.325, "microns"), (3.25e-4, "Millimetre"),
        (3.25e-6, "dm"), (3.25e-10, "kilometer"), (1.2795e-5, "inches"), (1.0663e-6, "feet"),
        (3.5543e-7, "yd"), (0.012795, "thou"), (9.2126e-4, "pt"),
    ],
)  # fmt: skip
def test_units_of_length(length: float, unit: str) -> None:
    assert micrometres(length, unit) == pytest.approx(0.325, rel=1e-4)


@pytest.mark.parametrize("unit", ["pixel", "reference frame", "", None, "s"])
def test_other_units_are_unknown(unit: str | None) -> None:
    assert micrometres(1, unit) is None
