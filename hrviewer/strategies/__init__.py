"""Inference strategies: one file or folder per family of the survey.

Strategies touch neither files nor devices. `protocol` holds the requests and responses that they
exchange with the engine, `base` the class to derive from and the registry. Several families share
`tiling` (cutting a region into patches) and `estimation` (a coarse pass, measurements at selected
places, and an estimate of the total).
"""

from hrviewer.callable_package import make_callable
from hrviewer.strategies.base import Params, Strategy, get_strategy, strategy_ids
from hrviewer.strategies.estimation.aggregation import Aggregation, aggregation_of
from hrviewer.strategies.listing import list_strategies
from hrviewer.strategies.protocol import (
    Estimate,
    FeatureRequest,
    ModelInfo,
    PatchRequest,
    PatchResult,
    Plan,
    PlanContext,
    Publish,
    Rates,
    Request,
    Response,
    Target,
    WarpRequest,
)
from hrviewer.strategies.tiling import (
    activation_map,
    aggregate,
    alignment_step,
    batches,
    exhaustive_tile,
    input_rect,
    input_shape,
    tiles,
    total_flops,
)

__all__ = [
    "Aggregation",
    "Estimate",
    "FeatureRequest",
    "ModelInfo",
    "Params",
    "PatchRequest",
    "PatchResult",
    "Plan",
    "PlanContext",
    "Publish",
    "Rates",
    "Request",
    "Response",
    "Strategy",
    "Target",
    "WarpRequest",
    "activation_map",
    "aggregate",
    "aggregation_of",
    "alignment_step",
    "batches",
    "exhaustive_tile",
    "get_strategy",
    "input_rect",
    "input_shape",
    "list_strategies",
    "strategy_ids",
    "tiles",
    "total_flops",
]

make_callable(__name__, list_strategies)
