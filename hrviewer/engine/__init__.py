"""The looking: read, batch, infer, meter, cache, cancel, resume.

`driver` carries a strategy's plan out; `looker` does the looking through `device`, the one thread
that runs networks; `charge` and `canvas` say where on the image costs and answers fall; `record`
holds what was seen and spent; `live` follows a viewport, cut into `cells`. The
engine writes through a `Sink`.
"""

from hrviewer.engine.budget import Budget
from hrviewer.engine.cache import ResultCache
from hrviewer.engine.canvas import Canvas
from hrviewer.engine.cost import Charge, Ledger
from hrviewer.engine.device_scheduler import Device, Priority, streams_here
from hrviewer.engine.live_session import Session
from hrviewer.engine.patch_result import Seen, pack_seen, unpack_seen
from hrviewer.engine.pipeline import Looker, role_of
from hrviewer.engine.plan_runner import Progress, Sink, Update, Watch, drive
from hrviewer.engine.plan_setup import Networks, build_scene, speaker
from hrviewer.engine.postprocess import kind_of
from hrviewer.engine.precision import Off, how_far_off
from hrviewer.engine.priors import Hints, checked, fingerprints
from hrviewer.engine.record import PatchRow, Published, Record, map_cell
from hrviewer.engine.roles import native_scale
from hrviewer.engine.run_control import Control, Stopped
from hrviewer.engine.token_inference import Attended, attended
from hrviewer.engine.viewport_cells import Cell, around, cells, empty_record, paint

__all__ = [
    "Attended",
    "Budget",
    "Canvas",
    "Cell",
    "Charge",
    "Control",
    "Device",
    "Hints",
    "Ledger",
    "Looker",
    "Networks",
    "Off",
    "PatchRow",
    "Priority",
    "Progress",
    "Published",
    "Record",
    "ResultCache",
    "Seen",
    "Session",
    "Sink",
    "Stopped",
    "Update",
    "Watch",
    "around",
    "attended",
    "build_scene",
    "cells",
    "checked",
    "drive",
    "empty_record",
    "fingerprints",
    "how_far_off",
    "kind_of",
    "map_cell",
    "native_scale",
    "pack_seen",
    "paint",
    "role_of",
    "speaker",
    "streams_here",
    "unpack_seen",
]
