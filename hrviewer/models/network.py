"""A loaded network, whatever runs it.

A back end says only how to run a batch (`_run`) and what a size costs (`_count`); sizes, output
shapes and activations are settled here, so that every network behaves alike:

- input ``(n, C, h, w)`` and output ``(n, k, oh, ow)``, float32, contiguous;
- one output cell speaks of ``stride × stride`` input pixels, the first of the first ones;
- a size that the network cannot take is filled at the bottom and the right, and what was filled
  is cut off the output again.
"""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from hrviewer.errors import HrviewerError
from hrviewer.models.card import Activation, ModelCard

if TYPE_CHECKING:
    from hrviewer.models.detection import Detections

__all__ = ["Floats", "Network"]

Floats = NDArray[np.float32]


class Network(ABC):
    """One network, ready to run.

    Attributes
    ----------
    card : Card
        What it takes and gives.
    digest : str
        Changes with the weights and with whatever in the card changes the answer.
    backend, device, precision : str
        What runs it (with its version), where, and in which numbers.
    stride : int
        Input pixels per output value.
    halo : int
        Input pixels of context, a multiple of `stride` and of ``multiple_of``.
    period : int
        Where an input may begin, in pixels of the image: at multiples of this its output is that
        of the whole, moved. Measured, since a network may shrink inside by more than it says.
    accepts_any_size : bool
        Whether it takes sizes that are not a multiple of ``multiple_of``. Its output is then
        ``h / stride`` rounded down or up, as the network does.
    max_batch : int or None
        The most inputs that the network takes at once, where it is limited; `__call__` takes any
        number.
    accepts_tokens : bool
        Whether it looks at many patches together (`run_tokens`).
    has_attention : bool
        Whether it tells which of them look where (`attention`).
    has_attribution : bool
        Whether it tells which codes mattered (`attribution`).
    """

    accepts_tokens = has_attention = has_attribution = False

    def __init__(
        self, card: ModelCard, weights: str, backend: str, device: str, precision: str = "float32"
    ) -> None:
        self.card = card
        self.digest = hashlib.sha256(f"{weights}\n{card.cache_key}".encode()).hexdigest()
        self.backend = backend
        self.device = device
        self.precision = precision
        self.stride = card.stride
        self.halo = -(-(card.output.halo or 0) // card.step) * card.step
        self.period = card.step
        self.accepts_any_size = False
        self.max_batch: int | None = None
        self._flops: dict[tuple[float, ...], float] = {}

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.card.name} on {self.backend}, {self.device}>"

    @abstractmethod
    def _run(self, batch: Floats) -> Sequence[Floats]:
        """Run a batch of a size that the network takes; every output as it comes."""

    @abstractmethod
    def _count(self, h: int, w: int) -> float:
        """Nominal FLOPs of one input of a size that the network takes."""

    def flops(self, h: int, w: int) -> float:
        """Return what one input ``(C, h, w)`` costs, in FLOPs.

        A multiplication with its addition is 2. Filling up to a size that the network takes
        is counted.
        """
        size = self._padded_size(h, w)
        if size not in self._flops:
            step, least = self.card.step, self.card.input.tile / 8
            even = all(length % step == 0 and length >= least for length in size)
            rule = self._flops_formula if even else None
            self._flops[size] = self._count(*size) if rule is None else rule(*size)
        return self._flops[size]

    @cached_property
    def _flops_formula(self) -> Callable[[int, int], float] | None:
        """What inputs of whole steps cost by their size; None where that has no closed form.

        Convolutions cost by area, and their edges and what comes after pooling in proportion to
        a side or not at all: four sizes tell all of it, and two others whether it is so. Counting
        each size takes far longer.
        """
        step, tile = self.card.step, self.card.input.tile // self.card.step
        if self.card.input.fixed or tile < 4:
            return None
        small, a, b, large = (max(1, n * tile // 8) * step for n in (1, 4, 6, 9))
        try:
            corner, down, right, both = (self._count(h, w) for w in (a, b) for h in (a, b))
            others = {size: self._count(*size) for size in ((large, small), (small, large))}
        except HrviewerError:  # there are sizes that it does not take
            return None
        slope, side, twist = down - corner, right - corner, both - down - right + corner

        def cost(h: int, w: int) -> float:
            y, x = (h - a) / (b - a), (w - a) / (b - a)
            return float(round(corner + y * slope + x * side + y * x * twist))

        return cost if all(cost(*size) == count for size, count in others.items()) else None

    def __call__(self, batch: Floats) -> Floats:
        """Run the network.

        Parameters
        ----------
        batch
            ``(n, C, h, w)``, prepared by the card. If the network is not `elastic` and ``h`` or
            ``w`` is not a multiple of ``multiple_of`` (or, with a fixed size, less than the
            tile), the input is reflected at the bottom and the right, or filled with the card's
            letterbox.

        Returns
        -------
        NDArray[np.float32]
            ``(n, k, oh, ow)``, activation applied. Where the input was filled, ``oh`` is
            ``h / stride`` rounded up. A detector counts the things whose centre is in each cell.

        Raises
        ------
        UserError
            Where the number of channels is wrong, or a fixed size is exceeded.
        MemoryError
            Where the device has not enough memory for this batch.
        """
        n, _, h, w = batch.shape
        if n == 0:
            size = -(-h // self.stride), -(-w // self.stride)
            return np.zeros((0, self.card.output_channels, *size), np.float32)
        outputs, (ph, pw) = self._run_padded(batch)
        if self.card.output.decode is not None:
            from hrviewer.models import detection

            out = detection.count_map(self._decode(outputs, (h, w)), self.card, (ph, pw))
        else:
            out = self._to_stride(_concatenate_outputs(outputs), ph, pw)
            k = (
                self.card.prediction_channels if self.card.output.attention else None
            )  # a score stays
            said = activate(out[:, :k], self.card.output.activation)
            out = said if k is None else np.concatenate([said, out[:, k:]], axis=1)
        if (ph, pw) != (h, w):
            out = out[:, :, : -(-h // self.stride), : -(-w // self.stride)]
        return np.ascontiguousarray(out, np.float32)

    def detect(self, batch: Floats) -> list[Detections]:
        """Return what a detector finds in each of ``(n, C, h, w)``; `UserError` for any other."""
        if self.card.output.decode is None:
            raise HrviewerError(f"{self.card.name} is no detector: its task is {self.card.task}")
        return self._decode(self._run_padded(batch)[0], (batch.shape[2], batch.shape[3]))

    def run_tokens(
        self,
        tokens: Floats,
        boxes: NDArray[Any],
        lengths: Sequence[int] | None = None,
        merge: float = 0.0,
    ) -> Floats:
        """Run on many patches together.

        Parameters
        ----------
        tokens
            ``(n, C, p, p)``, prepared.
        boxes
            ``(n, 4)``: where each lies, ``y, x, h, w`` in the network's own pixels.
        lengths
            How many tokens each of several groups has, one after another, which know nothing of
            each other; all are one group by default.
        merge
            Which part of its tokens every layer merges.

        Returns
        -------
        NDArray[np.float32]
            ``(n, k, rows, columns)``.
        """
        raise self._unsupported("look at many patches together", "transformer")

    def token_flops(self, n: int, merge: float = 0.0) -> float:
        """Return what `join` costs for a group of `n` patches, in FLOPs."""
        raise self._unsupported("look at many patches together", "transformer")

    def attention(
        self, tokens: Floats, boxes: NDArray[Any], merge: float = 0.0
    ) -> tuple[Floats, NDArray[np.int64]]:
        """Return where each patch of one group looks, and which became one.

        Parameters
        ----------
        tokens, boxes, merge
            As in `join`.

        Returns
        -------
        weights : NDArray[np.float32]
            ``(n, n)``: the part of what patch *i* takes that it takes from *j*, in the last layer.
        owner : NDArray[np.int64]
            ``(n,)``: patches of one number were merged.
        """
        raise self._unsupported("tell where patches look", "transformer")

    def run_features(self, features: Floats) -> Floats:
        """Run on a grid of codes ``(d, gh, gw)`` and return ``(k, oh, ow)``.

        A head is a network whose card takes ``d`` channels, and whose pixels are codes; so is one
        that takes pictures, where codes are a picture as it takes them.
        """
        self._check_feature_width(features.shape[0])
        out: Floats = self(np.ascontiguousarray(features[None], np.float32))[0]
        return out

    def feature_flops(self, d: int, gh: int, gw: int) -> float:
        """Return what `think` costs, in FLOPs."""
        self._check_feature_width(d)
        return self.flops(gh, gw)

    def attribution(self, features: Floats) -> Floats:
        """Return how much each of a grid of codes ``(d, gh, gw)`` mattered: ``(gh, gw)``.

        Gradient times input: how much of the answer would be lost, to first order, if a code were
        0. Of several classes the answer is by how much the likeliest stands out from their mean.
        """
        raise self._unsupported("tell which codes mattered", "head of torch")

    def attribution_flops(self, d: int, gh: int, gw: int) -> float:
        """Return what `explain` costs: the way there, and back to the codes, which is as long."""
        return 2 * self.feature_flops(d, gh, gw)

    def _check_feature_width(self, d: int) -> None:
        if self.card.input.channel_count != d:
            raise HrviewerError(
                f"{self.card.name} takes codes of {self.card.input.channel_count} values, not {d}: "
                "use the encoder it was trained with"
            )

    def _unsupported(self, what: str, role: str) -> HrviewerError:
        return HrviewerError(f"{self.card.name} cannot {what}: choose a pack with a {role}")

    def _padded_size(self, h: int, w: int) -> tuple[int, int]:
        """Return the size at which an input is run."""
        it = self.card.input
        if it.fixed:
            if max(h, w) > it.tile:
                raise HrviewerError(
                    f"{self.card.name} takes {it.tile} pixels a side, not {h} × {w}"
                )
            return it.tile, it.tile
        m = 1 if self.accepts_any_size else it.multiple_of
        return -(-h // m) * m, -(-w // m) * m

    def _run_padded(self, batch: Floats) -> tuple[list[Floats], tuple[int, int]]:
        """Fill, run in parts that the network takes, and return with the size that was run."""
        n, c, h, w = batch.shape
        if c != self.card.input.channel_count:
            raise HrviewerError(
                f"{self.card.name} takes {self.card.input.channel_count} channels, not {c}"
            )
        ph, pw = self._padded_size(h, w)
        if (ph, pw) != (h, w):
            batch = self._pad(batch, ph - h, pw - w)
        part = self.max_batch or n
        parts = [self._run(batch[i : i + part]) for i in range(0, n, part)]
        joined = (np.concatenate(o) if len(o) > 1 else o[0] for o in zip(*parts, strict=True))
        return list(joined), (ph, pw)

    def _pad(self, batch: Floats, down: int, right: int) -> Floats:
        it = self.card.input
        pad = (0, 0), (0, 0), (0, down), (0, right)
        if it.letterbox is None:
            return np.pad(batch, pad, mode="reflect")
        n, c, h, w = batch.shape
        fill = it.letterbox * it.scale - np.broadcast_to(it.mean, c)
        out = np.empty((n, c, h + down, w + right), np.float32)
        out[:] = (fill / np.broadcast_to(it.std, c))[:, None, None]
        out[:, :, :h, :w] = batch
        return out

    def _to_stride(self, out: Floats, h: int, w: int) -> Floats:
        """Bring an output that leaves out a margin, or is finer than its input, to the stride."""
        margin, finer = self.card.output.margin, self.card.output.stride
        if isinstance(finer, float) and finer < 1:
            f = round(1 / finer)
            n, k, oh, ow = out.shape
            cells = out[:, :, : oh // f * f, : ow // f * f].reshape(n, k, oh // f, f, ow // f, f)
            # A density keeps its sum, everything else its level.
            out = cells.sum((3, 5)) if self.card.task == "density" else cells.mean((3, 5))
        if margin:
            # The halo is never answered for, and covers the margin: what stands there is no matter.
            gap = [
                max(0, side // self.stride - o)
                for side, o in zip((h, w), out.shape[2:], strict=True)
            ]
            out = np.pad(out, [(0, 0), (0, 0), *((g // 2, g - g // 2) for g in gap)], mode="edge")
        return out

    def _decode(self, outputs: Sequence[Floats], size: tuple[int, int]) -> list[Detections]:
        from hrviewer.models import detection

        return detection.decode(outputs[0], self.card, size)


def _concatenate_outputs(outputs: Sequence[Floats]) -> Floats:
    """Bring outputs of two, three and four axes to ``(n, k, oh, ow)``, one after another."""
    maps = []
    for out in outputs:
        if out.ndim == 2:
            out = out[:, :, None, None]
        elif out.ndim == 3:
            out = out[:, None]
        elif out.ndim != 4:
            raise HrviewerError(
                f"an output with {out.ndim} axes {out.shape}: 2, 3 or 4 can be read"
            )
        maps.append(out)
    sizes = {out.shape[2:] for out in maps}
    if len(sizes) > 1:
        raise HrviewerError(f"outputs of several sizes {sorted(sizes)}: export one of them")
    return maps[0] if len(maps) == 1 else np.concatenate(maps, axis=1)


def activate(x: Floats, activation: Activation) -> Floats:
    """Apply an activation to ``(n, k, …)``, over ``k``, without overflow."""
    if activation == "relu":
        return np.maximum(x, 0)
    if activation == "sigmoid":
        return np.asarray((1 + np.tanh(x / 2)) / 2, np.float32)
    if activation == "softmax":
        e = np.exp(x - x.max(axis=1, keepdims=True))
        return np.asarray(e / e.sum(axis=1, keepdims=True), np.float32)
    return x
