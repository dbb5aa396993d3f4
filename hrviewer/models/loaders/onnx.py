"""Networks in ONNX, run by onnxruntime: fast float32 inference on a CPU without torch."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hrviewer.errors import ModelError, ParameterError, short_message
from hrviewer.models.card import ModelCard
from hrviewer.models.loaders.graph import OnnxGraph
from hrviewer.models.loaders.onnx_file import MAX_BYTES, parse_onnx
from hrviewer.models.network import Floats, Network
from hrviewer.models.threads import PerThreadCount, available_cores
from hrviewer.models.weights import read_weights

__all__ = ["OnnxNetwork", "run_session", "session_options"]

_TYPES: dict[str, Any] = {
    "tensor(float)": np.float32,
    "tensor(float16)": np.float16,
    "tensor(double)": np.float64,
    "tensor(uint8)": np.uint8,
}
_TYPE_NAMES = "float, half, double or uint8"
_LARGE_INPUT = 8 << 20
"""Bytes of an input after which a session returns its working memory to the system."""
_OUT_OF_MEMORY = ("allocate memory", "bad_alloc", "bad allocation", "out of memory")


class OnnxNetwork(Network):
    """An ONNX graph with one input ``(n, C, h, w)`` or ``(n, h, w, C)``."""

    def __init__(
        self,
        card: ModelCard,
        sha256: str,
        sessions: PerThreadCount[Any],
        graph: OnnxGraph,
        device: str,
    ) -> None:
        import onnxruntime

        session = sessions.get()
        (model_input,) = session.get_inputs()
        super().__init__(card, sha256, f"onnxruntime {onnxruntime.__version__}", device)
        self._sessions, self._graph = sessions, graph
        self._input_name, self._input_type = model_input.name, _TYPES[model_input.type]
        if self._input_type == np.float16:
            self.precision = "float16"
        n = model_input.shape[0]
        self.max_batch = n if isinstance(n, int) else None
        self.channels_last = _is_channels_last(model_input.shape, card)
        self.has_plain_input = not self.channels_last and self._input_type != np.uint8
        self._fixed_batch = self.max_batch or 1
        self._output_names = list(card.output.names) or None
        self.final_operations = graph.final_operations(card.output.names)

    @classmethod
    def load(cls, path: Path, card: ModelCard, device: str, threads: int | None) -> OnnxNetwork:
        """Load an ``.onnx`` file; raise `ModelError` if damaged or not supported."""
        try:
            import onnxruntime
        except ImportError:
            raise ModelError('ONNX models need onnxruntime: pip install "hrviewer[onnx]"') from None
        if path.stat().st_size >= MAX_BYTES:
            raise ModelError(f"{path} is larger than 2 GB: save its weights as safetensors")
        data, sha256 = read_weights(path, card)
        parsed = parse_onnx(path, data, sha256)
        external = parsed.external_files()
        for file in external:
            sha256 += read_weights(file, card.model_copy(update={"sha256": None}))[1]
        graph = parsed.graph  # checked before a session computes its constants
        providers, target = _providers(onnxruntime, device)
        if target != "cpu" and hasattr(onnxruntime, "preload_dlls"):
            onnxruntime.preload_dlls()  # CUDA's and cuDNN's libraries, in packages of PyPI

        def create_session(count: int) -> Any:
            options = session_options(onnxruntime, count)
            return onnxruntime.InferenceSession(
                str(path) if external else data, options, providers=providers
            )

        # On a GPU the number of CPU threads is irrelevant.
        sessions = PerThreadCount(
            create_session, threads or (None if target == "cpu" else available_cores())
        )
        try:
            session = sessions.get()
        except Exception as error:
            raise ModelError(
                f"onnxruntime rejects {path} ({short_message(error)}): export it again"
            ) from None
        used = session.get_providers()
        notes: tuple[str, ...] = ()
        if target != "cpu" and used[:1] == ["CPUExecutionProvider"]:
            # onnxruntime falls back without an error where CUDA's libraries are missing.
            reason = "onnxruntime cannot load CUDA or cuDNN here"
            if device != "auto":
                raise ModelError(f"{card.name}: {reason}: install them, or choose --device cpu")
            target, notes = "cpu", (f"{card.name} runs on the CPU: {reason}",)
            sessions = PerThreadCount(create_session, threads)
        _check_input(path, card, session)
        network = cls(card, sha256, sessions, graph, target)
        network.external_files, network.notes = tuple(external), notes
        return network

    def _run(self, batch: Floats) -> Sequence[Floats]:
        if self.channels_last:
            batch = batch.transpose(0, 2, 3, 1)
        if self._input_type == np.uint8:
            batch = np.clip(np.rint(batch), 0, 255)
        n = len(batch)
        if n < self._fixed_batch:  # exported for a batch of this size only
            missing = np.zeros((self._fixed_batch - n, *batch.shape[1:]), batch.dtype)
            batch = np.concatenate([batch, missing])
        outputs = run_session(
            self._sessions.get(),
            self._input_name,
            np.ascontiguousarray(batch, self._input_type),
            self._output_names,
        )
        if n < self._fixed_batch:
            outputs = [out[:n] for out in outputs]
        if not self.channels_last:
            return outputs
        return [out.transpose(0, 3, 1, 2) if out.ndim == 4 else out for out in outputs]

    def _count(self, h: int, w: int) -> float:
        flops = self._graph.flops(self._input_name, self._input_shape(h, w))
        return flops / self._fixed_batch

    def _largest_layer_bytes(self, h: int, w: int) -> float | None:
        return self._graph.largest_layer_bytes(self._input_name, self._input_shape(h, w))

    def _input_shape(self, h: int, w: int) -> tuple[int, ...]:
        """Return the shape of the smallest batch."""
        n, c = self._fixed_batch, self.card.input.channel_count
        return (n, h, w, c) if self.channels_last else (n, c, h, w)


def session_options(onnxruntime: Any, threads: int) -> Any:
    """Return options of a session: optimised, with a number of threads, quiet."""
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL
    options.intra_op_num_threads = threads
    # Tiles at the image's border have sizes of their own: a plan of memory for each adds up.
    options.enable_mem_pattern = False
    # Workers that spin while waiting would take cores from the window.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.log_severity_level = 4  # errors are raised; some trial sizes are expected to fail
    return options


def run_session(
    session: Any, name: str, batch: NDArray[Any], outputs: Sequence[str] | None = None
) -> list[Floats]:
    """Run a session for these outputs, or all; raise `MemoryError` if memory does not suffice."""
    import onnxruntime

    options = onnxruntime.RunOptions()
    if batch.nbytes >= _LARGE_INPUT:
        options.add_run_config_entry("memory.enable_memory_arena_shrinkage", "cpu:0")
    try:
        found = session.run(outputs, {name: batch}, options)
    except Exception as error:
        if any(sign in str(error).lower() for sign in _OUT_OF_MEMORY):
            raise MemoryError(short_message(error)) from None
        raise
    return [np.asarray(out, np.float32) for out in found]


def _check_input(path: Path, card: ModelCard, session: Any) -> None:
    """Compare the graph's declared input and outputs with the card, field by field."""
    inputs = session.get_inputs()
    found = ", ".join(f"{i.name} {i.type} {i.shape}" for i in inputs)
    if len(inputs) != 1:
        raise ModelError(
            f"{path} takes {len(inputs)} inputs ({found}): export it with the image as its only "
            "one, and the others as constants"
        )
    if len(inputs[0].shape) != 4 or inputs[0].type not in _TYPES:
        raise ModelError(
            f"{path} takes {found}: export it with one input (n, channels, h, w) of {_TYPE_NAMES}"
        )
    names = [output.name for output in session.get_outputs()]
    if missing := [name for name in card.output.names if name not in names]:
        raise ModelError(
            f"{card.name}: the network has no output {missing[0]!r}, but {', '.join(names)}: "
            "correct the card's output.names"
        )
    it, last = card.input, _is_channels_last(inputs[0].shape, card)
    _, *dims = inputs[0].shape
    c, *sides = [dims[2], dims[0], dims[1]] if last else dims
    if isinstance(c, int) and c != it.channel_count:
        raise ModelError(
            f"{card.name}: the card's input.channels is {it.channels} "
            f"({it.channel_count}), but the network takes {c}: correct the card"
        )
    plain = it.scale == 1 and not any(it.mean) and all(std == 1 for std in it.std)
    if inputs[0].type == "tensor(uint8)" and not plain:
        raise ModelError(
            f"{card.name}: the network takes 8-bit pixels, which are not scaled: the card needs "
            "input.scale 1, mean 0 and std 1"
        )
    if all(isinstance(side, int) for side in sides) and sides[0] != sides[1]:
        raise ModelError(
            f"{path} takes {sides[0]} × {sides[1]} pixels only, and tiles are square: export it "
            "with free height and width, or for square inputs"
        )
    for side in sides:
        if isinstance(side, int) and (side != it.tile or not it.fixed):
            raise ModelError(
                f"{card.name}: the network takes {side} pixels per side only: "
                f"the card needs input.tile {side} and input.fixed true"
            )


def _is_channels_last(shape: Sequence[Any], card: ModelCard) -> bool:
    """Whether an input is ``(n, h, w, C)``: the card's channels are its last axis only."""
    c = card.input.channel_count
    return len(shape) == 4 and shape[3] == c and shape[1] != c


def _providers(onnxruntime: Any, device: str) -> tuple[list[Any], str]:
    """Return onnxruntime's providers for a device, and hrviewer's name of the device."""
    cuda = "CUDAExecutionProvider" in onnxruntime.get_available_providers()
    if device == "cpu" or (device == "auto" and not cuda):
        return ["CPUExecutionProvider"], "cpu"
    if device != "auto" and not device.startswith("cuda"):
        raise ParameterError(f"ONNX models run on cpu or cuda, not on {device}: choose one of them")
    if not cuda:
        raise ParameterError(
            "this onnxruntime cannot use CUDA: install onnxruntime-gpu, or choose --device cpu"
        )
    number = device.partition(":")[2] or "0"
    # TF32 is a lower precision than float32.
    return [("CUDAExecutionProvider", {"device_id": number, "use_tf32": "0"})], f"cuda:{number}"
