"""The lesson of an encoder that is shown pictures alone: neither counts nor labels."""

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
"""Standard deviations of what is added to every pixel, and to each channel of a picture."""
RIDGE_STRENGTHS = np.logspace(-2, 4, 13)
"""Between which a ridge regression chooses."""


@dataclass(frozen=True)
class DenoisingTask(EncoderTask):
    """Learn to encode what a place looks like, from spoiled pictures of it.

    As the autoencoder among the encoders of Neural Image Compression (Tellez et al., TPAMI 2019):
    what is to be answered later is not known yet. The card tells what a linear head reads from
    its codes, beside what the same head reads from those of the encoder that the pack has.

    Parameters
    ----------
    card, sources, teacher, stream, choose, test, windows, tile, steps, rate
        See `Coder`; ``main`` is asked for the figures only.
    rival
        The pack's own encoder, where it has one.
    """

    learning_rate: float = 3e-3
    reference_encoder: Network | None = None

    @classmethod
    def _derive(
        cls, bundle: ModelBundle, main: ModelCard, role: str, downsample: int | None, device: str
    ) -> dict[str, Any]:
        own = super()._derive(bundle, main, role, downsample, device)
        rival = bundle.load("encoder", device) if "encoder" in bundle.roles else None
        return own | {"initial_weights": {}, "reference_encoder": rival}

    def loss(self, model: nn.Module, batch: Batch) -> Tensor:
        """Compare what was reconstructed with what was not spoiled."""
        (images,) = batch
        return self._reconstruction_error(model, images, add_noise(images))

    def validate(self, model: nn.Module) -> dict[str, float]:
        """Return the mean squared error of the pictures to choose by, as main sees them."""
        model = model.eval()
        place = next(model.parameters()).device
        with torch.inference_mode():
            off = [
                float(self._reconstruction_error(model, image, image))
                for image in (to_float(picture[None]).to(place) for picture in self.validation)
            ]
        return {"reconstruction_error": round(float(np.mean(off)), 4)}

    def calibrate(self, model: nn.Module) -> dict[str, float]:
        """Set nothing: codes have no unit."""
        return {}

    def evaluate(self, model: nn.Module) -> dict[str, Any]:
        """Return what a ridge regression from codes to main's counts is worth, of both encoders."""
        place = next(model.parameters()).device
        model = model.eval()

        def own(images: Tensor) -> Tensor:
            codes: Tensor = model(normalise(self._model_input(images.to(place)), self.card.input))
            return codes.float().cpu()

        told = {
            "description": "ridge regression from embeddings to main's counts, fitted on "
            f"{len(self.validation)} images, evaluated on {len(self.test)} held-out images: error "
            f"of the counts over their mean, correlation on {self.tile} px tiles; the same for "
            "the encoder trained on main's counts",
            **self._ridge_metrics(own),
        }
        rival = self.reference_encoder
        if rival is not None:
            how = rival.card.input

            def theirs(images: Tensor) -> Tensor:
                return torch.from_numpy(rival(normalise(self._model_input(images), how).numpy()))

            told["supervised_encoder"] = self._ridge_metrics(theirs)
        return told

    def _reconstruction_error(self, model: nn.Module, images: Tensor, shown: Tensor) -> Tensor:
        """Return the mean squared error of images at a quarter of the size, as `main` sees them."""
        clean, seen = (normalise(self._model_input(x), self.card.input) for x in (images, shown))
        small = F.pixel_unshuffle(F.avg_pool2d(clean, 4), STRIDE // 4)
        return F.mse_loss(model.picture(model(seen)).float(), small)  # type: ignore[operator]

    def _ridge_metrics(self, encode: Callable[[Tensor], Tensor]) -> dict[str, float]:
        """Fit a head to codes of the pictures to choose by; return how it does on the others."""
        try:
            from sklearn.linear_model import RidgeCV
        except ImportError:
            raise HrviewerError('scikit-learn is missing: pip install "hrviewer[fit]"') from None

        def known(pictures: Sequence[Tensor]) -> list[tuple[Tensor, Tensor]]:
            pairs = []
            for picture in pictures:
                h, w = (length // self.tile * self.tile for length in picture.shape[1:])
                image = to_float(picture[None, :, :h, :w])
                with torch.inference_mode():
                    pairs.append(
                        (encode(image)[0], self._cached_teacher_density(picture, image).sum(0))
                    )
            return pairs

        learned = known(self.validation)
        codes = torch.cat([c.flatten(1) for c, _ in learned], 1).T.numpy()
        counts = torch.cat([n.flatten() for _, n in learned]).numpy()
        head = RidgeCV(alphas=RIDGE_STRENGTHS).fit(codes, counts)
        side, tiles, off, there = self.tile // self._cell_side, [], 0.0, 0.0
        for c, n in known(self.test):
            said = torch.from_numpy(head.predict(c.flatten(1).T.numpy())).reshape(n.shape)
            both = torch.stack([said.float(), n])
            tiles.append(F.avg_pool2d(both, side).flatten(1))
            off, there = off + float((said.sum() - n.sum()).abs()), there + float(n.sum())
        correlation = np.corrcoef(torch.cat(tiles, 1).numpy())[0, 1]
        return {"count_error": round(off / there, 4), "correlation": round(float(correlation), 4)}


def add_noise(images: Tensor) -> Tensor:
    """Return images ``(n, 3, h, w)`` with noise and another tint."""
    tint = TINT_STD * torch.randn(*images.shape[:2], 1, 1, device=images.device)
    return images + tint + NOISE_STD * torch.randn_like(images)
