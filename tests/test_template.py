"""A third party's plug-in, installed into a fresh environment, is found by entry points alone."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import venv
from importlib.metadata import entry_points
from pathlib import Path

import pytest

TEMPLATE = Path(__file__).parents[1] / "plugins" / "template"

FOUND = """
import json
from hrviewer.geometry import Rect
from hrviewer.models import installed_bundles, open_bundle
from hrviewer.pyramid import open_pyramid
from hrviewer.pyramid.synthetic import make_synthetic_image
from hrviewer.strategies import get_strategy, strategy_ids
from hrviewer.training import installed_task_sets
import numpy as np

image = make_synthetic_image("dots", 1024, 10000)
whole = Rect(0, 0, 1024, 1024)
pixels = image.render(whole, 1)
network = open_bundle("dots").load("main", "cpu")
density = network(network.card.prepare(pixels)[None])
picture = np.random.default_rng(0).integers(0, 256, (1100, 700, 4), np.uint8)
np.save("picture.npy", picture)
mapped = open_pyramid("picture.npy")
rect = Rect(500, 300, 80, 400)
equal = np.array_equal(mapped.read(rect, 1), picture[500:580, 300:700])
two = open_pyramid("picture.npy", channels=(2, 0))
equal = equal and np.array_equal(two.read(rect, 1), picture[500:580, 300:700][..., [2, 0]])
print(json.dumps({
    "equal": equal,
    "opened": open_pyramid("sample:dots?size=1024&seed=10000").shape,
    "bundles": [*installed_bundles()],
    "strategies": strategy_ids(),
    "strategy": get_strategy("checkerboard").title,
    "roles": [*installed_task_sets()["dots"]().tasks],
    "where": str(installed_bundles()["dots"].folder),
    "found": float(density.sum()),
    "truth": len(image.ground_truth(whole)),
    "labels": [int(n) for n in np.unique(image.labels(Rect(0, 0, 300, 300)))],
    "part_truth": len(image.ground_truth(Rect(0, 0, 300, 300))),
    "shrunk": float(np.abs(
        pixels[..., 0].reshape(64, 16, 64, 16).mean((1, 3)) - image.render(whole, 16)[..., 0]
    ).max()),
}))
"""


@pytest.fixture(scope="module")
def fresh(tmp_path_factory) -> Path:
    """An environment that sees what this one sees, and the template, installed by pip."""
    pytest.importorskip("hatchling", reason="hatchling builds the template without a download")
    folder = tmp_path_factory.mktemp("fresh")
    venv.create(folder, with_pip=False, symlinks=os.name != "nt")
    python = folder / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
    code = "import sysconfig; print(sysconfig.get_path('purelib'))"
    site = subprocess.run([python, "-c", code], capture_output=True, text=True, check=True)
    outer = [path for path in sys.path if path.endswith("site-packages")]
    lines = "".join(f"import site; site.addsitedir({path!r})\n" for path in outer)
    Path(site.stdout.strip(), "outer.pth").write_text(lines)
    pip = [sys.executable, "-m", "pip", "--python", str(python), "install", "-q", "--no-index"]
    pip += ["--disable-pip-version-check", "--no-deps", "--no-build-isolation", str(TEMPLATE)]
    subprocess.run(pip, check=True, timeout=120)
    return python


@pytest.mark.slow
def test_model_strategy_and_synthetic_image_are_found(fresh, tmp_path):
    done = subprocess.run(
        [fresh, "-c", FOUND], capture_output=True, text=True, cwd=tmp_path, timeout=120
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert "dots" in found["bundles"]
    assert found["opened"] == [1024, 1024, 3]
    assert found["equal"] is True
    assert {"checkerboard", "patches", "uniform"} <= set(found["strategies"])
    assert found["strategy"] == "Checkerboard"
    assert found["roles"] == ["main"]
    # Not the source tree's, but what was installed.
    assert str(fresh.parents[1]) in found["where"]
    # The network counts the image's dots, the image labels them, and its levels agree.
    assert found["found"] == pytest.approx(found["truth"], rel=0.03)
    assert len(found["labels"]) > found["part_truth"]
    assert found["shrunk"] <= 0.5


def test_here_it_is_not_installed():
    assert "checkerboard" not in entry_points(group="hrviewer.strategies").names
