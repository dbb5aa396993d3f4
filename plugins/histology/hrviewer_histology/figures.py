"""Figures of the network's accuracy.

    python -m hrviewer_histology.figures DATA_FOLDER SLIDE --out DIR

Two pictures: estimated against labelled counts of the val photos, and random fields of a slide
that were not used for training, each beside its density and with its count.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import tifffile
import torch
from hrviewer.formatting import format_count
from hrviewer.models import Network, open_bundle
from matplotlib.figure import Figure
from torch import Tensor

from hrviewer_histology import nuclei
from hrviewer_histology.photos import read_photos, shrink
from hrviewer_histology.training_tasks import SCALES

__all__ = ["main", "random_fields"]

HALO = 96
"""Of the card: with it a field is counted as it would be in the whole slide."""


def random_fields(slide: Tensor, count: int, side: int, seed: int) -> list[tuple[int, int]]:
    """Return the corners (y, x) of random fields of which at least a third is tissue."""
    rng = np.random.default_rng(seed)
    tissue = slide.amin(0) < 0.8
    corners: list[tuple[int, int]] = []
    while len(corners) < count:
        y, x = (int(rng.integers(s // 16 - side // 16)) * 16 for s in slide.shape[1:])
        if tissue[y : y + side, x : x + side].float().mean() > 1 / 3:
            corners.append((y, x))
    return corners


def predict_density(network: Network, rgb: Tensor) -> Tensor:
    """Return the density ``(h/4, w/4)`` of one image ``(3, h, w)`` from 0 to 1."""
    pixels = network.card.prepare(rgb.permute(1, 2, 0).numpy() * 255)
    return torch.from_numpy(network(pixels[None])[0, 0])


def plot_counts(network: Network, data: Path, path: Path) -> None:
    """Draw the estimates of the val photos at each scale over the labelled counts."""
    figure = Figure(figsize=(9, 3.2), layout="constrained")
    photos = read_photos(data, "val")
    for axes, factor in zip(figure.subplots(1, len(SCALES)), SCALES, strict=True):
        there = np.array([p.count for p in photos])
        found = np.array(
            [float(predict_density(network, shrink(p.layers[:3], factor)).sum()) for p in photos]
        )
        axes.plot([0, 125], [0, 125], color="0.7", linewidth=1)
        axes.scatter(there, found, s=28, color="#0072b2")
        axes.set(xlim=(0, 125), ylim=(0, 125), aspect="equal", xlabel="nuclei labelled")
        error = np.abs(found - there).mean() / there.mean()
        axes.set_title(f"scale 1/{factor}: error {error:.1%}", fontsize=11)
    figure.axes[0].set_ylabel("nuclei estimated")
    figure.savefig(path, dpi=110)


def plot_fields(network: Network, slide: Tensor, path: Path, side: int, seed: int) -> None:
    """Draw ten random fields of the slide, each over its density, with its number and count."""
    figure = Figure(figsize=(12.5, 12.2), layout="constrained")
    rows = figure.subplots(4, 5)
    for i, (y, x) in enumerate(random_fields(slide, 10, side, seed)):
        # Counted as in a tile: with its surroundings, of which only the field itself is kept.
        top, left = max(0, y - HALO), max(0, x - HALO)
        around = slide[:, top : y + side + HALO, left : x + side + HALO]
        around = around[:, : around.shape[1] // 16 * 16, : around.shape[2] // 16 * 16]
        a, b, s = (y - top) // 4, (x - left) // 4, side // 4
        density = predict_density(network, around)[a : a + s, b : b + s]
        above, below = rows[i // 5 * 2, i % 5], rows[i // 5 * 2 + 1, i % 5]
        above.imshow(slide[:, y : y + side, x : x + side].permute(1, 2, 0).numpy())
        drawn = below.imshow(density.numpy(), cmap="inferno", vmin=0, vmax=0.25)
        above.set_title(f"{i + 1}: y {y:,}, x {x:,}", fontsize=13)
        below.set_title(format_count("nucleus", float(density.sum())), fontsize=13)
        print(i + 1, y, x, f"{float(density.sum()):.1f}")
    for axes in figure.axes:
        axes.axis("off")
    scale = figure.colorbar(drawn, ax=list(rows.flat), location="bottom", shrink=0.5, aspect=40)
    scale.set_label("nuclei in a cell of 4 × 4 pixels", fontsize=13)
    scale.ax.tick_params(labelsize=12)
    figure.savefig(path, dpi=100)


def measure_speed(network: Network, side: int = 512, rounds: int = 20) -> str:
    """Print the FLOPs of a pixel, and the throughput in million pixels per second."""
    image = torch.rand(3, side, side)
    predict_density(network, image)
    started = time.perf_counter()
    for _ in range(rounds):
        predict_density(network, image)
    rate = rounds * side * side / (time.perf_counter() - started) / 1e6
    flops = network.flops(side, side) / (side * side)
    return (
        f"{flops / 1e3:.1f} kFLOP per pixel, {rate:.1f} MP/s on {torch.get_num_threads()} threads"
    )


def main(argv: Sequence[str] | None = None) -> None:
    """Draw as the command line asks."""
    parser = argparse.ArgumentParser(
        prog="python -m hrviewer_histology.figures", description=__doc__
    )
    parser.add_argument("data", type=Path, help="folder with index.csv, photos and labels")
    parser.add_argument("slide", type=Path, help="a slide that tifffile reads, at about 0.5 µm/px")
    parser.add_argument("--out", type=Path, default=Path())
    parser.add_argument("--bundle", type=Path, default=nuclei())
    parser.add_argument("--side", type=int, default=256)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args(argv)

    network = open_bundle(args.bundle).load("main", "cpu")
    slide = torch.from_numpy(tifffile.imread(args.slide, key=0)).permute(2, 0, 1).float() / 255
    plot_counts(network, args.data, args.out / "nuclei_val.png")
    plot_fields(network, slide, args.out / "nuclei_fields.png", args.side, args.seed)
    print(measure_speed(network))
    print(f"wrote nuclei_val.png and nuclei_fields.png to {args.out}", file=sys.stderr)


if __name__ == "__main__":
    main()
