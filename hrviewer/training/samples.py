"""Squares of a user's images with the predictions of their model, kept on disk.

``main`` runs once on each square; every role is then trained from what is stored. An interrupted
pass goes on with the next square.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset

from hrviewer.engine.model_infos import native_scale
from hrviewer.engine.preprocess import value_range
from hrviewer.errors import ParameterError, write_error
from hrviewer.geometry import Rect
from hrviewer.models.card import ModelCard, ModelInput
from hrviewer.models.network import Network
from hrviewer.pyramid import Pyramid
from hrviewer.pyramid.resample import area_weights
from hrviewer.training.task import Batch

__all__ = ["CELL", "Sample", "SampleStream", "SampledTeacher", "collect_samples", "teacher_map"]

CELL = 4
"""Side in model pixels of the cells of a stored prediction: the finest that a role needs."""
SIDE = 512
"""Least side of a square in model pixels; a multiple of 256, as all sides."""
CANDIDATES = 4
"""Half of the squares are the most textured of so many, since most of an image may be empty."""
PARTS = {"train": 0.7, "validation": 0.15, "test": 0.15}
"""Parts of the images, or of each along its longer side, for each use."""
MIN_IMAGES = 3
"""Number of images from which whole ones are held out."""
RGB_CARD = ModelCard.model_validate(
    {
        "name": "rgb",
        "task": "saliency",
        "input": {"channels": "rgb", "tile": SIDE},
        "output": {"stride": 1},
    }
)
"""What a square is shown as: red, green and blue from 0 to 255."""

Floats = NDArray[np.float32]


@dataclass(frozen=True, slots=True, eq=False)
class Sample:
    """A square in bytes, ``(3, side, side)``, and main's prediction, ``(k, side/4, side/4)``.

    The prediction is NaN where it is unknown: of counts a sum for each cell, else a mean.
    """

    image: Tensor
    target: Tensor

    @property
    def key(self) -> bytes:
        """Hash of the pixels."""
        return _hash(self.image.numpy())


def square_side(card: ModelCard) -> int:
    """Return the side of a model's squares: a tile fits."""
    return max(SIDE, -(-card.input.tile // 256) * 256) if card.input.fixed else SIDE


def collect_samples(
    main: Network,
    images: Sequence[Pyramid],
    folder: Path,
    counts: Mapping[str, int],
    *,
    seed: int = 0,
    on_sample: Callable[[int, int], None] = lambda done, total: None,
) -> dict[str, list[Sample]]:
    """Return squares and predictions for each use; those in `folder` are read.

    Parameters
    ----------
    main
        The user's model.
    images
        Images of its kind.
    folder
        Where squares are kept.
    counts
        Number of squares for ``train``, ``validation`` and ``test``. With at least three images
        these are of different ones, with fewer of different parts of each, along its longer side.
    seed
        Random seed.
    on_sample
        Called with the number of squares so far, and in all.

    Raises
    ------
    ParameterError
        If the folder holds the squares of other images, another model or seed, or there are too
        few images, too small.
    WriteError
        If it cannot be written to.
    """
    side, total = square_side(main.card), sum(counts.values())
    record = {
        "model": main.digest,
        "images": [image.fingerprint for image in images],
        "counts": dict(counts),
        "side": side,
        "seed": seed,
    }
    _check_sizes(main, images, side)
    _claim(folder, record)
    samples: dict[str, list[Sample]] = {use: [] for use in counts}
    order = np.random.default_rng(seed).permutation(len(images))
    done = 0
    for use, count in counts.items():
        for number in range(count):
            file = folder / f"{use}-{number:04d}.npz"
            if file.exists():
                with np.load(file) as stored:
                    image, target = stored["image"], stored["target"]
            else:
                rng = np.random.default_rng((seed, [*PARTS].index(use), number))
                image, target = _draw(main, images, order, use, side, rng)
                _save(file, image=image, target=target)
            samples[use].append(Sample(torch.from_numpy(image), torch.from_numpy(target)))
            done += 1
            on_sample(done, total)
    return samples


def _claim(folder: Path, record: dict[str, object]) -> None:
    file = folder / "samples.json"
    if file.exists():
        if json.loads(file.read_text(encoding="utf-8")) != record:
            raise ParameterError(
                f"{folder} holds the squares of another distillation: remove it, or give another "
                "--out"
            )
        return
    try:
        folder.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps(record), encoding="utf-8")
    except OSError as error:
        raise write_error(folder, error) from None


def _save(file: Path, **arrays: NDArray[np.generic]) -> None:
    part = file.with_suffix(".part")
    try:
        with part.open("wb") as stream:
            np.savez(stream, **arrays)  # type: ignore[arg-type]
        part.replace(file)
    except OSError as error:
        raise write_error(file, error) from None


def _pool(
    images: Sequence[Pyramid], order: NDArray[np.int64], use: str
) -> tuple[list[Pyramid], tuple[float, float]]:
    """Return the images of a use, and the part of each along its longer side."""
    uses = [*PARTS]
    if len(images) < MIN_IMAGES:
        low = sum(PARTS[each] for each in uses[: uses.index(use)])
        return list(images), (low, low + PARTS[use])
    held_out = max(1, round(PARTS["test"] * len(images)))
    ends = np.cumsum([0, len(images) - 2 * held_out, held_out, held_out])
    number = uses.index(use)
    chosen = order[ends[number] : ends[number + 1]]
    return [images[int(i)] for i in chosen], (0.0, 1.0)


def _check_sizes(main: Network, images: Sequence[Pyramid], side: int) -> None:
    """Raise if squares that are held out would overlap with those that are learned from."""
    if len(images) >= MIN_IMAGES:
        return
    for image in images:
        needed = round(side * native_scale(main.card, image)[0] / PARTS["test"])
        if max(image.shape[:2]) < needed:
            raise ParameterError(
                f"{image.name} is too small for squares to be held out: give at least {MIN_IMAGES} "
                f"images, or one with a side of {needed:,} pixels"
            )


def _draw(
    main: Network,
    images: Sequence[Pyramid],
    order: NDArray[np.int64],
    use: str,
    side: int,
    rng: np.random.Generator,
) -> tuple[NDArray[np.uint8], Floats]:
    """Return a random square of an image, ``(3, side, side)``, and main's prediction."""
    chosen, part = _pool(images, order, use)
    image = chosen[int(rng.integers(len(chosen)))]
    scale, _ = native_scale(main.card, image)
    source = round(side * scale)
    places = [
        _random_place(image, source, part, rng)
        for _ in range(CANDIDATES if rng.random() < 0.5 else 1)
    ]
    texture = [float(np.std(image.read(place, 8 * scale))) for place in places]
    place = places[int(np.argmax(texture))]
    pixels = image.read(place, scale, fill="reflect")[:side, :side]
    ends = value_range(main.card, image)
    shown = RGB_CARD.prepare(pixels, value_range=ends).clip(0, 255).round()
    return shown.astype(np.uint8), teacher_map(main, pixels, ends)


def _random_place(
    image: Pyramid, side: int, part: tuple[float, float], rng: np.random.Generator
) -> Rect:
    """Return a random square in a part of an image along its longer side."""
    h, w = image.shape[:2]

    def start(length: int, low: float, high: float) -> int:
        return int(rng.uniform(low * length, max(low * length, high * length - side)))

    whole = (0.0, 1.0)
    y = start(h, *(whole if w > h else part))
    return Rect(y, start(w, *(part if w > h else whole)), side, side)


def teacher_map(
    main: Network, pixels: NDArray[np.generic], ends: tuple[float, float] | None = None
) -> Floats:
    """Return a model's prediction for a square, in cells of 4 pixels, NaN where it is unknown.

    Parameters
    ----------
    main
        The model; one of fixed size runs on as many tiles as the square holds.
    pixels
        ``(side, side, c)``.
    ends
        Pixel values that become 0 and 255.
    """
    side, card, stride = len(pixels), main.card, main.stride
    prepared = card.prepare(pixels, value_range=ends)
    if card.input.fixed:
        tile, per_tile = card.input.tile, stride >= card.input.tile
        halo = 0 if per_tile else min(main.halo, (tile - stride) // 2 // stride * stride)
        step = tile - 2 * halo
        starts = [*range(0, side - tile + 1, step)]
    else:
        tile, halo, starts = side // card.step * card.step, 0, [0]
    n = side // CELL
    found = np.zeros((card.prediction_channels, n, n))
    weight = np.zeros((n, n))
    for y in starts:
        for x in starts:
            out = main(np.ascontiguousarray(prepared[None, :, y : y + tile, x : x + tile]))[0]
            margin = halo // stride
            core = out[: len(found), margin : out.shape[1] - margin, margin : out.shape[2] - margin]
            rows, columns = (
                area_weights(
                    np.clip((np.arange(n + 1) * CELL - start - halo) / stride, 0, length), 0, length
                )
                for start, length in ((y, core.shape[1]), (x, core.shape[2]))
            )
            found += np.stack([(columns @ (rows @ each).T).T for each in core.astype(float)])
            # Cells of the prediction, or parts of one, in each cell of the result.
            weight += np.outer(rows.sum(axis=1), columns.sum(axis=1))
    whole = (CELL / stride) ** 2
    with np.errstate(invalid="ignore", divide="ignore"):
        values = found if card.counts else found / weight
    return np.where(weight > 0.999 * whole, values, np.nan).astype(np.float32)


def _hash(image: NDArray[np.uint8]) -> bytes:
    return hashlib.blake2b(np.ascontiguousarray(image).tobytes(), digest_size=16).digest()


class SampleStream(Dataset[Batch]):
    """Batches of stored squares, each a function of the seed and its number alone."""

    def __init__(self, samples: Sequence[Sample], steps: int, seed: int, batch: int = 4) -> None:
        self.images = torch.stack([sample.image for sample in samples])
        self.steps, self.seed, self.batch = steps, seed, batch

    def __len__(self) -> int:
        return self.steps

    def __getitem__(self, step: int) -> Batch:
        """Return images ``(n, 3, side, side)`` from 0 to 1."""
        rng = np.random.default_rng((self.seed, step))
        chosen = rng.integers(len(self.images), size=self.batch)
        return (self.images[torch.from_numpy(chosen)] / 255,)


class SampledTeacher:
    """The stored predictions in the place of ``main``: what the training tasks need of it.

    Parameters
    ----------
    main
        The model that made them.
    samples
        All squares.
    """

    stride = CELL

    def __init__(self, main: Network, samples: Mapping[str, Sequence[Sample]]) -> None:
        plain = ModelInput(channels="rgb", scale=1 / 255, tile=main.card.input.tile)
        output = main.card.output.model_copy(update={"stride": CELL})
        self.card = main.card.model_copy(update={"input": plain, "output": output})
        self.flops, self.device = main.flops, main.device
        self._targets = {
            sample.key: sample.target.numpy() for part in samples.values() for sample in part
        }

    def __call__(self, batch: Floats) -> Floats:
        """Return the prediction for stored squares ``(n, 3, side, side)`` from 0 to 1."""
        images = (batch * 255).round().astype(np.uint8)
        return np.stack([self._targets[_hash(image)] for image in images])
