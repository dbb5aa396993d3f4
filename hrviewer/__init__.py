"""Efficient inference on gigapixel images: run a model with a strategy, see maps and costs.

Functions
---------
open      an image as a lazily read pyramid
load      a model, once for many runs
run       a strategy with a model on an image
compare   strategies on the same images with the same models
batch     a strategy on many images, on all cores, GPUs or machines
cost      FLOPs, time and memory of a model by input size
view      the napari window
export    a run as a file that other tools read
distill   the roles that a model lacks, trained from it on images
models    the installed models
strategies  the installed strategies

Importing this loads neither torch, pandas nor Qt: each name is imported when it is first used.
"""

from __future__ import annotations

import logging
import os
from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    __version__: str
    from hrviewer import batch as batch
    from hrviewer import models as models
    from hrviewer import strategies as strategies
    from hrviewer.engine.budget import Budget as Budget
    from hrviewer.errors import BudgetError as BudgetError
    from hrviewer.errors import ClaimedError as ClaimedError
    from hrviewer.errors import DeviceMemoryError as DeviceMemoryError
    from hrviewer.errors import DisplayError as DisplayError
    from hrviewer.errors import GroundTruthError as GroundTruthError
    from hrviewer.errors import HrviewerError as HrviewerError
    from hrviewer.errors import ImageReadError as ImageReadError
    from hrviewer.errors import ModelError as ModelError
    from hrviewer.errors import ParameterError as ParameterError
    from hrviewer.errors import RunError as RunError
    from hrviewer.errors import UntrustedModelError as UntrustedModelError
    from hrviewer.errors import WriteError as WriteError
    from hrviewer.geometry import Patch as Patch
    from hrviewer.geometry import Rect as Rect
    from hrviewer.pyramid import Pyramid as Pyramid
    from hrviewer.pyramid import open_pyramid as open  # noqa: A004, F401 - read as hrviewer.open
    from hrviewer.regions import Region as Region
    from hrviewer.runs import Model as Model
    from hrviewer.runs import Run as Run
    from hrviewer.runs import compare as compare
    from hrviewer.runs import cost as cost
    from hrviewer.runs import export as export
    from hrviewer.runs import load as load
    from hrviewer.runs import run as run
    from hrviewer.runs.tissue import find_tissue as find_tissue
    from hrviewer.strategies import Strategy as Strategy
    from hrviewer.training.distill import distill as distill
    from hrviewer.viewer.view import view as view

_HOMES = {
    "open": "hrviewer.pyramid:open_pyramid",
    "load": "hrviewer.runs:load",
    "run": "hrviewer.runs:run",
    "compare": "hrviewer.runs:compare",
    "batch": "hrviewer.batch",
    "cost": "hrviewer.runs:cost",
    "distill": "hrviewer.training.distill:distill",
    "find_tissue": "hrviewer.runs.tissue:find_tissue",
    "Region": "hrviewer.regions:Region",
    "view": "hrviewer.viewer.view:view",
    "export": "hrviewer.runs:export",
    "models": "hrviewer.models",
    "strategies": "hrviewer.strategies",
    "Budget": "hrviewer.engine.budget:Budget",
    "BudgetError": "hrviewer.errors:BudgetError",
    "ClaimedError": "hrviewer.errors:ClaimedError",
    "DeviceMemoryError": "hrviewer.errors:DeviceMemoryError",
    "DisplayError": "hrviewer.errors:DisplayError",
    "GroundTruthError": "hrviewer.errors:GroundTruthError",
    "HrviewerError": "hrviewer.errors:HrviewerError",
    "ImageReadError": "hrviewer.errors:ImageReadError",
    "Model": "hrviewer.runs:Model",
    "ModelError": "hrviewer.errors:ModelError",
    "ParameterError": "hrviewer.errors:ParameterError",
    "Patch": "hrviewer.geometry:Patch",
    "Pyramid": "hrviewer.pyramid:Pyramid",
    "Rect": "hrviewer.geometry:Rect",
    "Run": "hrviewer.runs:Run",
    "RunError": "hrviewer.errors:RunError",
    "Strategy": "hrviewer.strategies:Strategy",
    "UntrustedModelError": "hrviewer.errors:UntrustedModelError",
    "WriteError": "hrviewer.errors:WriteError",
}
"""Where each public name lives; its signature and docstring are written there alone."""

__all__ = ["__version__", *_HOMES]

logging.getLogger(__name__).addHandler(logging.NullHandler())

# onnxruntime reports its use to Microsoft otherwise, from its import on.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")


def __getattr__(name: str) -> Any:
    """Import a public name from the module in which it lives (PEP 562)."""
    if name == "__version__":
        from importlib.metadata import version

        return version("hrviewer")
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module, _, attribute = _HOMES[name].partition(":")
    found = import_module(module)
    value = getattr(found, attribute) if attribute else found
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
