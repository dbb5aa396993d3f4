"""Training of networks that predict, at less cost, the density of ``main`` and its uncertainty.

They are distilled from the bundle's ``main``, so unlabelled images suffice: the target is main's
own prediction. The variance is part of the prediction, and evaluated on tiles of the size that
strategies select.
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

from hrviewer.models.accuracy import ModelAccuracy
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
"""Fraction of the tiles that a strategy processes at full resolution, for the metrics."""


@dataclass(frozen=True)
class DistillationSpec:
    """Settings that the distilled networks of a role share.

    Attributes
    ----------
    architecture, params
        Architecture of the network, without its classes.
    stride, downsample, multiple_of
        Of its card: pixels per cell, downsampling of its images, and the step of their sides.
    windows
        Windows of `density_loss`.
    tile, fixed
        Of its card: the side of its tiles, and whether it is the only one.
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
"""Settings by role, or by role and downsampling. A scout gets downsampled images; at half the size,
for objects too small for more, it has fewer channels, and larger tiles, since their halos would
otherwise cost a third of a budget. A scanner gets every pixel, and does not pad the border; a
transformer gets squares of several sizes (`TransformerTask`), and its windows are in cells of the
largest square.
"""


@dataclass(frozen=True)
class DistilledScout:
    """Training of a network that predicts, at less cost, the counts of ``main``.

    Parameters
    ----------
    card, sources
        As in `TrainingTask`. The architecture has a method ``rescale`` as `DensityUNet` has.
    teacher
        The bundle's ``main``.
    stream
        Takes steps and seed, returns batches of one tensor: images ``(n, 3, h, w)`` from 0 to 1
        at main's native scale, whose sides are multiples of the largest window (a scout's cell is
        32 of their pixels, a scanner's 8).
    validation, test
        Images ``(3, h, w)`` at main's native scale, from 0 to 1 or in bytes.
    windows
        Windows of `density_loss`.
    tile
        Side in native pixels of the tiles on which the network is evaluated.
    steps, learning_rate
        As in `TrainingTask`.
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
    """Predictions of main on validation and test images, which are needed repeatedly."""
    ROLE: ClassVar[str] = "scout"

    @classmethod
    def from_bundle(
        cls,
        folder: Path,
        sources: dict[str, Any],
        stream: Callable[[int, int], Dataset[Batch]],
        *,
        role: str = "",
        downsample: int | None = None,
        validation: Sequence[Tensor],
        test: Sequence[Tensor],
        device: str = "auto",
        **fields: Any,
    ) -> Self:
        """Return the task of a role, whose card follows from the networks of its bundle.

        Parameters
        ----------
        folder
            The bundle's folder.
        sources
            Provenance of the images; that of the teacher is added.
        stream, validation, test
            See the class.
        role
            The class's own by default.
        downsample
            Downsampling of the images, if it is not the role's own.
        device
            Device of the bundle's networks: ``auto``, ``cpu``, ``cuda`` or ``cuda:N``.
        **fields
            Other attributes of the class.

        Raises
        ------
        ModelError
            If the bundle lacks a network that the task needs, or has an unsuitable one.
        """
        bundle = ModelBundle.read(folder)
        teacher = bundle.load("main", device)
        derived = cls._derive(bundle, teacher.card, role or cls.ROLE, downsample, device)
        derived |= {"teacher": teacher}
        references = {
            name: model_reference(value.card)
            for name, value in derived.items()
            if isinstance(value, Network)
        }
        return cls(
            sources=sources | references,
            stream=stream,
            validation=validation,
            test=test,
            **{**derived, **fields},
        )

    @classmethod
    def _derive(
        cls, bundle: ModelBundle, main: ModelCard, role: str, downsample: int | None, device: str
    ) -> dict[str, Any]:
        """Return the attributes of a task that follow from a bundle: card, windows and networks."""
        spec = DISTILLATION_SPECS.get(f"{role}/{downsample}", DISTILLATION_SPECS[role])
        architecture = Architecture(
            name=spec.architecture, params={"classes": len(main.output.classes), **spec.params}
        )
        shape = {
            "downsample": downsample or spec.downsample,
            "multiple_of": spec.multiple_of,
            "tile": spec.tile,
            "fixed": spec.fixed,
        }
        card = derive_card(
            main,
            role,
            architecture,
            input=main.input.model_copy(update=shape),
            output=main.output.model_copy(
                update={
                    "stride": spec.stride,
                    "halo": halo(architecture),
                    "margin": int(getattr(build(architecture), "margin", 0)),
                    "names": (),
                    "activation": "none",
                    "variance": True,
                    "bound": None,
                    "context": None,
                }
            ),
        )
        return {"card": card, "windows": spec.windows}

    def create_model(self) -> nn.Module:
        """Return a network with random weights."""
        return build(self.card.architecture)

    def batches(self, steps: int, seed: int) -> Dataset[Batch]:
        """Return the data stream."""
        return self.stream(steps, seed)

    def loss(self, model: nn.Module, batch: Batch) -> Tensor:
        """Compare the counts in windows with main's; the variance models the remaining error."""
        (images,) = batch
        return self._prediction_loss(self._predict(model, images), images)

    def _prediction_loss(self, predicted: Tensor, images: Tensor) -> Tensor:
        """Return the loss of a prediction on images."""
        mean, variance = predicted.float().chunk(2, 1)
        target = self._teacher_density(images)
        return density_loss(mean, target, self.windows) + 0.1 * variance_loss(
            mean, variance, target
        )

    def validate(self, model: nn.Module) -> dict[str, float]:
        """Return the metrics on the validation images."""
        return _distillation_metrics(*self._tile_sums(model, self.validation))

    def calibrate(self, model: nn.Module) -> dict[str, float]:
        """Scale the counts to main's, then the variance to the errors."""
        tiles, images = self._tile_sums(model, self.validation)
        # Of nearly empty images a ratio says nothing.
        counted = images[images[:, 2] > 0.1 * images[:, 2].mean()]
        gain = fit_gain(counted[:, 0], counted[:, 2])
        model.rescale(gain)  # type: ignore[operator]
        tiles, _ = self._tile_sums(model, self.validation)
        spread = _error_spread(tiles)
        if spread > 0:  # where all predictions were nothing there is none to learn from
            model.rescale(1.0, spread**2)  # type: ignore[operator]
        return {"gain": round(float(gain), 4), "error_spread_before": round(spread, 4)}

    def evaluate(self, model: nn.Module) -> dict[str, Any]:
        """Return the metrics on the test images, and the relative cost."""
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
        """Return the FLOPs of inference on an image, over those of main."""
        spec = self.card.input
        meta_model = copy.deepcopy(model).to("meta")
        flops = count_flops(meta_model, "forward", (1, spec.channel_count, spec.tile, spec.tile))
        side, tile = spec.tile * spec.downsample, self.teacher.card.input.tile
        return flops / (self.teacher.flops(tile, tile) * (side / tile) ** 2)

    @property
    def _cell_side(self) -> int:
        """Side of a cell of the prediction, in native pixels."""
        return int(self.card.stride * self.card.input.downsample)

    def _predict(self, model: nn.Module, images: Tensor) -> Tensor:
        """Return the prediction ``(n, 2k, rows, columns)`` for images ``(n, 3, h, w)``."""
        predicted: Tensor = model(normalise(self._model_input(images), self.card.input))
        return predicted

    def _model_input(self, images: Tensor) -> Tensor:
        """Return images as the network gets them: downsampled, padded by its margin."""
        small = F.avg_pool2d(images, int(self.card.input.downsample))
        return F.pad(small, [self.card.output.margin] * 4, mode="reflect")

    def _teacher_density(self, images: Tensor) -> Tensor:
        """Return main's density of images ``(n, 3, h, w)``, summed over the network's cells."""
        prepared = normalise(images, self.teacher.card.input).float().cpu().numpy()
        density = torch.from_numpy(self.teacher(prepared)).to(images.device)
        cell = self._cell_side // self.teacher.stride
        return F.avg_pool2d(density, cell) * cell * cell

    def _cached_teacher_density(self, key_image: Tensor, image: Tensor) -> Tensor:
        """Return main's density of an image, of which `image` is the part that is evaluated."""
        if id(key_image) not in self._teacher_outputs:
            self._teacher_outputs[id(key_image)] = self._teacher_density(image)[0]
        return self._teacher_outputs[id(key_image)]

    def _tile_sums(
        self, model: nn.Module, images: Sequence[Tensor]
    ) -> tuple[NDArray[Any], NDArray[Any]]:
        """Return count, variance and main's count of each tile and of each image, ``(n, 3)``."""
        side, device = self.tile // self._cell_side, next(model.parameters()).device
        tiles = []
        for full in images:
            h, w = (length // self.tile * self.tile for length in full.shape[1:])
            image = to_float(full[None, :, :h, :w])
            with torch.inference_mode():
                predicted = self._predict(model.eval(), image.to(device))[0].float().cpu()
            sums = [
                x.sum(0) for x in (*predicted.chunk(2), self._cached_teacher_density(full, image))
            ]
            maps = F.avg_pool2d(torch.stack(sums), side) * side * side
            values = maps.flatten(1).T.double().numpy()
            tiles.append(values[~np.isnan(values).any(axis=1)])  # main may be unknown somewhere
        return np.concatenate(tiles), np.array([t.sum(0) for t in tiles])


def derive_card(main: ModelCard, role: str, architecture: Architecture, **fields: Any) -> ModelCard:
    """Return the card of a network trained from ``main``: main's card with some fields changed.

    Raises
    ------
    ModelError
        If the fields are inconsistent.
    """
    changes = {
        "name": f"{main.name}-{role}",
        "title": f"{main.title}: its {role}",
        "architecture": architecture,
        "sha256": None,
        "accuracy": ModelAccuracy(),
        "training": {},
        "metrics": {},
    }
    card = main.model_copy(update=changes | fields)
    return ModelCard.from_dict(card.model_dump(), f"the {role} of {main.name}")


def run_scout(scout: Network, images: Tensor) -> tuple[Tensor, int]:
    """Return a scout's prediction ``(n, k, rows, columns)`` on images, and its cells' native side.

    Images ``(n, 3, h, w)`` are from 0 to 1 at main's native scale.
    """
    downsample = int(scout.card.input.downsample)
    prepared = normalise(F.avg_pool2d(images, downsample), scout.card.input).float().cpu().numpy()
    return torch.from_numpy(scout(prepared)), scout.stride * downsample


def model_reference(card: ModelCard) -> dict[str, Any]:
    """Return what identifies a network, for the cards of networks trained from it."""
    return {"name": card.name, "sha256": card.sha256}


def _error_spread(tiles: NDArray[Any]) -> float:
    """Return the root mean square of the errors over their predicted standard deviations."""
    mean, variance, expected = tiles.T
    return float(np.sqrt(((mean - expected) ** 2 / variance).mean()))


def _distillation_metrics(tiles: NDArray[Any], images: NDArray[Any]) -> dict[str, float]:
    """Return the metrics of a distilled network, from ``(n, 3)`` of tiles and of images."""
    mean, variance, expected = tiles.T
    n = max(1, round(SELECTED_FRACTION * len(mean)))
    top, uncertain = (np.argsort(-key, kind="stable")[:n] for key in (mean, variance))
    absolute = np.abs(mean - expected)
    count_error = np.abs(images[:, 0] - images[:, 2]).mean() / images[:, 2].mean()
    metrics = {
        "count_error": count_error,
        "correlation": np.corrcoef(mean, expected)[0, 1] if mean.std() * expected.std() else 0.0,
        "spread": _error_spread(tiles),
        "coverage_95": (absolute <= 1.96 * np.sqrt(variance)).mean(),
        "count_in_top_tenth": expected[top].sum() / expected.sum(),
        "error_beyond_top_tenth": 1 - absolute[uncertain].sum() / max(absolute.sum(), 1e-12),
    }
    # Equal predictions everywhere correlate with nothing.
    return {name: round(float(np.nan_to_num(value)), 4) for name, value in metrics.items()}
