"""Measurement of an unknown network: sizes that it takes, and outputs that it gives."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hrviewer.errors import ModelError, short_message
from hrviewer.models.loaders.onnx_file import read_onnx

__all__ = ["MeasuredFile", "measure_file"]

Floats = NDArray[np.float32]
Run = Callable[[Floats], dict[str, Floats]]
"""Runs a batch; returns the outputs by name."""
Shape = tuple[int | None, ...]

MULTIPLES = 1, 2, 4, 8, 14, 16, 28, 32, 64
"""Multiples of which the sides of an input may have to be."""
SIDES = 224, 256, 512, 96
"""Sides that are tried where an input of any size is declared, but not every one runs."""
CHANNELS = 3, 1, 4
"""Numbers of channels that are tried where none is declared."""


@dataclass(frozen=True)
class MeasuredFile:
    """What a network takes and gives.

    Attributes
    ----------
    channels, tile, multiple_of, fixed
        As in a card's input. The tile is a size that runs, where any does.
    names : tuple of str
        Names of the outputs; of a program of torch numbers, unless it returns a dictionary.
    outputs : tuple of NDArray
        Outputs for noise ``(1, C, tile, tile)`` of 0 to 1.
    margin : int
        Input pixels without output on every side.
    stride : float
        Input pixels per value of the first map; the tile where there is none.
    is_uint8 : bool
        Whether it takes 8-bit pixels, unscaled.
    final_operations : frozenset of str
        What makes the outputs, if that is known; see `hrviewer.models.loaders.graph`.
    """

    channels: int
    tile: int
    multiple_of: int
    fixed: bool
    names: tuple[str, ...]
    outputs: tuple[Floats, ...]
    margin: int = 0
    stride: float = 0.0
    is_uint8: bool = False
    final_operations: frozenset[str] = frozenset()


def measure_file(path: Path, tile: int | None = None, channels: int | None = None) -> MeasuredFile:
    """Measure the network in a file.

    Parameters
    ----------
    path
        An ``.onnx`` file, or a program of torch whose source the user trusts.
    tile, channels
        Side and channels of the inputs, where the file does not hold them.

    Raises
    ------
    ModelError
        If the network takes no single image, or nothing runs.
    """
    if path.suffix.lower() == ".onnx":
        run, shape, is_uint8, operations = _open_onnx(path)
    else:
        run, shape = _open_program(path)
        is_uint8, operations = False, frozenset()
    c, h, w = shape[1:]
    if h is not None and h != w:
        raise ModelError(
            f"{path} takes {h} × {w} pixels only, and tiles are square: export it for square inputs"
        )
    counts = [channels] if channels else CHANNELS
    for count in [c] if c else counts:
        for side in [h] if h else [*([tile] if tile else []), *SIDES]:
            outputs, error = _try(run, count, side)
            if outputs is not None:
                found = MeasuredFile(
                    count,
                    side,
                    1,
                    h is not None,
                    tuple(outputs),
                    tuple(outputs.values()),
                    is_uint8=is_uint8,
                    final_operations=operations,
                )
                return _measure_sizes(run, found, wanted=tile)
    raise ModelError(
        f"{path} runs on none of the sizes that were tried ({error}): give its --tile, or export "
        "it again"
    )


def _open_program(path: Path) -> tuple[Run, Shape]:
    """Return a function that runs a program of torch, and its input's shape."""
    import torch

    from hrviewer.models.loaders.torch_outputs import to_arrays
    from hrviewer.models.loaders.torch_program import open_program

    program, declared = open_program(path)

    def run(batch: Floats) -> dict[str, Floats]:
        with torch.inference_mode():
            out = program(torch.from_numpy(batch))
        try:
            return to_arrays(out)
        except ModelError as error:
            raise ModelError(f"{path}: {error}") from None

    return run, declared or (None, None, None, None)


