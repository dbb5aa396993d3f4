"""The lesson of a network that guesses, for less, what main would say, and how surely.

Distilled from the pack's ``main``: pictures without any truth will do, since what is to be
guessed is main's own answer. Its variance is a part of what it says, and is held to account on
tiles of the size that strategies choose between.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import Dataset

from hrviewer.models.bundle import ModelBundle
from hrviewer.models.card import Architecture, ModelCard
from hrviewer.models.loaders.torch import count_flops
from hrviewer.models.network import Network
from hrviewer.training.density_task import build, fit_gain, halo, normalise, to_float
from hrviewer.training.losses import density_loss, variance_loss
from hrviewer.training.task import Batch

__all__ = [
    "DISTILLATION_SPECS",
    "SELECTED_FRACTION",
    "DistilledScout",
    "derive_card",
    "model_reference",
    "run_scout",
]


SELECTED_FRACTION = 0.1
"""Part of the tiles that a strategy looks at closer, about: by which choices are judged."""


@dataclass(frozen=True)
class DistillationSpec:
    """What the students of a role have in common.

    Attributes
    ----------
    architecture, params
        Of the network, but for its classes.
    stride, down, multiple_of
        Of its card: pixels per cell, by how much its pictures are shrunk, and what their sides
        are multiples of.
    windows
        As `density_loss` takes them.
    tile, fixed
        Of its card, too: the side of its pictures, and whether there are no others.
    """

    architecture: str
    params: Mapping[str, Any]
    stride: int
    downsample: int
    multiple_of: int
    windows: Sequence[tuple[int, float, float]]
    tile: int = 512
    fixed: bool = False


DISTILLATION_SPECS = {
    "scout": DistillationSpec(
        "density-unet",
        {"widths": [16, 32, 48, 64], "blocks": [1, 1, 1], "variance": True, "unit": 1.0},
        stride=4,
        downsample=8,
        multiple_of=16,
        windows=((1, 1.0, 0.3), (4, 0.5, 1.0), (8, 0.3, 2.0)),
    ),
    "scout/2": DistillationSpec(
        "density-unet",
        {"widths": [8, 16, 24, 32], "blocks": [1, 1, 1], "variance": True, "unit": 0.25},
        stride=4,
        downsample=2,
        multiple_of=16,
        windows=((1, 1.0, 0.02), (4, 0.5, 0.1), (8, 0.5, 0.2), (32, 0.3, 1.0)),
        tile=1024,
    ),
    "scanner": DistillationSpec(
        "density-scanner",
        {"variance": True, "unit": 0.25},
        stride=8,
        downsample=1,
        multiple_of=8,
        windows=((1, 1.0, 0.02), (2, 0.5, 0.03), (8, 0.5, 0.1), (16, 0.3, 0.2)),
    ),
    "transformer": DistillationSpec(
        "token-transformer",
        {"variance": True, "unit": 0.5},
        stride=4,
        downsample=1,
        multiple_of=16,
        windows=((1, 1.0, 0.03), (2, 0.5, 0.05), (4, 0.5, 0.1)),
        tile=16,
        fixed=True,
    ),
}
"""A scout sees the picture shrunk: at half the size, for things too small to be seen from afar,
with fewer channels, and in larger tiles, since it reads so much that their halos would cost a
third of a budget. A scanner sees every pixel, and fills up no border; a transformer squares
of several sizes (`TokenStudent`), whose windows are of the largest square's cells."""


