"""Cost and memory of the exhaustive baseline: ``python -m benchmarks.baseline``.

An image of noise, of 8,192 pixels a side by default, is written as a tiled TIFF file, and
``patches`` runs on it in a process of its own, with the tile that it chooses and with the card's.

``of_once_per_pixel``
    FLOPs over those of ``main`` once on every pixel.
``peak_rss_bytes``
    Peak resident memory of the process from the start of inference on, with the decoded image.
``difference``
    Of the two estimates, relative.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

STORED_TILE = 512


def write_noise(path: Path, side: int) -> None:
    """Write smooth noise as a tiled, compressed TIFF file."""
    import tifffile
    from scipy.ndimage import gaussian_filter

    rng = np.random.default_rng(0)
    noise = rng.normal(0, 1, (STORED_TILE, STORED_TILE, 3))
    smooth = gaussian_filter(noise, (3, 3, 0), mode="wrap")
    tile = np.clip(120 + 40 * smooth / smooth.std(), 0, 255).astype(np.uint8)

    def tiles() -> Iterator[NDArray[np.uint8]]:
        for shift in range((side // STORED_TILE) ** 2):
            yield np.roll(tile, 7 * shift, axis=(0, 1))

    options: dict[str, Any] = {"tile": (STORED_TILE, STORED_TILE), "photometric": "rgb"}
    tifffile.imwrite(
        path, tiles(), shape=(side, side, 3), dtype=np.uint8, compression="lzw", **options
    )


def measure_one(image: str, model: str, tile: int) -> dict[str, Any]:
    """Run ``patches`` in this process, which must have done nothing else."""
    import hrviewer

    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "a.run.zarr"
        run = hrviewer.run(image, model, "patches", tile=tile, cache="off", out=out, progress=False)
        cost = run.cost
        return {
            "tile": tile or run.header["chosen"]["tile"],
            "estimate": run.estimate["value"],
            "flops": cost["flops"],
            "of_once_per_pixel": cost["flops"] / run.header["once_per_pixel_flops"],
            "wall_s": cost["wall_s"],
            "infer_s": cost["infer_s"],
            "peak_rss_bytes": cost["peak_rss_bytes"],
            "backend": run.header["engine"]["backend"],
        }


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.baseline", description=__doc__)
    parser.add_argument("--model", default="crowd")
    parser.add_argument("--side", type=int, default=8192, help="a multiple of 512")
    parser.add_argument(
        "--tiles", type=int, nargs="+", default=[0, 512], help="0 is the chosen one"
    )
    parser.add_argument("--one", nargs=2, metavar=("IMAGE", "TILE"), help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.one is not None:
        print(json.dumps(measure_one(options.one[0], options.model, int(options.one[1]))))
        return
    found = []
    with tempfile.TemporaryDirectory() as folder:
        image = Path(folder) / "noise.tif"
        write_noise(image, options.side)
        for tile in options.tiles:
            command = [sys.executable, "-m", "benchmarks.baseline", "--model", options.model]
            command += ["--one", str(image), str(tile)]
            done = subprocess.run(command, check=True, capture_output=True, text=True)
            found.append(json.loads(done.stdout))
    estimates = [one["estimate"] for one in found]
    difference = (max(estimates) - min(estimates)) / max(map(abs, estimates))
    print(json.dumps({"side": options.side, "difference": difference, "runs": found}, indent=1))


if __name__ == "__main__":
    main()
