"""The notebooks run from the first cell to the last, and runs show themselves in them."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[1] / "examples"

# Jupyter's client starts threads, on which another test's windows might be collected.
EXECUTE = """
import sys
import nbclient, nbformat
book, folder, done = sys.argv[1:]
book = nbformat.read(book, as_version=4)
where = {"metadata": {"path": folder}}
nbclient.NotebookClient(book, timeout=540, kernel_name="python3", resources=where).execute()
nbformat.write(book, done)
"""


@pytest.mark.slow
@pytest.mark.parametrize("name", ["pathology", "crowds"])
def test_a_notebook_runs(name, tmp_path, monkeypatch):
    nbformat = pytest.importorskip("nbformat")
    pytest.importorskip("nbclient")
    monkeypatch.setenv("HRVIEWER_BACKEND", "torch")  # nothing is measured for one small image
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path))
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    path, done = EXAMPLES / f"{name}.ipynb", tmp_path / "done.ipynb"
    assert not any(cell.get("outputs") for cell in nbformat.read(path, as_version=4).cells)
    ran = subprocess.run(
        [sys.executable, "-c", EXECUTE, path, tmp_path, done],
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert ran.returncode == 0, ran.stderr
    book = nbformat.read(done, as_version=4)
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
        raised = json.loads(next(tmp_path.rglob("full.geojson")).read_text("utf-8"))
        assert len(raised["features"]) >= 1