@dataclass(frozen=True)
class DistilledScout:
    """Learn to guess, for less, what main would count.

    Parameters
    ----------
    card, sources
        See `Lesson`. The architecture has a method ``rescale`` as `DensityUNet` has.
    teacher
        The pack's ``main``.
    stream
        Takes steps and seed, returns batches of one tensor: images ``(n, 3, h, w)`` from 0 to 1
        at main's native scale, whose sides are multiples of the largest window (a scout's cell is
        32 of their pixels, a scanner's 8).
    choose, test
        Whole pictures ``(3, h, w)`` at main's native scale, from 0 to 1 or in bytes.
    windows
        As `density_loss` takes them.
    tile
        Side in native pixels of the tiles on which it is judged.
    steps, rate
        See `Lesson`.
    """

    card: ModelCard
    sources: dict[str, Any]
    teacher: Network
    stream: Callable[[int, int], Dataset[Batch]]
    validation: Sequence[Tensor]
    test: Sequence[Tensor]
    windows: Sequence[tuple[int, float, float]]
    tile: int = 256
    steps: int = 1500
    learning_rate: float = 3e-3
    _teacher_outputs: dict[int, Tensor] = field(default_factory=dict, init=False, repr=False)
    """What main says of whole pictures, which are asked about again and again."""
    ROLE: ClassVar[str] = "scout"

    @classmethod
    def from_bundle(
        cls,
        pack: Path,
        sources: dict[str, Any],
        stream: Callable[[int, int], Dataset[Batch]],
        *,
        role: str = "",
        downsample: int | None = None,
        validation: Sequence[Tensor],
        test: Sequence[Tensor],
        device: str = "auto",
        **rest: Any,
    ) -> Self:
        """Return the lesson of a role, whose card follows from the networks of its pack.

        Parameters
        ----------
        pack
            The pack's folder.
        sources
            Of the pictures; whom it learns from is added.
        stream, choose, test
            See the class.
        role
            The class's own by default.
        down
            By how much pictures are shrunk, where that is not the role's own.
        device
            Where the pack's networks run: ``auto``, ``cpu``, ``cuda`` or ``cuda:N``.
        **rest
            Other attributes of the class.

        Raises
        ------
        UserError
            Where the pack lacks a network that is learned from, or has one that will not do.
        """
        networks = ModelBundle.read(pack)
        teacher = networks.load("main", device)
        own = cls._derive(networks, teacher.card, role or cls.ROLE, downsample, device)
        own |= {"teacher": teacher}
        by = {name: model_reference(it.card) for name, it in own.items() if isinstance(it, Network)}
        return cls(
            sources=sources | by, stream=stream, validation=validation, test=test, **{**own, **rest}
        )

    @classmethod
    def _derive(
        cls, bundle: ModelBundle, main: ModelCard, role: str, downsample: int | None, device: str
    ) -> dict[str, Any]:
        """Return those attributes of a lesson that follow from a pack: its card, and whose."""
        kind = DISTILLATION_SPECS.get(f"{role}/{downsample}", DISTILLATION_SPECS[role])
        what = Architecture(
            name=kind.architecture, params={"classes": len(main.output.classes), **kind.params}
        )
        shape = {
            "downsample": downsample or kind.downsample,
            "multiple_of": kind.multiple_of,
            "tile": kind.tile,
            "fixed": kind.fixed,
        }
        card = derive_card(
            main,
            role,
            what,
            input=main.input.model_copy(update=shape),
            output=main.output.model_copy(
                update={
                    "stride": kind.stride,
                    "halo": halo(what),
                    "margin": int(getattr(build(what), "margin", 0)),
                    "activation": "none",
                    "variance": True,
                    "bound": None,
                    "context": None,
                }
            ),
        )
        return {"card": card, "windows": kind.windows}

    def create_model(self) -> nn.Module:
        """Return a network of random weights."""
        return build(self.card.architecture)

    def batches(self, steps: int, seed: int) -> Dataset[Batch]:
        """Return the stream."""
        return self.stream(steps, seed)

    def loss(self, model: nn.Module, batch: Batch) -> Tensor:
        """Compare the counts in windows with main's; let the variance explain what is left."""
        (images,) = batch
        return self._prediction_loss(self._predict(model, images), images)

    def _prediction_loss(self, said: Tensor, images: Tensor) -> Tensor:
        """Return the loss of what was said of images."""
        mean, variance = said.float().chunk(2, 1)
        target = self._teacher_density(images)
        return density_loss(mean, target, self.windows) + 0.1 * variance_loss(
            mean, variance, target
        )

    def validate(self, model: nn.Module) -> dict[str, float]:
        """Return how well it does on the pictures to choose by."""
        return _distillation_metrics(*self._tile_sums(model, self.validation))

    def calibrate(self, model: nn.Module) -> dict[str, float]:
        """Make its counts as nearly main's as can be, then the spread of its errors as expected."""
        tiles, pictures = self._tile_sums(model, self.validation)
        gain = fit_gain(pictures[:, 0], pictures[:, 2])
        model.rescale(gain)  # type: ignore[operator]
        tiles, _ = self._tile_sums(model, self.validation)
        spread = _error_spread(tiles)
        model.rescale(1.0, spread**2)  # type: ignore[operator]
        return {"gain": round(float(gain), 4), "error_spread_before": round(spread, 4)}

    def evaluate(self, model: nn.Module) -> dict[str, Any]:
        """Return how well it does on the pictures to test with, and what it costs."""
        return {
            "description": f"against main, on {self.tile} px tiles of {len(self.test)} held-out "
            "images: error of the images' counts over their mean; correlation of the tiles' "
            "counts; RMS of their errors over the predicted standard deviation, and the fraction "
            "within 1.96 of it; fraction of main's count in the top tenth of the tiles by count; "
            "fraction of the absolute error left outside the top tenth by uncertainty",
            **_distillation_metrics(*self._tile_sums(model, self.test)),
            "relative_flops": round(self._relative_flops(model), 5),
        }

    def _relative_flops(self, model: nn.Module) -> float:
        """Return the FLOPs of looking at an image, over those of main."""
        how = self.card.input
        hollow = copy.deepcopy(model).to("meta")
        flops = count_flops(hollow, "forward", (1, how.channel_count, how.tile, how.tile))
        whole, tile = how.tile * how.downsample, self.teacher.card.input.tile
        return flops / (self.teacher.flops(tile, tile) * (whole / tile) ** 2)

    @property
    def _cell_side(self) -> int:
        """Side of what one number of its answer speaks of, in native pixels."""
        return int(self.card.stride * self.card.input.downsample)

    def _predict(self, model: nn.Module, images: Tensor) -> Tensor:
        """Return what it says ``(n, 2k, rows, columns)`` of images ``(n, 3, h, w)``."""
        said: Tensor = model(normalise(self._model_input(images), self.card.input))
        return said

    def _model_input(self, images: Tensor) -> Tensor:
        """Return what it sees of images: shrunk, and where it leaves out a margin, with one."""
        small = F.avg_pool2d(images, int(self.card.input.downsample))
        return F.pad(small, [self.card.output.margin] * 4, mode="reflect")

    def _teacher_density(self, images: Tensor) -> Tensor:
        """Return main's density of images ``(n, 3, h, w)``, summed over the student's cells."""
        prepared = normalise(images, self.teacher.card.input).float().cpu().numpy()
        density = torch.from_numpy(self.teacher(prepared)).to(images.device)
        cell = self._cell_side // self.teacher.stride
        return F.avg_pool2d(density, cell) * cell * cell

    def _cached_teacher_density(self, picture: Tensor, image: Tensor) -> Tensor:
        """Return main's density of a picture, of which `image` is the part that is judged."""
        if id(picture) not in self._teacher_outputs:
            self._teacher_outputs[id(picture)] = self._teacher_density(image)[0]
        return self._teacher_outputs[id(picture)]

    def _tile_sums(
        self, model: nn.Module, images: Sequence[Tensor]
    ) -> tuple[NDArray[Any], NDArray[Any]]:
        """Return count, variance and main's count, of each tile and of each picture: ``(n, 3)``."""
        side, place = self.tile // self._cell_side, next(model.parameters()).device
        tiles = []
        for picture in images:
            h, w = (length // self.tile * self.tile for length in picture.shape[1:])
            image = to_float(picture[None, :, :h, :w])
            with torch.inference_mode():
                said = self._predict(model.eval(), image.to(place))[0].float().cpu()
            sums = [
                x.sum(0) for x in (*said.chunk(2), self._cached_teacher_density(picture, image))
            ]
            maps = F.avg_pool2d(torch.stack(sums), side) * side * side
            tiles.append(maps.flatten(1).T.double().numpy())
        return np.concatenate(tiles), np.array([t.sum(0) for t in tiles])


def derive_card(main: ModelCard, role: str, architecture: Architecture, **fields: Any) -> ModelCard:
    """Return the card of a network that learns from ``main``: main's, but for some fields.

    Raises
    ------
    UserError
        Where they do not go together.
    """
    changes = {
        "name": f"{main.name}-{role}",
        "title": f"{main.title}: its {role}",
        "architecture": architecture,
        "sha256": None,
        "training": {},
        "metrics": {},
    }
    card = main.model_copy(update=changes | fields)
    return ModelCard.from_dict(card.model_dump(), f"the {role} of {main.name}")


def run_scout(scout: Network, images: Tensor) -> tuple[Tensor, int]:
    """Return what a scout says ``(n, k, rows, columns)`` of images, and its cells' native side.

    Images ``(n, 3, h, w)`` are from 0 to 1 at main's native scale.
    """
    down = int(scout.card.input.downsample)
    prepared = normalise(F.avg_pool2d(images, down), scout.card.input).float().cpu().numpy()
    return torch.from_numpy(scout(prepared)), scout.stride * down


def model_reference(card: ModelCard) -> dict[str, Any]:
    """Return what tells a network from all others, for the cards of those that learn from it."""
    return {"name": card.name, "sha256": card.sha256}


def _error_spread(tiles: NDArray[Any]) -> float:
    """Return the root mean square of the errors over the standard deviations given for them."""
    mean, variance, there = tiles.T
    return float(np.sqrt(((mean - there) ** 2 / variance).mean()))


def _distillation_metrics(tiles: NDArray[Any], images: NDArray[Any]) -> dict[str, float]:
    """Return what is reported of a student, from ``(n, 3)`` of tiles and of pictures."""
    mean, variance, there = tiles.T
    n = max(1, round(SELECTED_FRACTION * len(mean)))
    best, doubted = (np.argsort(-by, kind="stable")[:n] for by in (mean, variance))
    off = np.abs(mean - there)
    error = np.abs(images[:, 0] - images[:, 2]).mean() / images[:, 2].mean()
    figures = {
        "count_error": error,
        "correlation": np.corrcoef(mean, there)[0, 1],
        "spread": _error_spread(tiles),
        "coverage_95": (off <= 1.96 * np.sqrt(variance)).mean(),
        "count_in_top_tenth": there[best].sum() / there.sum(),
        "error_beyond_top_tenth": 1 - off[doubted].sum() / max(off.sum(), 1e-12),
    }
    return {name: round(float(value), 4) for name, value in figures.items()}
