"""Loaders of weights, one file per format; a back end is imported only when it loads."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from hrviewer.errors import (
    DeviceMemoryError,
    HrviewerError,
    ModelError,
    ParameterError,
    UntrustedModelError,
    short_message,
)
from hrviewer.models.card import ModelCard
from hrviewer.models.network import Floats, Network
from hrviewer.models.tiled_encoder import TiledEncoder, is_tile_encoder
from hrviewer.models.weights import reject_wrong_content

__all__ = ["CODE_FORMATS", "PRECISIONS", "WEIGHTS_FORMATS", "gpu_count", "load"]

WEIGHTS_FORMATS = (".onnx", ".safetensors")
CODE_FORMATS = (".pt", ".ts", ".pt2")
"""Suffixes of TorchScript and of torch.export, which can run code when opened."""
PRECISIONS = ("float32", "bfloat16", "int8")
_PICKLE_FORMATS = (".pth", ".pkl", ".pickle", ".bin", ".ckpt", ".joblib")


def gpu_count() -> int:
    """Return the number of CUDA devices of this machine."""
    import torch

    return torch.cuda.device_count()


def check_weights_format(path: Path, trust: bool = False) -> None:
    """Raise `ModelError` for weights of a format that cannot be loaded, or not safely.

    Files that can run code when opened are allowed with `trust` only.
    """
    suffix = path.suffix.lower()
    if path.is_file():
        reject_wrong_content(path)
    if suffix in CODE_FORMATS:
        if not path.is_file():
            raise ModelError(f"{path} does not exist: check the path")
        if trust:
            return
        raise UntrustedModelError(
            f"{path}: {suffix} files can run arbitrary code when opened: if you trust its source, "
            "add --trust (in Python, hrviewer.load(model, trust=True)); otherwise export the model "
            "to ONNX"
        )
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
    trust: bool = False,
) -> Network:
    """Load weights, verify them, and validate the card by inference on a tile.

    With the device ``auto``, a network that does not run on the GPU, for example since there are no
    kernels for it or it has too little memory, runs on the CPU; `Network.notes` has the reason.

    Parameters
    ----------
    path
        An ``.onnx`` or ``.safetensors`` file; with `trust`, also TorchScript or torch.export.
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
    trust
        Whether files that can run code when opened are allowed.

    Raises
    ------
    ModelError
        If the file has the wrong format, is damaged or is not the one that the card describes, if
        the device or the back end is missing, or if the network does not match its card.
    """
    check_weights_format(path, trust)
    try:
        return _load(path, card, device, threads, precision, samples)
    except (ModelError, MemoryError) as error:
        if device != "auto" or not _has_gpu(path):
            if isinstance(error, HrviewerError):
                raise
            raise DeviceMemoryError(
                f"{card.name} does not fit into the memory ({short_message(error)}): choose "
                "another --device, or a model with smaller tiles"
            ) from None
        reason = short_message(error)
    # Outside of the except block, since the error's frames hold the device's memory.
    network = _load(path, card, "cpu", threads, precision, samples)
    network.notes = (f"{card.name} runs on the CPU, since it does not on the GPU: {reason}",)
    return network


def _has_gpu(path: Path) -> bool:
    """Return whether ``auto`` means a GPU for this file."""
    try:
        if path.suffix.lower() == ".onnx":
            import onnxruntime

            return "CUDAExecutionProvider" in onnxruntime.get_available_providers()
        from hrviewer.models.loaders.torch import resolve_device
    except ImportError:
        return False
    return resolve_device("auto").type != "cpu"


def _load(
    path: Path,
    card: ModelCard,
    device: str,
    threads: int | None,
    precision: str,
    samples: Sequence[Floats],
) -> Network:
    """Load weights on one device."""
    from hrviewer.models.probe import validate_network

    if precision not in PRECISIONS:
        raise ParameterError(
            f"there is no precision {precision!r}: choose one of {', '.join(PRECISIONS)}"
        )
    if path.suffix.lower() in CODE_FORMATS:
        if precision != "float32":
            raise ModelError(
                f"{card.name} is a compiled program of torch and runs in the precision it was "
                "exported with: choose --precision float32"
            )
        from hrviewer.models.loaders.torch_program import TorchProgramNetwork

        program = TorchProgramNetwork.load(path, card, device, threads)
        validate_network(program)
        return TiledEncoder(program) if is_tile_encoder(card) else program
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
    elif precision == "float32":
        from hrviewer.models.loaders.safetensors import load_safetensors

        network = load_safetensors(path, card, device, threads)
    else:
        from hrviewer.models.loaders.backend import to_bfloat16
        from hrviewer.models.loaders.torch import TorchNetwork

        loaded = TorchNetwork.load(path, card, device, threads)
        validate_network(loaded)
        network = to_bfloat16(loaded)
    return TiledEncoder(network) if is_tile_encoder(card) else network
