"""The lesson of an encoder that is shown pictures alone: neither counts nor labels."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from hrviewer.errors import UserError
from hrviewer.models.card import Card
from hrviewer.models.network import Network
from hrviewer.models.pack import Pack
from hrviewer.training.density_task import floats, normalised
from hrviewer.training.encoder_tasks import STRIDE, Coder
from hrviewer.training.task import Batch

__all__ = ["Reconstructor"]

NOISE, TINT = 0.05, 0.1
"""Standard deviations of what is added to every pixel, and to each channel of a picture."""
STRENGTHS = np.logspace(-2, 4, 13)
"""Between which a ridge regression chooses."""


@dataclass(frozen=True)
class Reconstructor(Coder):
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

    rate: float = 3e-3
    rival: Network | None = None

    @classmethod
    def _follows(
        cls, networks: Pack, main: Card, role: str, down: int | None, device: str
    ) -> dict[str, Any]:
        own = super()._follows(networks, main, role, down, device)
        rival = networks.load("encoder", device) if "encoder" in networks.roles else None
        return own | {"start": {}, "rival": rival}

    def loss(self, network: nn.Module, batch: Batch) -> Tensor:
        """Compare what was reconstructed with what was not spoiled."""
        (images,) = batch
        return self._unlike(network, images, spoiled(images))

    def judge(self, network: nn.Module) -> dict[str, float]:
        """Return the mean squared error of the pictures to choose by, as main sees them."""
        network = network.eval()
        place = next(network.parameters()).device
        with torch.inference_mode():
            off = [
                float(self._unlike(network, image, image))
                for image in (floats(picture[None]).to(place) for picture in self.choose)
            ]
        return {"unlike": round(float(np.mean(off)), 4)}

    def calibrate(self, network: nn.Module) -> dict[str, float]:
        """Set nothing: codes have no unit."""
        return {}

    def examine(self, network: nn.Module) -> dict[str, Any]:
        """Return what a ridge regression from codes to main's counts is worth, of both encoders."""
        place = next(network.parameters()).device
        network = network.eval()

        def own(images: Tensor) -> Tensor:
            codes: Tensor = network(normalised(self._view(images.to(place)), self.card.input))
            return codes.float().cpu()

        told = {
            "what": f"main's counts by a ridge regression from codes, fitted to {len(self.choose)} "
            f"pictures, on {len(self.test)} others that were not learned from: error of the "
            f"counts over their mean, correlation on tiles of {self.tile} px; the same of the "
            "encoder that was taught what main counts",
            **self._read(own),
        }
        rival = self.rival
        if rival is not None:
            how = rival.card.input

            def theirs(images: Tensor) -> Tensor:
                return torch.from_numpy(rival(normalised(self._view(images), how).numpy()))

            told["taught_by_main"] = self._read(theirs)
        return told

    def _unlike(self, network: nn.Module, images: Tensor, shown: Tensor) -> Tensor:
        """Return the mean squared error of images at a quarter of the size, as `main` sees them."""
        clean, seen = (normalised(self._view(x), self.card.input) for x in (images, shown))
        small = F.pixel_unshuffle(F.avg_pool2d(clean, 4), STRIDE // 4)
        return F.mse_loss(network.picture(network(seen)).float(), small)  # type: ignore[operator]

    def _read(self, encode: Callable[[Tensor], Tensor]) -> dict[str, float]:
        """Fit a head to codes of the pictures to choose by; return how it does on the others."""
        try:
            from sklearn.linear_model import RidgeCV
        except ImportError:
            raise UserError('scikit-learn is missing: pip install "hrviewer[fit]"') from None

        def known(pictures: Sequence[Tensor]) -> list[tuple[Tensor, Tensor]]:
            pairs = []
            for picture in pictures:
                h, w = (length // self.tile * self.tile for length in picture.shape[1:])
                image = floats(picture[None, :, :h, :w])
                with torch.inference_mode():
                    pairs.append((encode(image)[0], self._mains(picture, image).sum(0)))
            return pairs

        learned = known(self.choose)
        codes = torch.cat([c.flatten(1) for c, _ in learned], 1).T.numpy()
        counts = torch.cat([n.flatten() for _, n in learned]).numpy()
        head = RidgeCV(alphas=STRENGTHS).fit(codes, counts)
        side, tiles, off, there = self.tile // self._cell, [], 0.0, 0.0
        for c, n in known(self.test):
            said = torch.from_numpy(head.predict(c.flatten(1).T.numpy())).reshape(n.shape)
            both = torch.stack([said.float(), n])
            tiles.append(F.avg_pool2d(both, side).flatten(1))
            off, there = off + float((said.sum() - n.sum()).abs()), there + float(n.sum())
        correlation = np.corrcoef(torch.cat(tiles, 1).numpy())[0, 1]
        return {"count_error": round(off / there, 4), "correlation": round(float(correlation), 4)}


def spoiled(images: Tensor) -> Tensor:
    """Return images ``(n, 3, h, w)`` with noise and another tint."""
    tint = TINT * torch.randn(*images.shape[:2], 1, 1, device=images.device)
    return images + tint + NOISE * torch.randn_like(images)
