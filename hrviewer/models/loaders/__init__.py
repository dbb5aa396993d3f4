"""Loaders of weights, one file per format; a back end is imported only when it loads."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from hrviewer.errors import ModelError, ParameterError
from hrviewer.models.card import ModelCard
from hrviewer.models.network import Floats, Network
from hrviewer.models.tiled_encoder import TiledEncoder, is_tile_encoder

__all__ = ["PRECISIONS", "WEIGHTS_FORMATS", "load"]

WEIGHTS_FORMATS = (".onnx", ".safetensors")
PRECISIONS = ("float32", "bfloat16", "int8")
_PICKLE_FORMATS = (".pt", ".pth", ".pkl", ".pickle", ".bin", ".ckpt", ".pt2", ".joblib")


def check_weights_format(path: Path) -> None:
    """Raise `ModelError` for weights of a format that cannot be loaded, or not safely."""
    suffix = path.suffix.lower()
    if suffix in _PICKLE_FORMATS:
        raise ModelError(
            f"{path}: {suffix} files can run arbitrary code when opened, and are not loaded: "
            "export the model to ONNX, or save its weights as safetensors"
        )
    if suffix not in WEIGHTS_FORMATS:
        raise ModelError(
            f"{path}: weights are {' or '.join(WEIGHTS_FORMATS)} files, not {suffix!r}"
        )
    if not path.is_file():
        raise ModelError(f"{path} does not exist: check the path")


def load(
    path: Path,
    card: ModelCard,
    device: str = "auto",
    threads: int | None = None,
    precision: str = "float32",
    samples: Sequence[Floats] = (),
) -> Network:
    """Load weights, verify them, and validate the card by inference on a tile.

    Parameters
    ----------
    path
        An ``.onnx`` or ``.safetensors`` file.
    card
        Its model card.
    device
        ``auto``, ``cpu``, ``cuda``, ``cuda:1``, ``mps``.
    threads
        Number of threads on a CPU; all cores by default.
    precision
        ``float32``; or, faster and less exact, ``bfloat16`` for safetensors on a CPU or CUDA, and
        ``int8`` on a CPU.
    samples
        Prepared inputs ``(C, h, w)`` of the current image, for the calibration of ``int8``.

    Raises
    ------
    ModelError
        If the file has the wrong format, is damaged or is not the one that the card describes, if
        the device or the back end is missing, or if the network does not match its card.
    """
    from hrviewer.models.probe import validate_network

    check_weights_format(path)
    if precision not in PRECISIONS:
        raise ParameterError(
            f"there is no precision {precision!r}: choose one of {', '.join(PRECISIONS)}"
        )
    if precision == "int8":
        from hrviewer.models.loaders.quantised import load_quantised

        return load_quantised(path, card, device, threads, samples)
    network: Network
    if path.suffix.lower() == ".onnx":
        if precision != "float32":
            raise ModelError(
                f"{card.name} is an ONNX model and runs in the precision it was exported with: "
                "choose --precision float32 or int8"
            )
        from hrviewer.models.loaders.onnx import OnnxNetwork

        network = OnnxNetwork.load(path, card, device, threads)
        validate_network(network)
    else:
        from hrviewer.models.loaders.backend import select_backend, to_bfloat16
        from hrviewer.models.loaders.torch import TorchNetwork

        loaded = TorchNetwork.load(path, card, device, threads)
        validate_network(loaded)
        network = select_backend(loaded, threads) if precision == "float32" else to_bfloat16(loaded)
    return TiledEncoder(network) if is_tile_encoder(card) else network
