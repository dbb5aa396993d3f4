"""Picture of one tile of an image, beside the prediction of a network for it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from hrviewer.errors import write_error
from hrviewer.geometry import Patch, Rect

if TYPE_CHECKING:
    from hrviewer.models import Network

__all__ = ["preview_tile"]

COLOURS = np.array(
    [
        (230, 159, 0), (86, 180, 233), (0, 158, 115), (240, 228, 66),
        (0, 114, 178), (213, 94, 0), (204, 121, 167), (120, 120, 120),
    ],
    np.uint8,
)  # fmt: skip
"""Colours of classes (Okabe and Ito)."""
MAX_LISTED = 5


def preview_tile(
    network: Network, image: str, region: Rect | None, out: Path | None
) -> list[tuple[str, str]]:
    """Run a network on a tile and write the picture.

    Parameters
    ----------
    network
        The network.
    image
        Path of the image.
    region
        Its centre is that of the tile; the image's centre by default.
    out
        The picture; ``NAME-tile.png`` beside the current folder's files by default.

    Returns
    -------
    list of tuple
        Names and values to print.
    """
    from PIL import Image

    from hrviewer.engine.model_infos import model_info, native_scale
    from hrviewer.engine.preprocess import prepare_input, read_input
    from hrviewer.pyramid import open_pyramid
    from hrviewer.strategies import input_rect

    card = network.card
    with open_pyramid(image) as pyramid:
        scale, note = native_scale(card, pyramid)
        y, x = (region or pyramid.rect).center
        side = round(card.input.tile * scale)
        core = Rect(max(0, int(y - side / 2)), max(0, int(x - side / 2)), side, side) & pyramid.rect
        rect = input_rect(model_info(network), Patch(core, scale), pyramid.rect)
        pixels, _ = read_input(pyramid, card, rect, scale)
        array = prepare_input(pyramid, card, pixels)[None]
    shown = as_rgb(pixels)
    if card.output.decode is not None:
        (found,) = network.detect(array)
        picture = draw_boxes(shown, found.boxes, found.classes)
        names = [
            f"{card.classes[c]} {score:.2f}"
            for c, score in zip(found.classes, found.scores, strict=True)
        ]
        answer = f"{len(names)} objects: {', '.join(names[:MAX_LISTED])}" if names else "no object"
    else:
        output = network(array)[0]
        picture, answer = draw_map(shown, output), describe(network, output)
    path = out or Path(f"{card.name}-tile.png")
    both = np.concatenate([shown, picture], axis=1)
    try:
        Image.fromarray(both).save(path)
    except OSError as error:
        raise write_error(path, error) from None
    place = f"{rect.y},{rect.x},{rect.h},{rect.w}"
    notes = [("note", note)] if note else []
    return [("tile", place), ("prediction", answer), ("picture", str(path)), *notes]


def describe(network: Network, output: NDArray[np.float32]) -> str:
    """Return the prediction for a tile in words: the mean or sum of each channel."""
    card = network.card
    names = card.classes or tuple(f"value {i}" for i in range(len(output)))
    total = output.sum if card.task == "density" else output.mean
    values = total(axis=(1, 2))
    order = np.argsort(-values)[:MAX_LISTED] if card.averaged else range(len(values))[:MAX_LISTED]
    parts = [f"{names[i]} {values[i]:.3g} {card.unit(int(i))}".rstrip() for i in order]
    more = len(values) - len(parts)
    return ", ".join(parts) + (f" and {more} more" if more > 0 else "")


def as_rgb(pixels: NDArray[Any]) -> NDArray[np.uint8]:
    """Return pixels of any type as RGB for display."""
    if pixels.shape[2] < 3:
        pixels = np.repeat(pixels[..., :1], 3, axis=2)
    pixels = pixels[..., :3]
    if pixels.dtype == np.uint8:
        return np.ascontiguousarray(pixels, np.uint8)
    low, high = np.nanpercentile(pixels, (0.5, 99.5))
    scaled = (pixels.astype(np.float64) - low) * (255 / max(high - low, 1e-9))
    return np.asarray(np.clip(np.nan_to_num(scaled), 0, 255), np.uint8)


def draw_boxes(
    shown: NDArray[np.uint8], boxes: NDArray[np.float32], classes: NDArray[np.int64]
) -> NDArray[np.uint8]:
    """Return the picture with boxes in the colours of their classes."""
    from PIL import Image, ImageDraw

    picture = Image.fromarray(shown)
    draw = ImageDraw.Draw(picture)
    for (y0, x0, y1, x1), c in zip(boxes, classes, strict=True):
        draw.rectangle((x0, y0, x1, y1), outline=tuple(COLOURS[c % len(COLOURS)]), width=2)
    return np.asarray(picture)


def draw_map(shown: NDArray[np.uint8], output: NDArray[np.float32]) -> NDArray[np.uint8]:
    """Return the picture under a map: the best class's colour, or one channel's brightness."""
    h, w = shown.shape[:2]
    rows = np.arange(h) * output.shape[1] // h
    columns = np.arange(w) * output.shape[2] // w
    full = output[:, rows][:, :, columns]
    if len(full) > 1:
        colours = COLOURS[full.argmax(axis=0) % len(COLOURS)]
        strength = np.full((h, w, 1), 0.5)
    else:
        low, high = float(full.min()), float(full.max())
        strength = ((full[0] - low) / max(high - low, 1e-9))[..., None]
        colours = np.broadcast_to(COLOURS[5], (h, w, 3))
    mixed = shown * (1 - strength) + colours * strength
    return np.asarray(mixed, np.uint8)
