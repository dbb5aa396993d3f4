"""Backbones of timm (Wightman, *PyTorch Image Models*): its code, and weights from a file here.

Nothing is ever downloaded: a card names the model, and its weights lie beside the card.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from hrviewer.errors import HrviewerError, short_message

__all__ = ["Backbone", "create_timm_model", "import_timm", "timm_backbone"]

DOWNLOAD_OPTIONS = (
    "cache_dir",
    "checkpoint_path",
    "pretrained",
    "pretrained_cfg",
    "pretrained_cfg_overlay",
)
"""What would make timm read weights from elsewhere, maybe pickled ones."""

_STUB_LIBRARIES: list[Any] = []
"""What stands for operators of torchvision, as long as the process lives."""


class Backbone(nn.Module):
    """A model of timm.

    Parameters
    ----------
    model : torch.nn.Module
        As timm made it; its weights have timm's names.
    stage : int, optional
        Whose features are given, as a map: 0 is the first, -1 the last. By default the answer is
        that of the whole model: one for each picture.
    """

    def __init__(self, model: nn.Module, stage: int | None = None) -> None:
        super().__init__()
        self.model, self.stage = model, stage

    def forward(self, x: Tensor) -> Tensor:
        """Return the answers ``(n, k)``, or a stage's features ``(n, k, h/stride, w/stride)``."""
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
        """Take weights by timm's names; those of a classifier that is not here are left out."""
        about: Any = self.model.default_cfg
        names = about.get("classifier") or ()
        layers = [names] if isinstance(names, str) else names
        own = self.model.state_dict()
        taken = {
            name: value
            for name, value in state_dict.items()
            if name in own or not any(name.startswith(f"{layer}.") for layer in layers)
        }
        return self.model.load_state_dict(taken, strict=strict, assign=assign)


def timm_backbone(model: str, stage: int | None = None, **params: Any) -> Backbone:
    """Return a model of timm, of random weights.

    Parameters
    ----------
    model
        Its name, as ``timm.list_models()`` has it.
    stage
        See `Backbone`.
    **params
        As ``timm.create_model`` takes them; ``num_classes`` is 0 by default: an embedding.

    Raises
    ------
    UserError
        If timm is missing or has no such model, or would be told to fetch weights.
    """
    return Backbone(create_timm_model(model, {"num_classes": 0} | params), stage)


def create_timm_model(model: str, params: Mapping[str, Any]) -> nn.Module:
    """Return timm's model of a name, of random weights.

    Raises
    ------
    UserError
        As `timm_model`.
    """
    timm = import_timm()
    fetches = [name for name in DOWNLOAD_OPTIONS if name in params]
    if fetches:
        raise HrviewerError(
            f"architecture.params {', '.join(fetches)} would have timm fetch weights: leave it "
            "out, the weights are those of the file"
        )
    if not timm.is_model(model):
        raise HrviewerError(f"timm {timm.__version__} has no model {model!r}: correct the card")
    made: nn.Module = timm.create_model(model, pretrained=False, **params)
    return made


def import_timm() -> Any:
    """Import timm, also beside a torchvision that was built for another torch.

    timm imports torchvision, which then lacks two operators; no network here needs them.

    Raises
    ------
    UserError
        If it is missing or broken.
    """
    try:
        import timm
    except ImportError:
        raise HrviewerError('this network needs timm: pip install "hrviewer[timm]"') from None
    except RuntimeError as error:
        if "torchvision::nms" not in str(error):
            raise HrviewerError(
                f"timm does not import ({short_message(error)}): install it again"
            ) from None
        library: Any = torch.library.Library("torchvision", "FRAGMENT")  # type: ignore[no-untyped-call]
        for name in ("nms", "qnms"):
            library.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        _STUB_LIBRARIES.append(library)
        import timm
    return timm
