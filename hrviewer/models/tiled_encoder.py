"""An encoder of small tiles, one embedding each, run on many tiles at once.

Published encoders take tiles of 64 or 128 pixels and give one embedding. Reading, storing and
accounting for each such tile by itself would take longer than inference; cut from one larger
input, the overhead vanishes.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from hrviewer.models.card import ModelCard
from hrviewer.models.network import Floats, Network

__all__ = ["TiledEncoder", "is_tile_encoder"]

TARGET_SIDE = 512
"""Approximate side of an input, in pixels."""


def is_tile_encoder(card: ModelCard) -> bool:
    """Whether a network gives one embedding per tile of a single fixed size, without context."""
    fits = card.stride == card.input.tile and not card.output.halo
    return card.task == "embedding" and card.input.fixed and fits


class TiledEncoder(Network):
    """An encoder applied to inputs of any number of tiles; its output is a grid of embeddings.

    Parameters
    ----------
    network
        Validated; `is_tile_encoder` is true of its card.
    """

    def __init__(self, network: Network) -> None:
        tile = network.card.input.tile
        sizes = {"tile": tile * max(1, TARGET_SIDE // tile), "multiple_of": tile, "fixed": False}
        card = network.card.model_copy(
            update={
                "input": network.card.input.model_copy(update=sizes),
                "output": network.card.output.model_copy(update={"halo": 0}),
            }
        )
        super().__init__(card, "", network.backend, network.device, network.precision)
        self.digest, self.external_files = network.digest, network.external_files
        self._network, self._tile = network, tile

    def _run(self, batch: Floats) -> Sequence[Floats]:
        n, c, h, w = batch.shape
        tile = self._tile
        rows, columns = h // tile, w // tile
        cut = batch.reshape(n, c, rows, tile, columns, tile).transpose(0, 2, 4, 1, 3, 5)
        embeddings = self._network(np.ascontiguousarray(cut.reshape(-1, c, tile, tile)))
        return [embeddings.reshape(n, rows, columns, -1).transpose(0, 3, 1, 2)]

    def _count(self, h: int, w: int) -> float:
        each = self._network.flops(self._tile, self._tile)
        return each * (h // self._tile) * (w // self._tile)
