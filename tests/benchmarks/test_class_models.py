"""The tiny networks of the benchmarks of shares, on colours whose class is known."""

from __future__ import annotations

import numpy as np
import pytest

import hrviewer
from benchmarks.class_models import CLASSES, COLOURS, write_models


@pytest.mark.parametrize("name", ["tiles", "unet"])
def test_colours_have_their_class(tmp_path, name):
    image = np.zeros((256, 384, 3), np.uint8)
    for i, colour in enumerate(COLOURS):
        image[:, 128 * i : 128 * (i + 1)] = np.rint(255 * colour)
    path = write_models(tmp_path)[name]
    run = hrviewer.run(
        image, path, device="cpu", out=tmp_path / "a.run.zarr", cache="off", progress=False
    )
    shares = run.estimate.get("fraction", run.estimate["per_class"])
    assert shares == pytest.approx(dict.fromkeys(CLASSES, 1 / 3), abs=0.03)
    best = run.output.argmax(axis=0)
    if name == "unet":  # its convolutions pad the image's border with black
        best = best[4:-4, 4:-4]
    assert best[:, [0, best.shape[1] // 2, -1]].tolist() == [[0, 1, 2]] * len(best)
