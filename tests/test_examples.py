"""The notebooks run from the first cell to the last, and runs show themselves in them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[1] / "examples"


@pytest.mark.parametrize("name", ["pathology", "crowds"])
# What Jupyter's own packages warn of is not ours to mend.
@pytest.mark.filterwarnings("ignore")
def test_a_notebook_runs(name, tmp_path, monkeypatch):
    nbformat = pytest.importorskip("nbformat")
    nbclient = pytest.importorskip("nbclient")
    monkeypatch.setenv("HRVIEWER_BACKEND", "torch")  # nothing is measured for one small image
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path))
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    book = nbformat.read(EXAMPLES / f"{name}.ipynb", as_version=4)
    assert not any(cell.get("outputs") for cell in book.cells)
    where = {"metadata": {"path": str(tmp_path)}}
    nbclient.NotebookClient(book, timeout=540, kernel_name="python3", resources=where).execute()
    shown = [
        output["data"]
        for cell in book.cells
        for output in cell.get("outputs", [])
        if "data" in output
    ]
    pages = [data["text/html"] for data in shown if "text/html" in data]
    # The run with pictures over its image, and the table of the comparison.
    assert any("GFLOP" in page and page.count("data:image/jpeg;base64,") >= 2 for page in pages)
    assert any("dataframe" in page and "uniform" in page for page in pages)
    if name == "crowds":
        assert sum("image/png" in data for data in shown) == 2
    else:
        told = json.loads(next(tmp_path.rglob("full.geojson")).read_text("utf-8"))
        assert len(told["features"]) >= 1
