"""One file per kind of weights. Each imports its back end only when something is loaded."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from hrviewer.errors import UserError
from hrviewer.models.card import Card
from hrviewer.models.network import Floats, Network
from hrviewer.models.tiled_encoder import Mosaic, is_one_to_one

__all__ = ["LOADABLE", "PRECISIONS", "load"]

LOADABLE = (".onnx", ".safetensors")
PRECISIONS = ("float32", "bfloat16", "int8")
_PICKLES = (".pt", ".pth", ".pkl", ".pickle", ".bin", ".ckpt", ".pt2", ".joblib")


def check_kind(path: Path) -> None:
    """Raise `UserError` where weights are of a kind that cannot be loaded, or not safely."""
    suffix = path.suffix.lower()
    if suffix in _PICKLES:
        raise UserError(
            f"{path}: {suffix} files can run any code when opened, and are not loaded: "
            "export the network to ONNX, or save its weights as safetensors"
        )
    if suffix not in LOADABLE:
        raise UserError(f"{path}: weights are {' or '.join(LOADABLE)} files, not {suffix!r}")
    if not path.is_file():
        raise UserError(f"{path} does not exist: check the path")


def load(
    path: Path,
    card: Card,
    device: str = "auto",
    threads: int | None = None,
    precision: str = "float32",
    samples: Sequence[Floats] = (),
) -> Network:
    """Load weights, verify them, and check what the card says by running a tile.

    Parameters
    ----------
    path
        An ``.onnx`` or ``.safetensors`` file.
    card
        What it takes and gives.
    device
        ``auto``, ``cpu``, ``cuda``, ``cuda:1``, ``mps``.
    threads
        On a CPU; by default all of its cores.
    precision
        ``float32``; or, quicker and less exact, ``bfloat16`` for safetensors on a CPU or CUDA, and
        ``int8`` on a CPU.
    samples
        Prepared inputs ``(C, h, w)`` of the image at hand, on which ``int8`` is calibrated.

    Raises
    ------
    UserError
        Where the file is of the wrong kind, damaged or not the one that the card describes, where
        the device or the back end is missing, or where the card lies.
    """
    from hrviewer.models.probe import settle

    check_kind(path)
    if precision not in PRECISIONS:
        raise UserError(
            f"there is no precision {precision!r}: choose one of {', '.join(PRECISIONS)}"
        )
    if precision == "int8":
        from hrviewer.models.loaders.quantised import quantised

        return quantised(path, card, device, threads, samples)
    network: Network
    if path.suffix.lower() == ".onnx":
        if precision != "float32":
            raise UserError(
                f"{card.name} is in ONNX and runs in the numbers it was exported with: "
                "choose --precision float32 or int8"
            )
        from hrviewer.models.loaders.onnx import OnnxNetwork

        network = OnnxNetwork.load(path, card, device, threads)
        settle(network)
    else:
        from hrviewer.models.backend import lowered, quickest
        from hrviewer.models.loaders.torch import TorchNetwork

        loaded = TorchNetwork.load(path, card, device, threads)
        settle(loaded)
        network = quickest(loaded, threads) if precision == "float32" else lowered(loaded)
    return Mosaic(network) if is_one_to_one(card) else network
