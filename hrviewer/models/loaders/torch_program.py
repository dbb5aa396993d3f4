"""Networks as programs of torch: TorchScript and torch.export.

Opening such a file can run code that it holds; `hrviewer.models.loaders.load` opens one only if the
user trusts it.
"""

from __future__ import annotations

import warnings
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils.flop_counter import FlopCounterMode

from hrviewer.errors import ModelError, short_message
from hrviewer.models.card import ModelCard
from hrviewer.models.loaders.torch import resolve_device
from hrviewer.models.loaders.torch_outputs import select_outputs, to_arrays
from hrviewer.models.network import Floats, Network
from hrviewer.models.threads import thread_limit
from hrviewer.models.weights import read_weights

__all__ = ["TorchProgramNetwork", "open_program"]

Program = Callable[[torch.Tensor], Any]


class TorchProgramNetwork(Network):
    """A program of torch that takes ``(n, C, h, w)``."""

    def __init__(
        self,
        card: ModelCard,
        sha256: str,
        program: Program,
        device: torch.device,
        threads: int | None,
    ) -> None:
        super().__init__(card, sha256, f"torch {torch.__version__}", str(device))
        self._program, self._device, self._threads = program, device, threads

    @classmethod
    def load(
        cls, path: Path, card: ModelCard, device: str, threads: int | None
    ) -> TorchProgramNetwork:
        """Load a program of a trusted source; raise `ModelError` if it is none."""
        target = resolve_device(device)
        _, sha256 = read_weights(path, card)
        return cls(card, sha256, open_program(path, target)[0], target, threads)

    def _run(self, batch: Floats) -> Sequence[Floats]:
        part = thread_limit() or self._threads
        if part and self._device.type == "cpu" and torch.get_num_threads() != part:
            torch.set_num_threads(part)
        x = torch.from_numpy(np.ascontiguousarray(batch, np.float32)).to(self._device)
        try:
            with torch.inference_mode():
                return select_outputs(to_arrays(self._program(x)), self.card.output.names)
        except torch.OutOfMemoryError as error:
            raise MemoryError(short_message(error)) from None

    def _count(self, h: int, w: int) -> float:
        """Count the FLOPs of one inference: programs do not run without values."""
        x = torch.zeros((1, self.card.input.channel_count, h, w), device=self._device)
        counter = FlopCounterMode(display=False)
        with torch.inference_mode(), counter:
            self._program(x)
        return float(counter.get_total_flops())


def open_program(
    path: Path, device: torch.device | None = None
) -> tuple[Program, tuple[int | None, ...] | None]:
    """Open a program and return it with the shape of its input, if the file holds that.

    Free sides are None. Code in the file may run: the caller has the user's trust.

    Raises
    ------
    ModelError
        If the file is no program of torch.
    """
    target = device or torch.device("cpu")
    kind = program_kind(path)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            if kind == "TorchScript":
                script = torch.jit.load(str(path), map_location=target)  # type: ignore[no-untyped-call]
                return script.eval(), None
            exported = torch.export.load(path)
            module: Program = exported.module().to(target)
    except Exception as error:  # torch raises many kinds
        raise ModelError(
            f"torch cannot open {path} ({short_message(error)}): export the model again with this "
            "version of torch, or to ONNX"
        ) from None
    inputs = [node.meta["val"] for node in exported.graph.nodes if node.op == "placeholder"]
    sides = (side if isinstance(side, int) else None for side in inputs[-1].shape)
    return module, tuple(sides)


def program_kind(path: Path) -> str:
    """Return whether a file is TorchScript or torch.export; raise `ModelError` if neither."""
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
    except (OSError, zipfile.BadZipFile):
        names = []
    if any("/code/" in name for name in names):
        return "TorchScript"
    if any(name.endswith(("archive_format", "serialized_exported_program.json")) for name in names):
        return "torch.export"
    if any(name.endswith("data.pkl") for name in names):
        raise ModelError(
            f"{path} holds pickled weights without a program: save them as safetensors, or the "
            "model as TorchScript or ONNX"
        )
    raise ModelError(
        f"{path} is neither TorchScript nor torch.export, or is truncated: export it again"
    )
