"""The inference engine: read, batch, infer, measure, cache, cancel, resume.

`plan_runner` runs a strategy's plan through a `pipeline`, whose networks run on the threads of a
`device_scheduler`. `cost` and `canvas` attribute costs and predictions to places in the image,
`record` holds the maps, patches and estimates of a run, and `cache` the results of inference.
`live_session` runs a strategy on the `viewport_cells` of a view. The engine writes to a `Sink`.
"""

from hrviewer.engine.budget import Budget
from hrviewer.engine.cache import ResultCache
from hrviewer.engine.canvas import Canvas
from hrviewer.engine.cost import QUANTITIES, Cost, CostMap
from hrviewer.engine.device_scheduler import DeviceScheduler, Priority, recommended_streams
from hrviewer.engine.inference_result import InferenceResult, deserialize, serialize
from hrviewer.engine.live_session import LiveSession
from hrviewer.engine.loaded_models import LoadedModels, answering_network
from hrviewer.engine.model_infos import model_info, native_scale
from hrviewer.engine.pipeline import InferencePipeline, InferenceRequest
from hrviewer.engine.plan_runner import (
    Callback,
    FinishedRequest,
    Progress,
    Sink,
    Update,
    run_plan,
)
from hrviewer.engine.plan_setup import build_context
from hrviewer.engine.postprocess import map_kind
from hrviewer.engine.precision import PrecisionDeviation, measure_deviation
from hrviewer.engine.priors import Priors, prior_fingerprints, validate_priors
from hrviewer.engine.record import PatchRow, PublishedEstimate, RunRecord, map_cell_side
from hrviewer.engine.run_clock import RunClock
from hrviewer.engine.run_control import RunControl, RunStopped
from hrviewer.engine.token_inference import TokenAttention, token_attention
from hrviewer.engine.viewport_cells import ViewportCell, neighbours, visible_cells

__all__ = [
    "QUANTITIES",
    "Budget",
    "Callback",
    "Canvas",
    "Cost",
    "CostMap",
    "DeviceScheduler",
    "FinishedRequest",
    "InferencePipeline",
    "InferenceRequest",
    "InferenceResult",
    "LiveSession",
    "LoadedModels",
    "PatchRow",
    "PrecisionDeviation",
    "Priority",
    "Priors",
    "Progress",
    "PublishedEstimate",
    "ResultCache",
    "RunClock",
    "RunControl",
    "RunRecord",
    "RunStopped",
    "Sink",
    "TokenAttention",
    "Update",
    "ViewportCell",
    "answering_network",
    "build_context",
    "deserialize",
    "map_cell_side",
    "map_kind",
    "measure_deviation",
    "model_info",
    "native_scale",
    "neighbours",
    "prior_fingerprints",
    "recommended_streams",
    "run_plan",
    "serialize",
    "token_attention",
    "validate_priors",
    "visible_cells",
]
