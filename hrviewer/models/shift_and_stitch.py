"""Shift-and-stitch: dense predictions at a finer step than a network's stride.

A fully convolutional network of stride s predicts every s pixels. Run on k² shifted inputs, whose
outputs are interleaved, it predicts every s/k pixels, each from the window centred there
(Giusti et al., *Fast image scanning with deep max-pooling convolutional neural networks*, ICIP
2013; Lin et al., *ScanNet*, WACV 2018).
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from hrviewer.errors import ModelError
from hrviewer.models.network import Floats, Network

__all__ = ["ShiftAndStitch"]


class ShiftAndStitch(Network):
    """Inference on k² shifted inputs with interleaved outputs.

    Each output cell, ``s/k`` pixels wide, holds the prediction for the s × s pixels centred on it.
    Densities and their variances are divided by k²: they sum to the mean count over the shifts.

    Parameters
    ----------
    network : Network
        Validated, fully convolutional.
    k : int
        Number of shifts along each axis, at least 2.

    Raises
    ------
    ModelError
        If its outputs cannot be interleaved, or the cells would not lie on whole pixels.
    """

    def __init__(self, network: Network, k: int) -> None:
        card, s = network.card, network.stride
        if card.input.fixed or card.task not in ("density", "segmentation", "saliency"):
            raise ModelError(
                f"{card.name} cannot predict {k} times denser: only fully convolutional models "
                "that output a map can; choose denser=1"
            )
        if s % k or (s - s // k) % 2:
            raise ModelError(
                f"{card.name} predicts every {s} pixels, which {k} does not divide so that window "
                "centres lie on pixels: choose another value for denser"
            )
        multiple = math.lcm(card.input.multiple_of, network.period)
        tile = -(-card.input.tile // multiple) * multiple
        card = card.model_copy(
            update={
                "input": card.input.model_copy(update={"multiple_of": multiple, "tile": tile}),
                "output": card.output.model_copy(
                    update={
                        "stride": s // k,
                        "halo": network.halo + s,
                        # Beyond the border the image is reflected, to shift into.
                        "margin": card.output.margin + s,
                    }
                ),
            }
        )
        super().__init__(
            card,
            f"{network.digest}/{k}",
            network.backend,
            network.device,
            network.precision,
        )
        self.network, self.k = network, k
        self.period, self.max_batch = math.lcm(multiple, s), network.max_batch

    def __call__(self, batch: Floats) -> Floats:
        """Run inference on every shift of ``(n, C, h, w)``; sides are multiples of `period`."""
        k, s = self.k, self.network.stride
        h, w = batch.shape[2:]
        n, rows, columns = len(batch), h // s - 2, w // s - 2
        out = np.zeros((n, self.card.output_channels, rows * k, columns * k), np.float32)
        for i, y in enumerate(self._shift_offsets()):
            for j, x in enumerate(self._shift_offsets()):
                part = batch[:, :, y : y + rows * s, x : x + columns * s]
                out[:, :, i::k, j::k] = self.network(np.ascontiguousarray(part))
        if self.card.task == "density":
            out /= k * k
        # The border that was shifted into is never part of a result.
        return np.pad(out, [(0, 0), (0, 0), (k, k), (k, k)], mode="edge")

    def _shift_offsets(self) -> list[int]:
        """Return the offsets of the shifted inputs, in pixels."""
        s, fine = self.network.stride, self.network.stride // self.k
        return [s + i * fine - (s - fine) // 2 for i in range(self.k)]

    def _run(self, batch: Floats) -> Sequence[Floats]:
        return [self(batch)]

    def _count(self, h: int, w: int) -> float:
        s = self.network.stride
        return self.k**2 * self.network.flops(h - 2 * s, w - 2 * s)
