"""Weights in safetensors, run by a registered architecture in torch."""

from __future__ import annotations

import copy
import hashlib
import os
import sys
import threading
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import cached_property, partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from hrviewer.errors import UserError
from hrviewer.models.card import Card
from hrviewer.models.measurement_cache import keep, recall
from hrviewer.models.network import Floats, Network, activate
from hrviewer.models.registry import architecture
from hrviewer.models.threads import threads
from hrviewer.models.told import brief
from hrviewer.models.weights import read_weights

__all__ = ["TorchNetwork", "count_flops", "fold"]

_AGREES = 1e-4
_PLAIN = (int, float, str, tuple)
_STRIP = 1 << 16
"""Codes that are gone back to at a time."""


class TorchNetwork(Network):
    """A torch module that takes ``(n, C, h, w)``.

    A module with a method ``join(tokens, boxes, lengths, merge)``, as in `Network`, is a joint
    network: that is what runs. One with ``attend(tokens, boxes, merge)`` tells its attention.
    """

    def __init__(
        self,
        card: Card,
        sha256: str,
        module: nn.Module,
        device: torch.device,
        limit: int | None = None,
    ) -> None:
        self._limit = limit
        super().__init__(card, sha256, f"torch {torch.__version__}", str(device))
        self.joint = callable(getattr(module, "join", None))
        self.attends = callable(getattr(module, "attend", None))
        # What has a cell for every code, and does not say itself which matter.
        sizes = card.input.multiple_of == 1 and not card.input.fixed
        self.explains = card.stride == 1 and sizes and not (self.joint or card.output.attention)
        self._hollow = copy.deepcopy(module).to("meta")  # no weights, to count with
        self._device = device
        if device.type == "cuda":
            _be_exact()
        self._own = threading.local()
        module = module.to(device)
        self.plain: nn.Module | None = None if self.joint else module
        self._module = module if self.joint else _folded(module, card, device)
        if self._module is not module:
            self._module = self._module.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    @classmethod
    def load(cls, path: Path, card: Card, device: str, limit: int | None) -> TorchNetwork:
        """Load a ``.safetensors`` file; `UserError` where it does not fit the architecture."""
        from safetensors import SafetensorError
        from safetensors.torch import load

        if card.architecture is None:
            raise UserError(
                f"{card.name}: safetensors weights need the card's architecture (name and params)"
            )
        placed = _device(device)
        if limit and placed.type == "cpu":
            torch.set_num_threads(limit)
        data, sha256 = read_weights(path, card)
        try:
            weights: dict[str, Tensor] = load(data)
        except SafetensorError:
            raise UserError(
                f"{path} is not a safetensors file, or is cut short: download or save it again"
            ) from None
        name, params = card.architecture.name, card.architecture.params
        try:
            module: nn.Module = architecture(name)(**params)
        except (TypeError, ValueError) as error:
            raise UserError(
                f"{card.name}: architecture.params do not suit {name} ({brief(error)}): "
                "correct the card"
            ) from None
        try:
            # Copying into the module's own parameters brings halves up to float32.
            module.load_state_dict(weights, strict=True)
        except RuntimeError as error:
            raise UserError(
                f"{path} does not fit the architecture {name} ({brief(error)}): correct the card"
            ) from None
        return cls(card, sha256, module.eval().requires_grad_(False), placed, limit)

    def _run(self, batch: Floats) -> Sequence[Floats]:
        def run() -> Any:
            x = self._put(batch).contiguous(memory_format=torch.channels_last)
            return self._module(x)

        with self._stream(), self._numbers():
            return _arrays(self._call(run))

    def _put(self, batch: NDArray[Any]) -> Tensor:
        """Bring an array to the device; to a GPU while it still computes something else."""
        x = torch.from_numpy(np.ascontiguousarray(batch, np.float32))
        if self._device.type != "cuda":
            return x.to(self._device)
        return x.pin_memory().to(self._device, non_blocking=True)

    def _stream(self) -> AbstractContextManager[Any]:
        """Return the context of this thread's own queue on a GPU."""
        if self._device.type != "cuda":
            return nullcontext()
        if not hasattr(self._own, "stream"):
            self._own.stream = torch.cuda.Stream(self._device)  # type: ignore[no-untyped-call]
        stream: AbstractContextManager[Any] = torch.cuda.stream(self._own.stream)
        return stream

    def _numbers(self) -> AbstractContextManager[Any]:
        """Return the context in which convolutions and products are computed."""
        if self.precision == "float32":
            return nullcontext()
        return torch.autocast(self._device.type, torch.bfloat16)

    def reference(self, batch: Floats) -> list[Floats]:
        """Return what the network says as it was written: not folded, in the usual layout."""
        x = torch.from_numpy(np.ascontiguousarray(batch, np.float32)).to(self._device)
        module = self.plain or self._module
        return _arrays(self._call(lambda: module(x)))

    @property
    def module(self) -> nn.Module:
        """What runs."""
        return self._module

    @property
    def hollow(self) -> nn.Module:
        """The same without weights, to count with."""
        return self._hollow

    def settle(self, *, folded: bool = True) -> None:
        """Keep the module that runs and let the other go."""
        if not folded and self.plain is not None:
            self._module = self.plain
        self.plain = None

    def join(
        self,
        tokens: Floats,
        boxes: NDArray[Any],
        lengths: Sequence[int] | None = None,
        merge: float = 0.0,
    ) -> Floats:
        """Run the module's own ``join``."""
        if not self.joint:
            return super().join(tokens, boxes, lengths, merge)
        x, where = self._put(tokens), self._put(boxes)
        join: Callable[..., Tensor] = self._module.join  # type: ignore[assignment]
        with self._numbers():
            out = self._call(lambda: join(x, where, lengths, merge)).float().cpu().numpy()
        if out.ndim == 2:  # a number for each token
            out = out[:, :, None, None]
        return activate(out, self.card.output.activation)

    def attend(
        self, tokens: Floats, boxes: NDArray[Any], merge: float = 0.0
    ) -> tuple[Floats, NDArray[np.int64]]:
        """Run the module's own ``attend``."""
        if not self.attends:
            return super().attend(tokens, boxes, merge)
        x, where = self._put(tokens), self._put(boxes)
        attend: Callable[..., tuple[Tensor, Tensor]] = self._module.attend  # type: ignore[assignment]
        with self._numbers():
            weights, owner = self._call(lambda: attend(x, where, merge))
        return weights.float().cpu().numpy(), owner.cpu().numpy()

    def explain(self, codes: Floats) -> Floats:
        """Go back through the module, a strip of rows at a time: memory is bounded."""
        self._check_codes(codes.shape[0])
        _, rows, columns = codes.shape
        strip, reach = max(1, _STRIP // columns), 2 * self.halo
        found = np.empty((rows, columns), np.float32)
        for start in range(0, rows, strip):
            stop, first = min(rows, start + strip), max(0, start - reach)
            x = self._put(codes[None, :, first : stop + reach]).requires_grad_()
            with self._numbers():
                (slope,) = self._call(partial(self._slope, x), torch.enable_grad)
            mattered = (slope * x.detach()).sum(1)[0].abs().float().cpu().numpy()
            found[start:stop] = mattered[start - first : stop - first]
        return found

    def _slope(self, x: Tensor) -> tuple[Tensor, ...]:
        said = self._module(x)[:, : self.card.answers]
        if self.card.task != "density":
            said = said.amax(1) - said.mean(1)
        return torch.autograd.grad(said.sum(), x)

    def join_flops(self, n: int, merge: float = 0.0) -> float:
        """Count the module's own ``join``."""
        if not self.joint:
            return super().join_flops(n, merge)
        if (n, merge) not in self._flops:
            rule = None if merge else self._parabola
            self._flops[n, merge] = self._count_join(n, merge) if rule is None else rule(n)
        return self._flops[n, merge]

    @cached_property
    def _parabola(self) -> Callable[[int], float] | None:
        """What ``join`` costs by the number of tokens, unmerged: counting takes far longer.

        None if it is no parabola, as where tokens are filled up to a whole number of windows.
        """
        first, step = 64, 61
        counts = [self._count_join(first + i * step, 0.0) for i in range(3)]
        slope, bend = counts[1] - counts[0], counts[2] - 2 * counts[1] + counts[0]

        def cost(n: int) -> float:
            t = (n - first) / step
            return float(round(counts[0] + t * slope + t * (t - 1) / 2 * bend))

        holds = all(cost(n) == self._count_join(n, 0.0) for n in (1, 31, 997))
        return cost if holds else None

    def _count_join(self, n: int, merge: float) -> float:
        side = self.card.input.tile
        shapes = (n, self.card.input.count, side, side), (n, 4)
        return count_flops(self._hollow, "join", *shapes, options=(None, merge))

    def _count(self, h: int, w: int) -> float:
        return count_flops(self._hollow, "forward", (1, self.card.input.count, h, w))

    def _call(
        self,
        run: Callable[[], Any],
        mode: Callable[[], AbstractContextManager[Any]] = torch.inference_mode,
    ) -> Any:
        part = threads()
        if part is not None and self._device.type == "cpu":
            part = min(part, self._limit or part)
            if torch.get_num_threads() != part:
                torch.set_num_threads(part)  # of the thread that this is
        try:
            with mode():
                return run()
        except torch.OutOfMemoryError as error:
            raise MemoryError(brief(error)) from None
        except RuntimeError as error:
            if "can't allocate memory" in str(error):
                raise MemoryError(brief(error)) from None
            raise


def _arrays(out: Any) -> list[Floats]:
    outputs = out if isinstance(out, (list, tuple)) else [out]
    return [o.float().contiguous().cpu().numpy() for o in outputs]


def _be_exact() -> None:
    """Keep TF32 out of a GPU's convolutions: it is another precision under float32's name.

    For the whole process, since two threads run networks at once.
    """
    torch.backends.cudnn.allow_tf32 = False
    torch.backends.cudnn.deterministic = True


def _device(device: str) -> torch.device:
    """Return torch's device; `UserError` where this machine has none such."""
    mps = torch.backends.mps.is_available()
    if device == "auto":
        return torch.device("cuda:0" if torch.cuda.is_available() else "mps" if mps else "cpu")
    kind, _, number = device.partition(":")
    have = {"cpu": 1, "mps": int(mps), "cuda": torch.cuda.device_count()}
    if kind not in have or not (number or "0").isdigit() or int(number or 0) >= have[kind]:
        found = [f"{k}:{i}" if k == "cuda" else k for k, n in have.items() for i in range(n)]
        raise UserError(f"there is no device {device!r} here: choose auto or {', '.join(found)}")
    return torch.device("cuda", int(number or 0)) if kind == "cuda" else torch.device(kind)


def fold(module: nn.Module) -> nn.Module:
    """Return a copy in which batch normalisation after a convolution is part of it.

    Only inside ``nn.Sequential``, where what follows what is certain.
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


def _folded(module: nn.Module, card: Card, device: torch.device) -> nn.Module:
    """Return the module folded, or as it is where that changes what it says."""
    side = card.input.tile if card.input.fixed else min(card.input.tile, 4 * card.step)
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(1, card.input.count, side, side, generator=generator).to(device)
    folded = fold(module)
    try:
        with torch.inference_mode():
            one, two = module(x), folded(x)
        agrees = torch.allclose(one, two, rtol=_AGREES, atol=_AGREES * float(one.abs().max()))
    except Exception:  # whatever is wrong with it is told when the card is checked
        return module
    return folded if agrees else module


def count_flops(
    module: nn.Module, method: str, *shapes: tuple[int, ...], options: Sequence[Any] = ()
) -> float:
    """Count a module on the meta device, without computing: inputs of these shapes, then options.

    What was counted once is remembered, for as long as the module's layers and its code are the
    same: torch takes a second to make ready for counting. Attention is not to be fused here: it
    would be counted as nothing.
    """
    key = _key(module, method, shapes, tuple(options))
    known = recall("costs", key)
    if not isinstance(known, int | float):
        known = _counted(module, method, shapes, options)
        keep("costs", key, known)
    return float(known)


def _counted(
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
        raise UserError(
            f"the cost of {type(module).__name__} cannot be counted ({brief(error)}): "
            "let it make its tensors on its input's device, of sizes that follow from the input's"
        ) from None
    return float(counter.get_total_flops())


def _key(module: nn.Module, *asked: object) -> str:
    """Return what a cost depends on: layers, the code they are of, and what is asked."""
    layers = [
        (
            name,
            type(part).__qualname__,
            {key: value for key, value in vars(part).items() if isinstance(value, _PLAIN)},
            {key: value.shape for key, value in part.named_parameters(recurse=False)},
        )
        for name, part in module.named_modules()
    ]
    digest = hashlib.sha256(f"{torch.__version__}\n{layers}\n{asked}".encode())
    for name in sorted({type(part).__module__ for part in module.modules()}):
        file = getattr(sys.modules.get(name), "__file__", None)
        if not name.startswith("torch."):
            digest.update(Path(file).read_bytes() if file else os.urandom(16))
    return digest.hexdigest()[:32]
