"""The looking: read, batch, infer, meter, cache, cancel, resume.

`driver` carries a strategy's plan out; `looker` does the looking through `device`, the one thread
that runs networks; `charge` and `canvas` say where on the image costs and answers fall; `record`
holds what was seen and spent; `live` follows a viewport, cut into `cells`. The
engine writes through a `Sink`.
"""

from hrviewer.engine.answer import kind_of
from hrviewer.engine.budget import Budget
from hrviewer.engine.cache import ResultCache
from hrviewer.engine.canvas import Canvas
from hrviewer.engine.cells import Cell, around, cells, empty_record, paint
from hrviewer.engine.charge import Charge, Ledger
from hrviewer.engine.control import Control, Stopped
from hrviewer.engine.device import Device, Priority, streams_here
from hrviewer.engine.driver import Progress, Sink, Update, Watch, drive
from hrviewer.engine.hints import Hints, checked, fingerprints
from hrviewer.engine.live import Session
from hrviewer.engine.looker import Looker, role_of
from hrviewer.engine.native import native_scale
from hrviewer.engine.precision import Off, how_far_off
from hrviewer.engine.record import PatchRow, Published, Record, map_cell
from hrviewer.engine.scene import Networks, build_scene, speaker
from hrviewer.engine.seen import Seen, pack_seen, unpack_seen
from hrviewer.engine.tokens import Attended, attended

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