def _open_onnx(path: Path) -> tuple[Run, Shape, bool, frozenset[str]]:
    """Return a function that runs a graph, and what is known of it.

    Its input's shape, whether it takes 8-bit pixels and its last operations.
    """
    file = read_onnx(path)
    import onnxruntime

    from hrviewer.models.loaders.onnx import session_options

    inputs = ", ".join(map(str, file.inputs))
    if len(file.inputs) != 1:
        raise ModelError(
            f"{path} takes {len(file.inputs)} inputs ({inputs}): export it with the image as its "
            "only one, and the others as constants"
        )
    (image,) = file.inputs
    dtypes = {
        "float": np.float32, "float16": np.float16, "double": np.float64, "uint8": np.uint8,
    }  # fmt: skip
    if len(image.shape) != 4 or image.dtype not in dtypes:
        raise ModelError(
            f"{path} takes {inputs}: export it with one input (n, channels, h, w) of float, half, "
            "double or uint8"
        )
    file.external_files()
    _ = file.graph  # refuses what is not safe
    try:
        session = onnxruntime.InferenceSession(
            str(path), session_options(onnxruntime, 1), providers=["CPUExecutionProvider"]
        )
    except Exception as error:
        raise ModelError(
            f"onnxruntime rejects {path} ({short_message(error)}): export it again"
        ) from None
    sides = [side if isinstance(side, int) else None for side in image.shape]
    last = sides[3] in (1, 3, 4) and sides[1] not in (1, 3, 4)
    if last:
        sides = [sides[0], sides[3], sides[1], sides[2]]

    count = sides[0] or 1

    names = [output.name for output in file.outputs]

    def run(batch: Floats) -> dict[str, Floats]:
        x: NDArray[Any] = batch.transpose(0, 2, 3, 1) if last else batch
        x = np.repeat(x, count, axis=0)  # exported for a batch of this size only
        x = np.rint(x * 255) if image.dtype == "uint8" else x
        found = session.run(None, {image.name: np.ascontiguousarray(x, dtypes[image.dtype])})
        outputs = [np.asarray(out, np.float32) for out in found]
        if count > 1:
            outputs = [out[:1] for out in outputs]
        if last:
            outputs = [o.transpose(0, 3, 1, 2) if o.ndim == 4 else o for o in outputs]
        return dict(zip(names, outputs, strict=True))

    return run, tuple(sides), image.dtype == "uint8", file.final_operations


def _try(run: Run, channels: int, side: int) -> tuple[dict[str, Floats] | None, str]:
    """Return the outputs for noise, or None with the reason."""
    rng = np.random.default_rng(0)
    coarse = rng.random((1, channels, -(-side // 8), -(-side // 8)), np.float32)
    fine = rng.random((1, channels, side, side), np.float32)
    blocks = coarse.repeat(8, axis=2).repeat(8, axis=3)[..., :side, :side]
    try:
        outputs = run(np.ascontiguousarray((blocks + fine) / 2, np.float32))
    except (MemoryError, ModelError):
        raise
    except Exception as error:  # an unsupported size; back ends raise many kinds
        return None, short_message(error)
    return outputs, ""


def _measure_sizes(run: Run, found: MeasuredFile, wanted: int | None) -> MeasuredFile:
    """Add the multiple of sides, the stride and the margin of a network of free size."""
    maps = [out for out in found.outputs if out.ndim >= 3 and out.shape[-1] > 1]
    boxes = bool(maps) and all(out.ndim == 3 for out in found.outputs)
    side = found.tile
    if not maps or boxes:  # one prediction per tile, or boxes
        return replace(found, stride=float(side))
    if found.fixed:
        ratio = side / maps[0].shape[-1]
        stride = float(2 ** round(np.log2(ratio)))
        margin = max(0, round((side - maps[0].shape[-1] * stride) / 2))
        return replace(found, stride=stride, margin=margin)
    for multiple in MULTIPLES:
        sizes = [multiple * (max(3, -(-least // multiple)) | 1) for least in (64, 112)]
        results = [_try(run, found.channels, size)[0] for size in sizes]
        if any(result is None for result in results) or sizes[0] == sizes[1]:
            continue
        small, large = (
            next(o for o in (result or {}).values() if o.ndim == maps[0].ndim).shape[-1]
            for result in results
        )
        taken, given = sizes[1] - sizes[0], large - small
        if given <= 0 or max(taken, given) % min(taken, given):
            continue
        stride = taken / given
        margin = round((sizes[0] - small * stride) / 2)
        if margin >= 0 and (stride < 1 or sizes[0] % stride == 0 or margin):
            tile = wanted or 256
            tile = max(multiple, tile // multiple * multiple)
            outputs, _ = _try(run, found.channels, tile)
            return replace(
                found,
                tile=tile if outputs is not None else side,
                multiple_of=multiple if outputs is not None else 1,
                fixed=outputs is None,
                outputs=found.outputs if outputs is None else tuple(outputs.values()),
                stride=stride,
                margin=margin,
            )
    ratio = side / maps[0].shape[-1]
    return replace(found, fixed=True, stride=float(max(1, round(ratio))))
