"""Networks in torch: safetensors weights of a registered architecture."""

from __future__ import annotations

import copy
import hashlib
import os
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import cached_property, partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from hrviewer.errors import ModelError, ParameterError, short_message
from hrviewer.models.activations import activate
from hrviewer.models.card import ModelCard
from hrviewer.models.loaders.torch_outputs import select_outputs, to_arrays
from hrviewer.models.measurement_cache import load_measurement, store_measurement
from hrviewer.models.network import Floats, Network
from hrviewer.models.registry import get_architecture
from hrviewer.models.threads import thread_limit
from hrviewer.models.weights import read_weights

__all__ = [
    "TorchNetwork",
    "count_flops",
    "example_side",
    "fold_batch_norm",
    "largest_layer_bytes",
    "resolve_device",
]

_FOLDING_TOLERANCE = 1e-4
_HASHED_TYPES = (int, float, str, tuple)
_MPS_LOCK = threading.RLock()
_STRIP_CELLS = 1 << 16
"""Number of embeddings per backward pass."""


class TorchNetwork(Network):
    """A torch module that takes ``(n, C, h, w)``.

    A module with a method ``run_tokens(tokens, boxes, lengths, merge)``, as in `Network`, takes
    tokens: inference runs that method. A method ``attention(tokens, boxes, merge)`` provides its
    attention.
    """

    def __init__(
        self,
        card: ModelCard,
        sha256: str,
        module: nn.Module,
        device: torch.device,
        max_threads: int | None = None,
    ) -> None:
        self._max_threads = max_threads
        super().__init__(card, sha256, f"torch {torch.__version__}", str(device))
        self.accepts_tokens = callable(getattr(module, "run_tokens", None))
        self.has_attention = callable(getattr(module, "attention", None))
        # Heads with one cell per embedding and without attention scores of their own.
        sizes = card.input.multiple_of == 1 and not card.input.fixed
        self.has_attribution = (
            card.stride == 1 and sizes and not (self.accepts_tokens or card.output.attention)
        )
        self._meta_module = copy.deepcopy(module).to("meta")  # without weights, for counting FLOPs
        self._device = device
        if device.type == "cuda":
            _disable_tf32()
        self._thread_state = threading.local()
        module = module.to(device)
        self.unfolded: nn.Module | None = None if self.accepts_tokens else module
        self._module = module if self.accepts_tokens else _fold_if_equal(module, card, device)
        if self._module is not module:
            self._module = self._module.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    @classmethod
    def load(
        cls, path: Path, card: ModelCard, device: str, max_threads: int | None
    ) -> TorchNetwork:
        """Load a ``.safetensors`` file; raise `ModelError` if it does not fit."""
        from safetensors import SafetensorError
        from safetensors.torch import load

        if card.architecture is None:
            raise ModelError(
                f"{card.name}: safetensors weights need the card's architecture (name and params)"
            )
        target = resolve_device(device)
        if max_threads and target.type == "cpu":
            torch.set_num_threads(max_threads)
        data, sha256 = read_weights(path, card)
        try:
            weights: dict[str, Tensor] = load(data)
        except SafetensorError:
            raise ModelError(
                f"{path} is not a safetensors file, or is truncated: download or save it again"
            ) from None
        name, params = card.architecture.name, card.architecture.params
        try:
            build = get_architecture(name)
            _require_size(build, params, weights, card)
            module: nn.Module = build(**params)
        except (TypeError, ValueError, RuntimeError, MemoryError, OverflowError) as error:
            raise ModelError(
                f"{card.name}: architecture.params do not fit {name} ({short_message(error)}): "
                "correct the card"
            ) from None
        try:
            # Copying into the module's parameters converts half precision to float32.
            module.load_state_dict(without_prefix(weights, module.state_dict()), strict=True)
        except RuntimeError as error:
            raise ModelError(
                f"{path} does not fit the architecture {name} ({short_message(error)}): correct "
                "the card"
            ) from None
        module = module.eval().requires_grad_(False)
        try:
            return cls(card, sha256, module, target, max_threads)
        except torch.OutOfMemoryError as error:
            raise MemoryError(short_message(error)) from None
        except RuntimeError as error:  # as where torch has no kernels for the GPU
            raise ModelError(
                f"{card.name} does not run on {target} ({short_message(error)}): choose --device "
                "cpu"
            ) from None

    def _run(self, batch: Floats) -> Sequence[Floats]:
        def run() -> Any:
            x = self._to_device(batch).contiguous(memory_format=torch.channels_last)
            return self._module(x)

        with self._stream(), self._autocast():
            return select_outputs(to_arrays(self._call(run)), self.card.output.names)

    def _to_device(self, batch: NDArray[Any]) -> Tensor:
        """Copy an array to the device; to a GPU asynchronously."""
        x = torch.from_numpy(np.ascontiguousarray(batch, np.float32))
        if self._device.type != "cuda":
            return x.to(self._device)
        return x.pin_memory().to(self._device, non_blocking=True)

    def _stream(self) -> AbstractContextManager[Any]:
        """Return the context of this thread's CUDA stream."""
        if self._device.type != "cuda":
            return nullcontext()
        if not hasattr(self._thread_state, "stream"):
            self._thread_state.stream = torch.cuda.Stream(self._device)  # type: ignore[no-untyped-call]
        stream: AbstractContextManager[Any] = torch.cuda.stream(self._thread_state.stream)
        return stream

    def _autocast(self) -> AbstractContextManager[Any]:
        """Return the autocast context for convolutions and matrix products."""
        if self.precision == "float32":
            return nullcontext()
        return torch.autocast(self._device.type, torch.bfloat16)

    def reference(self, batch: Floats) -> list[Floats]:
        """Run inference with the original module: not folded, in the default memory layout."""
        x = torch.from_numpy(np.ascontiguousarray(batch, np.float32)).to(self._device)
        module = self.unfolded or self._module
        return select_outputs(to_arrays(self._call(lambda: module(x))), self.card.output.names)

    @property
    def module(self) -> nn.Module:
        """Module used for inference."""
        return self._module

    @property
    def meta_module(self) -> nn.Module:
        """The module without weights, for counting FLOPs."""
        return self._meta_module

    def select_module(self, *, folded: bool = True) -> None:
        """Select the folded or the original module for inference, and release the other."""
        if not folded and self.unfolded is not None:
            self._module = self.unfolded
        self.unfolded = None

    def run_tokens(
        self,
        tokens: Floats,
        boxes: NDArray[Any],
        lengths: Sequence[int] | None = None,
        merge: float = 0.0,
    ) -> Floats:
        """Run the module's ``run_tokens``."""
        if not self.accepts_tokens:
            return super().run_tokens(tokens, boxes, lengths, merge)
        x, where = self._to_device(tokens), self._to_device(boxes)
        run: Callable[..., Tensor] = self._module.run_tokens  # type: ignore[assignment]
        with self._autocast():
            out = self._call(lambda: run(x, where, lengths, merge)).float().cpu().numpy()
        if out.ndim == 2:  # one value per token
            out = out[:, :, None, None]
        return activate(out, self.card.output.activation)

    def attention(
        self, tokens: Floats, boxes: NDArray[Any], merge: float = 0.0
    ) -> tuple[Floats, NDArray[np.int64]]:
        """Run the module's ``attention``."""
        if not self.has_attention:
            return super().attention(tokens, boxes, merge)
        x, where = self._to_device(tokens), self._to_device(boxes)
        attend: Callable[..., tuple[Tensor, Tensor]] = self._module.attention  # type: ignore[assignment]
        with self._autocast():
            weights, owner = self._call(lambda: attend(x, where, merge))
        return weights.float().cpu().numpy(), owner.cpu().numpy()

    def attribution(self, features: Floats) -> Floats:
        """Backpropagate through the module in strips of rows, so that memory is bounded."""
        self._check_feature_width(features.shape[0])
        _, rows, columns = features.shape
        strip, reach = max(1, _STRIP_CELLS // columns), 2 * self.halo
        found = np.empty((rows, columns), np.float32)
        for start in range(0, rows, strip):
            stop, first = min(rows, start + strip), max(0, start - reach)
            x = self._to_device(features[None, :, first : stop + reach]).requires_grad_()
            with self._autocast():
                (slope,) = self._call(partial(self._gradient, x), torch.enable_grad)
            attribution = (slope * x.detach()).sum(1)[0].abs().float().cpu().numpy()
            found[start:stop] = attribution[start - first : stop - first]
        return found

    def _gradient(self, x: Tensor) -> tuple[Tensor, ...]:
        outputs = self._module(x)[:, : self.card.prediction_channels]
        if self.card.task != "density":
            outputs = outputs.amax(1) - outputs.mean(1)
        return torch.autograd.grad(outputs.sum(), x)

    def token_flops(self, n: int, merge: float = 0.0) -> float:
        """Count the FLOPs of the module's ``run_tokens``."""
        if not self.accepts_tokens:
            return super().token_flops(n, merge)
        if (n, merge) not in self._flops:
            rule = None if merge else self._token_flops_formula
            self._flops[n, merge] = self._count_tokens(n, merge) if rule is None else rule(n)
        return self._flops[n, merge]

    @cached_property
    def _token_flops_formula(self) -> Callable[[int], float] | None:
        """FLOPs of ``run_tokens`` by the number of tokens, without merging, in closed form.

        None if it is not a parabola, for example if tokens are padded to whole windows.
        """
        first, step = 64, 61
        counts = [self._count_tokens(first + i * step, 0.0) for i in range(3)]
        slope, bend = counts[1] - counts[0], counts[2] - 2 * counts[1] + counts[0]

        def cost(n: int) -> float:
            t = (n - first) / step
            return float(round(counts[0] + t * slope + t * (t - 1) / 2 * bend))

        holds = all(cost(n) == self._count_tokens(n, 0.0) for n in (1, 31, 997))
        return cost if holds else None

    def _count_tokens(self, n: int, merge: float) -> float:
        side = self.card.input.tile
        shapes = (n, self.card.input.channel_count, side, side), (n, 4)
        return count_flops(self._meta_module, "run_tokens", *shapes, options=(None, merge))

    def _count(self, h: int, w: int) -> float:
        return count_flops(self._meta_module, "forward", (1, self.card.input.channel_count, h, w))

    def _largest_layer_bytes(self, h: int, w: int) -> float | None:
        return largest_layer_bytes(self._meta_module, (1, self.card.input.channel_count, h, w))

    def _call(
        self,
        run: Callable[[], Any],
        mode: Callable[[], AbstractContextManager[Any]] = torch.inference_mode,
    ) -> Any:
        part = thread_limit()
        if part is not None and self._device.type == "cpu":
            part = min(part, self._max_threads or part)
            if torch.get_num_threads() != part:
                torch.set_num_threads(part)  # of the current thread
        try:
            # torch's stream on Apple's GPUs is not safe for several threads.
            with mode(), _MPS_LOCK if self._device.type == "mps" else nullcontext():
                return run()
        except torch.OutOfMemoryError as error:
            raise MemoryError(short_message(error)) from None
        except RuntimeError as error:
            if "can't allocate memory" in str(error):
                raise MemoryError(short_message(error)) from None
            raise


def without_prefix(weights: dict[str, Tensor], wanted: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return weights under the names of a module, without a prefix that all of them have.

    Wrappers, as of several GPUs or of a training framework, put ``module.`` or ``model.`` before
    every name.
    """
    found = weights
    while found and not found.keys() <= wanted.keys():
        parts = {name.partition(".")[::2] for name in found}
        if len({prefix for prefix, _ in parts}) > 1 or not all(rest for _, rest in parts):
            return weights
        found = {name.partition(".")[2]: weight for name, weight in found.items()}
    return found or weights


def _require_size(
    build: Callable[..., nn.Module],
    params: dict[str, Any],
    weights: dict[str, Tensor],
    card: ModelCard,
) -> None:
    """Refuse an architecture that is much larger than its weights, before it takes memory."""
    try:
        with torch.device("meta"):
            built = sum(parameter.numel() for parameter in build(**params).parameters())
    except Exception:  # some architectures cannot be built without numbers
        return
    if built > 2 * sum(weight.numel() for weight in weights.values()) + 1_000_000:
        raise ModelError(
            f"{card.name}: architecture.params describe a network of {built:,} parameters, and "
            "the weights are fewer: correct the card"
        )


def _disable_tf32() -> None:
    """Disable TF32 in convolutions on GPUs, which is a lower precision than float32.

    For the whole process, since several threads run inference at once.
    """
    torch.backends.cudnn.allow_tf32 = False
    torch.backends.cudnn.deterministic = True


def resolve_device(device: str) -> torch.device:
    """Return a torch device; raise `ModelError` if this machine does not have it."""
    mps = torch.backends.mps.is_available()
    if device == "auto":
        return torch.device("cuda:0" if torch.cuda.is_available() else "mps" if mps else "cpu")
    kind, _, number = device.partition(":")
    have = {"cpu": 1, "mps": int(mps), "cuda": torch.cuda.device_count()}
    if kind not in have or not (number or "0").isdigit() or int(number or 0) >= have[kind]:
        found = [f"{k}:{i}" if k == "cuda" else k for k, n in have.items() for i in range(n)]
        raise ParameterError(
            f"there is no device {device!r} here: choose auto or {', '.join(found)}"
        )
    return torch.device("cuda", int(number or 0)) if kind == "cuda" else torch.device(kind)


def fold_batch_norm(module: nn.Module) -> nn.Module:
    """Return a copy with batch normalisation folded into the preceding convolutions.

    Only inside ``nn.Sequential``, where the order of layers is certain.
    """
    module = copy.deepcopy(module)
    for part in module.modules():
        if not isinstance(part, nn.Sequential):
            continue
        names = list(part._modules)
        for one, two in pairwise(names):
            conv, norm = part._modules[one], part._modules[two]
            if isinstance(conv, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d):
                part._modules[one] = nn.utils.fusion.fuse_conv_bn_eval(conv, norm)
                part._modules[two] = nn.Identity()
    return module


def _fold_if_equal(module: nn.Module, card: ModelCard, device: torch.device) -> nn.Module:
    """Return the folded module, or the original if folding changes its outputs."""
    side = example_side(card)
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(1, card.input.channel_count, side, side, generator=generator).to(device)
    folded = fold_batch_norm(module)
    try:
        with torch.inference_mode():
            one, two = module(x), folded(x)
        agrees = torch.allclose(
            one, two, rtol=_FOLDING_TOLERANCE, atol=_FOLDING_TOLERANCE * float(one.abs().max())
        )
    except Exception:  # reported when the card is validated
        return module
    return folded if agrees else module


def example_side(card: ModelCard) -> int:
    """Return the side of a small input that a network accepts, also one without padding."""
    if card.input.fixed:
        return card.input.tile
    cells = 4 + -(-2 * card.output.margin // card.step)
    return min(card.input.tile, cells * card.step)


def count_flops(
    module: nn.Module, method: str, *shapes: tuple[int, ...], options: Sequence[Any] = ()
) -> float:
    """Count a module's FLOPs on the meta device, for inputs of these shapes and then options.

    Counts are cached until the module's layers or its code change: torch takes a second to prepare
    counting. Attention must not be fused here, since it would count as 0.
    """
    key = _cost_key(module, method, shapes, tuple(options))
    known = load_measurement("costs", key)
    if not isinstance(known, int | float):
        known = _count_on_meta(module, method, shapes, options)
        store_measurement("costs", key, known)
    return float(known)


def _count_on_meta(
    module: nn.Module, method: str, shapes: Sequence[tuple[int, ...]], options: Sequence[Any]
) -> float:
    from torch.nn.attention import SDPBackend, sdpa_kernel
    from torch.utils.flop_counter import FlopCounterMode

    counter = FlopCounterMode(display=False)
    inputs = [torch.empty(shape, device="meta") for shape in shapes]
    try:
        with torch.no_grad(), sdpa_kernel(SDPBackend.MATH), counter:
            getattr(module, method)(*inputs, *options)
    except Exception as error:
        raise ModelError(
            f"the FLOPs of {type(module).__name__} cannot be counted ({short_message(error)}): "
            "create its tensors on the input's device, with sizes that follow from the input's"
        ) from None
    return float(counter.get_total_flops())


def largest_layer_bytes(module: nn.Module, shape: tuple[int, ...]) -> float | None:
    """Return the bytes that one operation of a module reads and writes, at most.

    Found on the meta device for an input of this shape, and cached like FLOPs; None if the module
    does not run there.
    """
    key = _cost_key(module, "largest layer", shape)
    known = load_measurement("costs", key)
    if not isinstance(known, int | float):
        try:
            with torch.no_grad(), _LargestOperation() as operations:
                module(torch.empty(shape, device="meta"))
        except Exception:  # reported when its FLOPs are counted
            return None
        known = operations.bytes
        store_measurement("costs", key, known)
    return float(known)


class _LargestOperation(TorchDispatchMode):
    """Records the most bytes that an operation reads and writes."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.bytes = 0

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        out = func(*args, **(kwargs or {}))
        tensors = [leaf for leaf in tree_leaves((args, kwargs, out)) if isinstance(leaf, Tensor)]
        once = {leaf.untyped_storage()._cdata: leaf.nbytes for leaf in tensors}
        self.bytes = max(self.bytes, sum(once.values()))
        return out


def _cost_key(module: nn.Module, *request: object) -> str:
    """Return the cache key of a count: layers, their source code, and the request."""
    layers = [
        (
            name,
            type(part).__qualname__,
            {key: value for key, value in vars(part).items() if isinstance(value, _HASHED_TYPES)},
            {key: value.shape for key, value in part.named_parameters(recurse=False)},
        )
        for name, part in module.named_modules()
    ]
    digest = hashlib.sha256(f"{torch.__version__}\n{layers}\n{request}".encode())
    for name in sorted({type(part).__module__ for part in module.modules()}):
        file = getattr(sys.modules.get(name), "__file__", None)
        if not name.startswith("torch."):
            digest.update(Path(file).read_bytes() if file else os.urandom(16))
    return digest.hexdigest()[:32]
