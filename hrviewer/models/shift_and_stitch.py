"""A network's answer at a finer step than its stride: shift and interleave.

A fully convolutional network of stride s answers every s pixels. Run on k² shifted inputs, whose
outputs are interleaved, it answers every s/k pixels, and says there what it would say of the window
about that very place (Giusti et al., *Fast image scanning with deep max-pooling convolutional
neural networks*, ICIP 2013; Lin et al., *ScanNet*, WACV 2018).
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from hrviewer.errors import HrviewerError
from hrviewer.models.network import Floats, Network

__all__ = ["ShiftAndStitch"]


class ShiftAndStitch(Network):
    """A network run on k² shifted inputs.

    Each cell of its output, ``s/k`` pixels wide, holds what the network says of the window whose
    answer, of s × s pixels, has the cell in its middle. Densities, and their variances, are over
    k²: they sum to the mean of the shifts' counts.

    Parameters
    ----------
    network : Network
        Settled, fully convolutional.
    k : int
        How many shifts along each axis, at least 2.

    Raises
    ------
    UserError
        Where its answers cannot be interleaved, or the cells would not lie on pixels.
    """

    def __init__(self, network: Network, k: int) -> None:
        card, s = network.card, network.stride
        if card.input.fixed or card.task not in ("density", "segmentation", "saliency"):
            raise HrviewerError(
                f"{card.name} cannot answer {k} times denser: only a fully convolutional network "
                "of any size that gives a map can; choose denser=1"
            )
        if s % k or (s - s // k) % 2:
            raise HrviewerError(
                f"{card.name} answers every {s} pixels, which {k} does not divide so that its "
                "windows' middles lie on pixels: choose another number for denser"
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
                        # Beyond the image it is shown a reflection, to shift into.
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
        """Run the network on every shift of ``(n, C, h, w)``; sides are multiples of `period`."""
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
        # What was shifted into is never answered for.
        return np.pad(out, [(0, 0), (0, 0), (k, k), (k, k)], mode="edge")

    def _shift_offsets(self) -> list[int]:
        """Return where the shifted inputs begin, in pixels."""
        s, fine = self.network.stride, self.network.stride // self.k
        return [s + i * fine - (s - fine) // 2 for i in range(self.k)]

    def _run(self, batch: Floats) -> Sequence[Floats]:
        return [self(batch)]

    def _count(self, h: int, w: int) -> float:
        s = self.network.stride
        return self.k**2 * self.network.flops(h - 2 * s, w - 2 * s)
