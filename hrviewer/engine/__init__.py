"""The looking: read, batch, infer, meter, cache, cancel, resume.

`driver` carries a strategy's plan out; `looker` does the looking through `device`, the one thread
that runs networks; `charge` and `canvas` say where on the image costs and answers fall; `record`
holds what was seen and spent; `live` follows a viewport, cut into `cells`. The
engine writes through a `Sink`.
"""

from hrviewer.engine.budget import Budget
from hrviewer.engine.cache import ResultCache
from hrviewer.engine.canvas import Canvas
from hrviewer.engine.cost import Cost, CostMap
from hrviewer.engine.device_scheduler import DeviceScheduler, Priority, recommended_streams
from hrviewer.engine.live_session import LiveSession
from hrviewer.engine.patch_result import InferenceResult, deserialize, serialize
from hrviewer.engine.pipeline import InferencePipeline, model_info
from hrviewer.engine.plan_runner import Callback, Progress, Sink, Update, run_plan
from hrviewer.engine.plan_setup import LoadedModels, answering_network, build_context
from hrviewer.engine.postprocess import map_kind
from hrviewer.engine.precision import PrecisionDeviation, measure_deviation
from hrviewer.engine.priors import Priors, prior_fingerprints, validate_priors
from hrviewer.engine.record import PatchRow, PublishedEstimate, RunRecord, map_cell_side
from hrviewer.engine.roles import native_scale
from hrviewer.engine.run_control import RunControl, RunStopped
from hrviewer.engine.token_inference import TokenAttention, token_attention
from hrviewer.engine.viewport_cells import (
    ViewportCell,
    empty_record,
    neighbours,
    paint_cell,
    visible_cells,
)

__all__ = [
    "Budget",
    "Callback",
    "Canvas",
    "Cost",
    "CostMap",
    "DeviceScheduler",
    "InferencePipeline",
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
    "empty_record",
    "map_cell_side",
    "map_kind",
    "measure_deviation",
    "model_info",
    "native_scale",
    "neighbours",
    "paint_cell",
    "prior_fingerprints",
    "recommended_streams",
    "run_plan",
    "serialize",
    "token_attention",
    "validate_priors",
    "visible_cells",
]
