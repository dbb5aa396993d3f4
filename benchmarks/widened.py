"""A bundle whose ``main`` costs what usual networks cost: ``python -m benchmarks.widened``.

    python -m benchmarks.widened nuclei build/wide-nuclei
    hrviewer compare IMAGE --model build/wide-nuclei --strategies patches,zoom,scanner

``main`` is widened without a change of its function (Chen et al., *Net2Net*, ICLR 2016): every
channel is repeated, and what reads it takes a part of each copy (1/2, 1/4, 1/4). So it predicts
what it predicted, to rounding, at nine times the cost for three copies (for `nuclei` some 130 kFLOP
per pixel, as a U-Net or a ResNet-50 on a tile): accuracy stays, and seconds are a user's. Nothing
else is gained by it; the other networks of the bundle stay as they are. One JSON object is printed.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file, save_file
from torch import Tensor

import hrviewer
from hrviewer.geometry import Rect
from hrviewer.models import installed_bundles
from hrviewer.models.registry import get_architecture
from hrviewer.pyramid import open_pyramid

ARCHITECTURE = "density-unet"
"""The architecture that can be widened: its widths are a parameter, its layers convolutions."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Write the bundle, and print JSON."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.widened", description=__doc__)
    parser.add_argument("model", help="name of an installed bundle, or its folder")
    parser.add_argument("out", type=Path, help="the folder to write; it must not exist")
    parser.add_argument("--copies", type=int, default=3, help="of each channel")
    parser.add_argument("--image", default="sample:tissue?size=2048&seed=10003")
    options = parser.parse_args(arguments)
    found = installed_bundles().get(options.model)
    folder = found.folder if found else Path(options.model)
    write_widened(folder, options.out, options.copies)
    pixels = open_pyramid(options.image).read(Rect(768, 768, 512, 512))
    print(json.dumps(compare_outputs(folder, options.out, pixels), indent=1))


def write_widened(folder: Path, out: Path, copies: int) -> None:
    """Write a bundle whose ``main`` has `copies` of every channel."""
    text = (folder / "bundle.json").read_text(encoding="utf-8")
    role = json.loads(text)["roles"]["main"]
    architecture = role["card"]["architecture"]
    if architecture["name"] != ARCHITECTURE:
        raise SystemExit(f"{folder}: main is a {architecture['name']}, not a {ARCHITECTURE}")
    shutil.copytree(folder, out)
    weights = out / role["weights"]
    before = hashlib.sha256(weights.read_bytes()).hexdigest()
    params = dict(architecture["params"])
    params["widths"] = [copies * width for width in params["widths"]]
    save_file(widen(load_file(weights), params, copies), weights)
    after = hashlib.sha256(weights.read_bytes()).hexdigest()
    # Other cards name the network that their figures belong to: it predicts the same.
    bundle = json.loads(text.replace(before, after))
    bundle["name"] = out.name
    bundle["roles"]["main"]["card"]["architecture"]["params"] = params
    (out / "bundle.json").write_text(json.dumps(bundle, indent=2) + "\n", encoding="utf-8")


def widen(weights: dict[str, Tensor], params: dict[str, Any], copies: int) -> dict[str, Tensor]:
    """Return the weights of the wider network with these parameters, which computes the same."""
    # Powers of two, by which numbers are divided without rounding.
    parts = torch.tensor([0.5 ** min(i, copies - 1) for i in range(1, copies + 1)])
    wide = {}
    for name, like in get_architecture(ARCHITECTURE)(**params).state_dict().items():
        value = weights[name]
        for axis, (side, wanted) in enumerate(zip(value.shape, like.shape, strict=True)):
            if wanted != side:
                value = value.repeat_interleave(copies, axis)
                # What reads a channel reads all of its copies.
                value = value * parts.repeat(side)[:, None, None] if axis == 1 else value
        wide[name] = value.contiguous()
    return wide


def compare_outputs(folder: Path, out: Path, pixels: NDArray[Any]) -> dict[str, float]:
    """Return the cost of both networks, and how much their outputs for an image differ."""
    side = len(pixels)
    outputs, costs = [], []
    for bundle in (folder, out):
        with hrviewer.load(bundle, device="cpu") as model:
            network = model.bundle.load("main", "cpu")
            outputs.append(network(network.card.prepare(pixels)[None]))
            costs.append(network.flops(side, side) / side**2)
    difference = float(np.abs(outputs[0] - outputs[1]).max() / np.abs(outputs[0]).max())
    return {
        "kflop_per_pixel": costs[0] / 1e3,
        "kflop_per_pixel_widened": costs[1] / 1e3,
        "largest_difference": difference,
    }


if __name__ == "__main__":
    main()
