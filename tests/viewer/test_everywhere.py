"""Every format, from every way to it, of a run of every strategy on real images.

What is written is read by programs that are not ours; what adds up in the run adds up there.
"""

from __future__ import annotations

import json
import subprocess
import sys
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path

import geopandas
import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
import tifffile
from PIL import Image
from typer.testing import CliRunner

import hrviewer
from hrviewer.cli import app
from hrviewer.io import get_writer, writer_names
from hrviewer.models import open_bundle
from hrviewer.runs import Run
from hrviewer.strategies import strategy_ids
from hrviewer.viewer.widgets.export_tab import ExportTab

from .conftest import until_quiet

pytestmark = pytest.mark.slow

IMAGES = {
    "slide": ("data/wsi/CMU-1-Small-Region.svs", "nuclei", (512, 512, 1024, 1024)),
    "sample": ("sample:crowd?size=2048&seed=10100", "crowd", (0, 0, 2048, 2048)),
    "map": ("data/aerial/OSBS_029.tif", "crowd", (0, 0, 400, 400)),
}


@pytest.fixture(scope="module", params=[f"{i}-{s}" for i in IMAGES for s in strategy_ids()])
def run(request, shared, tmp_path_factory) -> Run:
    image, strategy = request.param.split("-")
    name, model, region = IMAGES[image]
    source = name if name.startswith("sample:") else str(shared / name)
    out = tmp_path_factory.mktemp("run") / f"{request.param}.run.zarr"
    if strategy == "transformer" and strategy not in open_bundle(model).roles:
        pytest.skip(f"{model} has no transformer")
    return hrviewer.run(source, model, strategy, region=region, out=out, cache="off")


def total(values: np.ndarray) -> float:
    return float(np.nansum(values.astype(float)))


def geojson(path: Path, run: Run) -> None:
    assert len(geopandas.read_file(path)) == len(run.patches)


def geopackage(path: Path, run: Run) -> None:
    named = path.with_name(f"{path.name}.gpkg")  # GDAL warns of other suffixes
    named.hardlink_to(path)
    assert len(geopandas.read_file(named, layer="patches")) == len(run.patches)


def coco(path: Path, run: Run) -> None:
    from pycocotools.coco import COCO

    with redirect_stdout(StringIO()):
        assert len(COCO(str(path)).getAnnIds()) == len(run.patches)


def dsa(path: Path, run: Run) -> None:
    elements = json.loads(path.read_text())["elements"]
    assert len(elements) == len(run.patches)
    assert all({"type", "label"} <= set(element) for element in elements)


def csv(path: Path, run: Run) -> None:
    assert pd.read_csv(path)["flops"].sum() == pytest.approx(run.patches["flops"].sum())


def parquet(path: Path, run: Run) -> None:
    assert pq.read_table(path).num_rows == len(run.patches)


def png(path: Path, run: Run) -> None:
    with Image.open(path) as picture:
        assert np.asarray(picture.convert("L")).std() > 5


def html(path: Path, run: Run) -> None:
    text = path.read_text()
    assert text.count("data:image/") >= 2
    assert "http://" not in text.replace("http://www.w3.org", "")


def ometiff(path: Path, run: Run) -> None:
    assert total(tifffile.imread(path)) == pytest.approx(total(run.map("output")[0][:]), rel=1e-3)


def geotiff(path: Path, run: Run) -> None:
    rasterio = pytest.importorskip("rasterio")
    with rasterio.open(path) as found, rasterio.open(run.header["image"]["path"]) as image:
        assert found.crs == image.crs
        assert total(found.read()) == pytest.approx(total(run.map("output")[0][:]), rel=1e-3)


def omezarr(path: Path, run: Run) -> None:
    yaozarrs = pytest.importorskip("yaozarrs")
    models = pytest.importorskip("ome_zarr_models")
    import zarr

    assert yaozarrs.validate_zarr_store(str(path)) is not None
    group = zarr.open_group(path / "output", mode="r")
    assert type(models.open_ome_zarr(group, version="0.5")).__name__ == "Image"
    assert total(group["0"][:]) == pytest.approx(total(run.map("output")[0][:]), rel=1e-3)


ON_EARTH = {"geotiff", "geopackage"}
CHECKS = {
    "geojson": geojson, "coco": coco, "dsa": dsa, "csv": csv, "parquet": parquet, "png": png,
    "html": html, "ome-tiff": ometiff, "geotiff": geotiff, "geopackage": geopackage,
    "ome-zarr": omezarr,
}  # fmt: skip


def test_no_format_is_forgotten():
    assert set(CHECKS) == set(writer_names())


def formats(run: Run) -> list[str]:
    """Return those that the run's image allows: some only where it is on Earth."""
    aerial = "aerial" in str(run.header["image"])
    return [name for name in writer_names() if aerial or name not in ON_EARTH]


def test_from_python(run, tmp_path):
    for name in formats(run):
        CHECKS[name](hrviewer.export(run, tmp_path / f"a-{name}", name), run)


def test_from_the_command_line(run, tmp_path):
    for name in formats(run):
        path = tmp_path / f"a{get_writer(name).suffixes[0]}"
        result = CliRunner().invoke(app, ["export", str(run.path), "-o", str(path), "--to", name])
        assert result.exit_code == 0, result.output
        CHECKS[name](path, run)


def test_from_the_window(run, controller, finish, qtbot, tmp_path):
    controller.run_loader.open(run.path)
    until_quiet(controller)
    tab = ExportTab(controller)
    qtbot.addWidget(tab)
    for name in formats(run):
        path = tmp_path / f"w-{name}"
        tab.format.setCurrentText(name)
        tab.path.setText(str(path))
        tab.export_button.click()
        until_quiet(controller)
        assert tab.status.text() == f"written: {path}"
        CHECKS[name](path, run)


WRITE = """
import sys
import hrviewer
from hrviewer.models.memory_usage import peak_memory
run, folder, *names = sys.argv[1:]
for name in names:
    hrviewer.export(run, f"{folder}/a-{name}", name)
print(peak_memory())
"""


def test_a_gigapixel_is_exported_in_two_gigabytes(tmp_path):
    run = tmp_path / "big.run.zarr"
    made = hrviewer.run(
        "sample:crowd?size=32768&seed=10100", "crowd", "uniform", budget="1%", out=run, cache="off"
    )
    names = [name for name in writer_names() if name not in ON_EARTH]
    process = subprocess.run(
        [sys.executable, "-c", WRITE, run, tmp_path, *names],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert int(process.stdout) < 2e9
    for name in names:
        CHECKS[name](tmp_path / f"a-{name}", made)
