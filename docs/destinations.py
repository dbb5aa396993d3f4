"""Exports of one run, drawn by other libraries.

    python docs/destinations.py SLIDE GEOTIFF

Writes docs/images/export_elsewhere.png. Each panel is drawn by the library that it names, from the
file alone; nothing of hrviewer reads it.
"""

from __future__ import annotations

import contextlib
import io
import json
import sys
import tempfile
from pathlib import Path

import geopandas
import matplotlib as mpl
import numpy as np
import pandas as pd
import rasterio
import rasterio.plot
import tifffile
import zarr
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from pycocotools.coco import COCO

import hrviewer

mpl.use("agg")
mpl.rcParams["font.size"] = 14

SHRINK = 0.8
"""Of the legends, relative to the panels."""


def in_geopandas(axes: Axes, path: Path, picture: np.ndarray, side: tuple[int, int]) -> None:
    """Draw contours and patches as QuPath's measurement map would colour them."""
    axes.imshow(picture, extent=(0, side[1], side[0], 0))
    frame = geopandas.read_file(path)
    tiles = frame[frame["objectType"] == "tile"]
    flops = [_measurement(row, "value") for row in tiles["measurements"]]
    tiles.assign(value=flops).plot(
        "value",
        ax=axes,
        aspect="equal",
        cmap="viridis",
        alpha=0.5,
        legend=True,
        legend_kwds={"label": "nuclei in a patch", "alpha": 1, "shrink": SHRINK},
    )
    frame[frame["objectType"] == "annotation"].boundary.plot(
        ax=axes, aspect="equal", color="#d55e00", linewidth=2
    )
    axes.set(xlim=(0, side[1]), ylim=(side[0], 0))
    axes.set_title("GeoJSON in geopandas")


def _measurement(text: object, name: str) -> float:
    found = json.loads(text) if isinstance(text, str) else text
    return float(found[name])


def in_pycocotools(axes: Axes, path: Path, picture: np.ndarray, side: tuple[int, int]) -> None:
    """Draw outlines as pycocotools shows them."""
    with contextlib.redirect_stdout(io.StringIO()):
        coco = COCO(str(path))
    plt.sca(axes)
    axes.imshow(picture, extent=(0, side[1], side[0], 0))
    coco.showAnns(coco.loadAnns(coco.getAnnIds()))
    axes.set_title("COCO in pycocotools")


def in_tifffile(axes: Axes, path: Path) -> None:
    """Draw the second level of the heat map, as a viewer of pyramids opens it first."""
    with tifffile.TiffFile(path) as tiff:
        series = tiff.series[0]
        level = series.levels[min(1, len(series.levels) - 1)].asarray().squeeze()
    drawn = axes.imshow(level, cmap="magma", vmax=float(np.nanpercentile(level, 99.5)))
    plt.colorbar(drawn, ax=axes, label="nuclei in a cell", shrink=SHRINK)
    axes.set_title(f"OME-TIFF in tifffile: {len(series.levels)} levels")


def in_rasterio(axes: Axes, image: str, path: Path) -> None:
    """Draw the saliency over the image it came from, both georeferenced."""
    with rasterio.open(image) as below, rasterio.open(path) as above:
        rasterio.plot.show(below, ax=axes)
        rasterio.plot.show((above, 1), ax=axes, cmap="inferno", alpha=0.5)
        scale = ScalarMappable(Normalize(0, float(np.nanmax(above.read(1)))), "inferno")
        plt.colorbar(scale, ax=axes, label="saliency", shrink=SHRINK)
        axes.ticklabel_format(style="plain", useOffset=False)
        axes.locator_params(nbins=2)
        axes.set_title(f"GeoTIFF in rasterio: EPSG {above.crs.to_epsg()}")


def in_pandas(axes: Axes, path: Path) -> None:
    """Draw the predictions of patches against their inference time."""
    frame = pd.read_parquet(path)
    frame.plot.scatter("value", "infer_s", ax=axes, s=40, color="#0072b2")
    axes.set(xlabel="nuclei in a patch", ylabel="seconds of inference")
    axes.set_title(f"Parquet in pandas: {len(frame)} patches")


def in_zarr(axes: Axes, path: Path) -> None:
    """Draw the cost of every place."""
    group = zarr.open_group(path / "cost", mode="r")
    cost = np.asarray(group["0"][0])
    drawn = axes.imshow(cost / 1e6, cmap="cividis")
    plt.colorbar(drawn, ax=axes, label="MFLOP in a cell", shrink=SHRINK)
    axes.set_title("OME-Zarr in zarr: cost of zoom")


def main(slide: str, geotiff: str) -> None:
    """Run, export and draw."""
    panels, ((one, two, three), (four, five, six)) = plt.subplots(
        2, 3, figsize=(15, 11), layout="constrained"
    )
    with tempfile.TemporaryDirectory() as name, hrviewer.open(slide) as pyramid:
        folder, side = Path(name), pyramid.plane_shape
        run = hrviewer.run(slide, "nuclei", "patches", out=folder / "slide.run.zarr")
        picture = pyramid.read(pyramid.rect, max(side) / 1000)

        def take(ending: str, **options: object) -> Path:
            hrviewer.export(run, folder / f"slide{ending}", **options)
            return folder / f"slide{ending}"

        in_geopandas(one, take(".geojson", contours=True, threshold=0.2), picture, side)
        in_pycocotools(
            two, take(".coco.json", contours=True, patches=False, threshold=0.2), picture, side
        )
        in_tifffile(three, take(".ome.tif"))
        in_pandas(five, take(".parquet"))
        skipped = hrviewer.run(slide, "nuclei", "zoom", out=folder / "zoom.run.zarr")
        hrviewer.export(skipped, folder / "zoom.ome.zarr")
        in_zarr(six, folder / "zoom.ome.zarr")
        about = hrviewer.run(geotiff, "crowd", "zoom", out=folder / "earth.run.zarr")
        hrviewer.export(about, folder / "earth.tif", map="saliency")
        in_rasterio(four, geotiff, folder / "earth.tif")
    for axes in (one, two, three, six):
        axes.set_axis_off()
    panels.savefig(Path(__file__).parent / "images" / "export_elsewhere.png", dpi=90)


if __name__ == "__main__":
    main(*sys.argv[1:])
