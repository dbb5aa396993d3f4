"""Base class of loaded networks, independent of the back end.

A back end only implements inference on a batch (`_run`) and the FLOPs of a size (`_count`). Sizes,
output shapes and activations are handled here, so that every network behaves alike:

- input ``(n, C, h, w)`` and output ``(n, k, oh, ow)``, float32, contiguous;
- one output cell covers ``stride × stride`` input pixels, beginning at the top left;
- an input of an unsupported size is padded at the bottom and the right, and its output is cropped.
"""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from hrviewer.errors import HrviewerError, ModelError
from hrviewer.models.activations import activate
from hrviewer.models.card import ModelCard

if TYPE_CHECKING:
    from hrviewer.models.detection import Detections

__all__ = ["Floats", "Network", "concatenate_outputs"]

Floats = NDArray[np.float32]

_UNKNOWN_BYTES_PER_PIXEL = 1024.0
"""Assumed memory of a network with unknown layers: 64 channels at full size, with room."""


class Network(ABC):
    """A network ready for inference.

    Attributes
    ----------
    card : ModelCard
        Its inputs and outputs.
    digest : str
        Hash of the weights and of all card fields that change the predictions.
    backend, device, precision : str
        The back end with its version, the device, and the number format.
    stride : int
        Input pixels per output value.
    halo : int
        Input pixels of context, a multiple of `stride` and of ``multiple_of``; of a detector at
        least the overlap that its objects need (`ModelCard.object_overlap`).
    halo_note : str
        Why the halo is not exact, where it was chosen without a measurement; else empty.
    period : int
        Alignment of inputs, in pixels: if an input begins at a multiple of this, its output is the
        shifted output of the whole image. Measured, since a network may downsample internally by
        more than its stride.
    accepts_any_size : bool
        Whether it accepts sizes that are not a multiple of ``multiple_of``. The output size is then
        ``h / stride``, rounded down or up by the network.
    max_batch : int or None
        Maximum number of inputs at once, if the network limits it; `__call__` accepts any number.
    external_files : tuple of Path
        Files that its weights file refers to.
    final_operations : frozenset of str
        Operations of ONNX that make the outputs; empty where they are not known.
    notes : tuple of str
        What the user should know of the device it runs on.
    facts_key : str
        Key under which measurements of it are kept on disk; empty if none are.
    measurements : dict
        Measurements by the engine, kept with the network: its exact halo, its best batch size.
    accepts_tokens : bool
        Whether it takes many patches as tokens of one input (`run_tokens`).
    has_attention : bool
        Whether it provides the attention between tokens (`attention`).
    has_attribution : bool
        Whether it provides the attribution of a prediction to embeddings (`attribution`).
    """

    notes: tuple[str, ...] = ()
    facts_key = ""
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
        step = card.halo_step
        self.halo = max(-(-(card.output.halo or 0) // step) * step, card.object_overlap)
        self.halo_note = ""
        self.period = card.step
        self.accepts_any_size = False
        self.max_batch: int | None = None
        self.external_files: tuple[Path, ...] = ()
        self.final_operations: frozenset[str] = frozenset()
        self.measurements: dict[tuple[object, ...], int] = {}
        self._flops: dict[tuple[float, ...], float] = {}

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.card.name} on {self.backend}, {self.device}>"

    @abstractmethod
    def _run(self, batch: Floats) -> Sequence[Floats]:
        """Run inference on a batch of a supported size; return the raw outputs."""

    @abstractmethod
    def _count(self, h: int, w: int) -> float:
        """Return the nominal FLOPs of one input of a supported size."""

    def _largest_layer_bytes(self, h: int, w: int) -> float | None:
        """Return the bytes that one layer reads and writes, at most, for an input of this size.

        None if the layers are unknown.
        """
        return None

    @cached_property
    def bytes_per_pixel(self) -> float:
        """Approximate memory of inference on one input, in bytes per input pixel.

        From the sizes of the layers alone, so it is the same on every device: the input and twice
        what the largest layer reads and writes, as back ends were measured to take.
        """
        tile = self.card.input.tile
        layer = self._largest_layer_bytes(tile, tile)
        if layer is None:
            return _UNKNOWN_BYTES_PER_PIXEL
        return 4 * self.card.input.channel_count + 2 * layer / tile**2

    def flops(self, h: int, w: int) -> float:
        """Return the FLOPs of one input ``(C, h, w)``.

        A multiply-add counts as 2. Padding to a supported size is included.
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
        """FLOPs as a function of size, for multiples of the step; None without a closed form.

        Convolutions cost in proportion to the area, borders to a side, and layers after global
        pooling are constant: four sizes determine the function, and two more verify it. Counting
        every size takes far longer.
        """
        step, tile = self.card.step, self.card.input.tile // self.card.step
        if self.card.input.fixed or tile < 4:
            return None
        small, a, b, large = (max(1, n * tile // 8) * step for n in (1, 4, 6, 9))
        try:
            corner, down, right, both = (self._count(h, w) for w in (a, b) for h in (a, b))
            others = {size: self._count(*size) for size in ((large, small), (small, large))}
        except HrviewerError:  # some sizes are not supported
            return None
        slope, side, twist = down - corner, right - corner, both - down - right + corner

        def cost(h: int, w: int) -> float:
            y, x = (h - a) / (b - a), (w - a) / (b - a)
            return float(round(corner + y * slope + x * side + y * x * twist))

        return cost if all(cost(*size) == count for size, count in others.items()) else None

    def __call__(self, batch: Floats) -> Floats:
        """Run inference.

        Parameters
        ----------
        batch
            ``(n, C, h, w)``, prepared by the card. Unless `accepts_any_size`, an input whose ``h``
            or ``w`` is not a multiple of ``multiple_of`` (or, with a fixed size, less than the
            tile) is padded at the bottom and the right, by reflection or with the card's
            letterbox value.

        Returns
        -------
        NDArray[np.float32]
            Predictions ``(n, k, oh, ow)``, after the activation. If the input was padded, ``oh`` is
            ``h / stride`` rounded up. A detector counts the boxes centred in each cell.

        Raises
        ------
        ModelError
            If the number of channels is wrong, or a fixed size is exceeded.
        MemoryError
            If the device has not enough memory for this batch.
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
            out = self._to_stride(concatenate_outputs(outputs), ph, pw)
            k = (
                self.card.prediction_channels if self.card.output.attention else None
            )  # scores have no activation
            activated = activate(out[:, :k], self.card.output.activation)
            out = activated if k is None else np.concatenate([activated, out[:, k:]], axis=1)
        if (ph, pw) != (h, w):
            out = out[:, :, : -(-h // self.stride), : -(-w // self.stride)]
        return np.ascontiguousarray(out, np.float32)

    def detect(
        self, batch: Floats, score: float | None = None, overlap: float | None = None
    ) -> list[Detections]:
        """Return a detector's predictions for each input of ``(n, C, h, w)``.

        Parameters
        ----------
        batch
            As of `__call__`.
        score, overlap
            Least score, and the overlap (intersection over union) above which two boxes of a class
            are one object; 1 keeps all. The usual thresholds by default.

        Raises
        ------
        ModelError
            If the network is not a detector.
        """
        if self.card.output.decode is None:
            raise ModelError(f"{self.card.name} is not a detector: its task is {self.card.task}")
        size = batch.shape[2], batch.shape[3]
        return self._decode(self._run_padded(batch)[0], size, score, overlap)

    def run_tokens(
        self,
        tokens: Floats,
        boxes: NDArray[Any],
        lengths: Sequence[int] | None = None,
        merge: float = 0.0,
    ) -> Floats:
        """Run inference on many patches as tokens of one input.

        Parameters
        ----------
        tokens
            ``(n, C, p, p)``, prepared.
        boxes
            ``(n, 4)``: the position of each, ``y, x, h, w`` in the network's pixels.
        lengths
            Number of tokens of each of several consecutive, independent groups; one group by
            default.
        merge
            Fraction of tokens merged in every layer.

        Returns
        -------
        NDArray[np.float32]
            ``(n, k, rows, columns)``.
        """
        raise self._unsupported("take many patches as tokens", "transformer")

    def token_flops(self, n: int, merge: float = 0.0) -> float:
        """Return the FLOPs of `run_tokens` for a group of `n` patches."""
        raise self._unsupported("take many patches as tokens", "transformer")

    def attention(
        self, tokens: Floats, boxes: NDArray[Any], merge: float = 0.0
    ) -> tuple[Floats, NDArray[np.int64]]:
        """Return the attention between the patches of one group, and which were merged.

        Parameters
        ----------
        tokens, boxes, merge
            As in `run_tokens`.

        Returns
        -------
        weights : NDArray[np.float32]
            ``(n, n)``: attention of patch *i* to patch *j* in the last layer; rows sum to 1.
        owner : NDArray[np.int64]
            ``(n,)``: patches with the same number were merged.
        """
        raise self._unsupported("provide attention between patches", "transformer")

    def run_features(self, features: Floats) -> Floats:
        """Run inference on a grid of features ``(d, gh, gw)`` and return ``(k, oh, ow)``.

        A head is a network whose card has ``d`` input channels and whose pixels are embeddings. A
        network for images runs on features that are a prepared image.
        """
        self._check_feature_width(features.shape[0])
        out: Floats = self(np.ascontiguousarray(features[None], np.float32))[0]
        return out

    def feature_flops(self, d: int, gh: int, gw: int) -> float:
        """Return the FLOPs of `run_features`."""
        self._check_feature_width(d)
        return self.flops(gh, gw)

    def attribution(self, features: Floats) -> Floats:
        """Return the attribution of the prediction to features ``(d, gh, gw)``, as ``(gh, gw)``.

        Gradient times input: the loss of the prediction, to first order, if a feature vector were
        0. For several classes the prediction is the margin of the largest over their mean.
        """
        raise self._unsupported("attribute its prediction to embeddings", "head of torch")

    def attribution_flops(self, d: int, gh: int, gw: int) -> float:
        """Return the FLOPs of `attribution`: a forward and a backward pass, of equal cost."""
        return 2 * self.feature_flops(d, gh, gw)

    def _check_feature_width(self, d: int) -> None:
        if self.card.input.channel_count != d:
            raise ModelError(
                f"{self.card.name} takes embeddings of {self.card.input.channel_count} values, "
                f"not {d}: use the encoder it was trained with"
            )

    def _unsupported(self, task: str, role: str) -> ModelError:
        return ModelError(f"{self.card.name} cannot {task}: choose a model with a {role}")

    def run_raw(self, batch: Floats) -> list[Floats]:
        """Return the raw outputs for a batch, padded as by `__call__`, before any activation."""
        return self._run_padded(batch)[0]

    def _padded_size(self, h: int, w: int) -> tuple[int, int]:
        """Return the size to which an input is padded."""
        it = self.card.input
        if it.fixed:
            if max(h, w) > it.tile:
                raise ModelError(f"{self.card.name} takes {it.tile} pixels a side, not {h} × {w}")
            return it.tile, it.tile
        m = 1 if self.accepts_any_size else it.multiple_of
        return -(-h // m) * m, -(-w // m) * m

    def _run_padded(self, batch: Floats) -> tuple[list[Floats], tuple[int, int]]:
        """Pad, run inference in supported batches, and return the outputs with the padded size."""
        n, c, h, w = batch.shape
        if c != self.card.input.channel_count:
            raise ModelError(
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
        """Resample an output that has a margin, or is finer than its input, to the stride."""
        margin, finer = self.card.output.margin, self.card.output.scalar_stride
        if finer < 1:
            f = round(1 / finer)
            n, k, oh, ow = out.shape
            cells = out[:, :, : oh // f * f, : ow // f * f].reshape(n, k, oh // f, f, ow // f, f)
            # A density keeps its sum, everything else its mean.
            out = cells.sum((3, 5)) if self.card.task == "density" else cells.mean((3, 5))
        if margin:
            # The halo is never part of a result and covers the margin: its values do not matter.
            gap = [
                max(0, side // self.stride - o)
                for side, o in zip((h, w), out.shape[2:], strict=True)
            ]
            out = np.pad(out, [(0, 0), (0, 0), *((g // 2, g - g // 2) for g in gap)], mode="edge")
        return out

    def _decode(
        self,
        outputs: Sequence[Floats],
        size: tuple[int, int],
        score: float | None = None,
        overlap: float | None = None,
    ) -> list[Detections]:
        from hrviewer.models import detection

        settings = self.card.merge_settings
        score = settings.score if score is None else score
        overlap = settings.overlap if overlap is None else overlap
        return detection.decode(outputs, self.card, size, score, overlap)


def concatenate_outputs(outputs: Sequence[Floats]) -> Floats:
    """Concatenate outputs of one to four axes into ``(n, k, oh, ow)``."""
    maps = []
    for out in outputs:
        if out.ndim == 1:
            out = out[:, None, None, None]
        elif out.ndim == 2:
            out = out[:, :, None, None]
        elif out.ndim == 3:
            out = out[:, None]
        elif out.ndim != 4:
            raise ModelError(f"an output has {out.ndim} axes {out.shape}: export it with 1 to 4")
        maps.append(out)
    sizes = {out.shape[2:] for out in maps}
    if len(sizes) > 1:
        shapes = ", ".join(str(out.shape[1:]) for out in outputs)
        raise ModelError(
            f"outputs of several sizes ({shapes}) are no one map: name those that belong together "
            "in the card's output.names"
        )
    return maps[0] if len(maps) == 1 else np.concatenate(maps, axis=1)
