"""Training task of an encoder on unlabelled images, by denoising."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from hrviewer.errors import HrviewerError
from hrviewer.models.bundle import ModelBundle
from hrviewer.models.card import ModelCard
from hrviewer.models.network import Network
from hrviewer.training.density_task import normalise, to_float
from hrviewer.training.encoder_tasks import STRIDE, EncoderTask
from hrviewer.training.task import Batch

__all__ = ["DenoisingTask"]

NOISE_STD, TINT_STD = 0.05, 0.1
"""Standard deviations of the noise of each pixel, and of the tint of each channel."""
RIDGE_STRENGTHS = np.logspace(-2, 4, 13)
"""Regularisation strengths among which ridge regression selects."""


@dataclass(frozen=True)
class DenoisingTask(EncoderTask):
    """Training of an encoder, whose embeddings reconstruct noisy images.

    As the autoencoder among the encoders of Neural Image Compression (Tellez et al., TPAMI 2019):
    the later task is not known yet. The card has the metrics of a linear head on its embeddings,
    next to those of the same head on the embeddings of the bundle's present encoder.

    Parameters
    ----------
    card, sources, teacher, stream, validation, test, windows, tile, steps, learning_rate
        As in `EncoderTask`; ``main`` is used for the metrics only.
    reference_encoder
        The bundle's present encoder, if it has one.
    """

    learning_rate: float = 3e-3
    reference_encoder: Network | None = None

    @classmethod
    def _derive(
        cls, bundle: ModelBundle, main: ModelCard, role: str, downsample: int | None, device: str
    ) -> dict[str, Any]:
        derived = super()._derive(bundle, main, role, downsample, device)
        reference = bundle.load("encoder", device) if "encoder" in bundle.roles else None
        return derived | {"initial_weights": {}, "reference_encoder": reference}

    def loss(self, model: nn.Module, batch: Batch) -> Tensor:
        """Compare the reconstruction of noisy images with the images."""
        (images,) = batch
        return self._reconstruction_error(model, images, add_noise(images))

    def validate(self, model: nn.Module) -> dict[str, float]:
        """Return the mean squared error on the validation images, as main gets them."""
        model = model.eval()
        device = next(model.parameters()).device
        with torch.inference_mode():
            errors = [
                float(self._reconstruction_error(model, image, image))
                for image in (to_float(full[None]).to(device) for full in self.validation)
            ]
        return {"reconstruction_error": round(float(np.mean(errors)), 4)}

    def calibrate(self, model: nn.Module) -> dict[str, float]:
        """Return nothing: embeddings have no unit."""
        return {}

    def evaluate(self, model: nn.Module) -> dict[str, Any]:
        """Return the metrics of ridge regression from the embeddings of both encoders."""
        device = next(model.parameters()).device
        model = model.eval()

        def encode(images: Tensor) -> Tensor:
            embeddings: Tensor = model(
                normalise(self._model_input(images.to(device)), self.card.input)
            )
            return embeddings.float().cpu()

        metrics = {
            "description": "ridge regression from embeddings to main's counts, fitted on "
            f"{len(self.validation)} images, evaluated on {len(self.test)} held-out images: error "
            f"of the counts over their mean, correlation on {self.tile} px tiles; the same for "
            "the encoder trained on main's counts",
            **self._ridge_metrics(encode),
        }
        reference = self.reference_encoder
        if reference is not None:
            spec = reference.card.input

            def encode_reference(images: Tensor) -> Tensor:
                return torch.from_numpy(
                    reference(normalise(self._model_input(images), spec).numpy())
                )

            metrics["supervised_encoder"] = self._ridge_metrics(encode_reference)
        return metrics

    def _reconstruction_error(self, model: nn.Module, images: Tensor, noisy: Tensor) -> Tensor:
        """Return the mean squared error of images at a quarter of the size, as `main` gets them."""
        targets, inputs = (
            normalise(self._model_input(batch), self.card.input) for batch in (images, noisy)
        )
        expected = F.pixel_unshuffle(F.avg_pool2d(targets, 4), STRIDE // 4)
        return F.mse_loss(model.picture(model(inputs)).float(), expected)  # type: ignore[operator]

    def _ridge_metrics(self, encode: Callable[[Tensor], Tensor]) -> dict[str, float]:
        """Fit a head to embeddings of the validation images; return metrics on the test images."""
        try:
            from sklearn.linear_model import RidgeCV
        except ImportError:
            raise HrviewerError('scikit-learn is missing: pip install "hrviewer[fit]"') from None

        def pairs_of(images: Sequence[Tensor]) -> list[tuple[Tensor, Tensor]]:
            pairs = []
            for full in images:
                h, w = (length // self.tile * self.tile for length in full.shape[1:])
                image = to_float(full[None, :, :h, :w])
                with torch.inference_mode():
                    pairs.append(
                        (encode(image)[0], self._cached_teacher_density(full, image).sum(0))
                    )
            return pairs

        fitted = pairs_of(self.validation)
        embeddings = torch.cat([embedding.flatten(1) for embedding, _ in fitted], 1).T.numpy()
        counts = torch.cat([expected.flatten() for _, expected in fitted]).numpy()
        head = RidgeCV(alphas=RIDGE_STRENGTHS).fit(embeddings, counts)
        side, tiles, error, total = self.tile // self._cell_side, [], 0.0, 0.0
        for embedding, expected in pairs_of(self.test):
            predicted = torch.from_numpy(head.predict(embedding.flatten(1).T.numpy())).reshape(
                expected.shape
            )
            both = torch.stack([predicted.float(), expected])
            tiles.append(F.avg_pool2d(both, side).flatten(1))
            error, total = (
                error + float((predicted.sum() - expected.sum()).abs()),
                total + float(expected.sum()),
            )
        correlation = np.corrcoef(torch.cat(tiles, 1).numpy())[0, 1]
        return {"count_error": round(error / total, 4), "correlation": round(float(correlation), 4)}


def add_noise(images: Tensor) -> Tensor:
    """Return images ``(n, 3, h, w)`` with noise and a random tint."""
    tint = TINT_STD * torch.randn(*images.shape[:2], 1, 1, device=images.device)
    return images + tint + NOISE_STD * torch.randn_like(images)
