"""Backbones of timm (Wightman, *PyTorch Image Models*), with weights from a local file.

Nothing is ever downloaded: a card names the model, and its weights are a file next to the card.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from hrviewer.errors import ModelError, short_message

__all__ = ["Backbone", "create_timm_model", "import_timm", "timm_backbone"]

DOWNLOAD_OPTIONS = (
    "cache_dir",
    "checkpoint_path",
    "pretrained",
    "pretrained_cfg",
    "pretrained_cfg_overlay",
)
"""Arguments that would make timm load weights from elsewhere, possibly pickles."""

_STUB_LIBRARIES: list[Any] = []
"""Stubs of torchvision operators, kept alive for the lifetime of the process."""


class Backbone(nn.Module):
    """A model of timm.

    Parameters
    ----------
    model : torch.nn.Module
        As created by timm; its weights have timm's names.
    stage : int, optional
        Stage whose feature map is the output: 0 is the first, -1 the last. By default the output is
        that of the whole model, one per image.
    """

    def __init__(self, model: nn.Module, stage: int | None = None) -> None:
        super().__init__()
        self.model, self.stage = model, stage

    def forward(self, x: Tensor) -> Tensor:
        """Return the outputs ``(n, k)``, or a stage's features ``(n, k, h/stride, w/stride)``."""
        if self.stage is None:
            out: Tensor = self.model(x)
            return out
        features: list[Tensor] = self.model.forward_intermediates(  # type: ignore[operator]
            x, indices=[self.stage], intermediates_only=True, output_fmt="NCHW"
        )
        return features[0]

    def load_state_dict(
        self, state_dict: Mapping[str, Any], strict: bool = True, assign: bool = False
    ) -> Any:
        """Load weights by timm's names; those of a removed classifier are ignored."""
        config: Any = self.model.default_cfg
        names = config.get("classifier") or ()
        layers = [names] if isinstance(names, str) else names
        known = self.model.state_dict()
        loaded = {
            name: value
            for name, value in state_dict.items()
            if name in known or not any(name.startswith(f"{layer}.") for layer in layers)
        }
        return self.model.load_state_dict(loaded, strict=strict, assign=assign)


def timm_backbone(model: str, stage: int | None = None, **params: Any) -> Backbone:
    """Return a backbone of timm with random weights.

    Parameters
    ----------
    model
        Its name in ``timm.list_models()``.
    stage
        See `Backbone`.
    **params
        Arguments of ``timm.create_model``; ``num_classes`` is 0 by default, for an embedding.

    Raises
    ------
    ModelError
        If timm is missing or has no such model, or the parameters would download weights.
    """
    return Backbone(create_timm_model(model, {"num_classes": 0} | params), stage)


def create_timm_model(model: str, params: Mapping[str, Any]) -> nn.Module:
    """Return a model of timm with random weights.

    Raises
    ------
    ModelError
        As in `timm_backbone`.
    """
    timm = import_timm()
    downloads = [name for name in DOWNLOAD_OPTIONS if name in params]
    if downloads:
        raise ModelError(
            f"architecture.params {', '.join(downloads)} would make timm download weights: "
            "remove it, the weights come from the file"
        )
    if not timm.is_model(model):
        raise ModelError(f"timm {timm.__version__} has no model {model!r}: correct the card")
    created: nn.Module = timm.create_model(model, pretrained=False, **params)
    return created


def import_timm() -> Any:
    """Import timm, even with a torchvision that was built for another torch.

    timm imports torchvision, which then lacks two operators; no network here needs them.

    Raises
    ------
    ModelError
        If it is missing or broken.
    """
    try:
        import timm
    except ImportError:
        raise ModelError('this model needs timm: pip install "hrviewer[timm]"') from None
    except RuntimeError as error:
        if "torchvision::nms" not in str(error):
            raise ModelError(
                f"timm cannot be imported ({short_message(error)}): reinstall it"
            ) from None
        library: Any = torch.library.Library("torchvision", "FRAGMENT")  # type: ignore[no-untyped-call]
        for name in ("nms", "qnms"):
            library.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        _STUB_LIBRARIES.append(library)
        import timm
    return timm
