"""Where to look: one file or folder per family, and the vocabulary they speak.

Strategies touch neither files nor devices. `protocol` holds the words that they exchange with the
engine, `base` the class to write and the register; `tiling` (cutting into patches) and `survey`
(closer looks, and what they say of the whole) are what several families share.
"""

from hrviewer.strategies.base import Params, Strategy, get_strategy, strategy_ids
from hrviewer.strategies.protocol import (
    Answer,
    Handle,
    Into,
    Look,
    Plan,
    Request,
    Result,
    Role,
    Scene,
    Show,
    Think,
    Warp,
)
from hrviewer.strategies.tiling import (
    aggregate,
    input_rect,
    input_shape,
    lattice,
    response,
    rounds,
    tiles,
    total_flops,
)

__all__ = [
    "Answer",
    "Handle",
    "Into",
    "Look",
    "Params",
    "Plan",
    "Request",
    "Result",
    "Role",
    "Scene",
    "Show",
    "Strategy",
    "Think",
    "Warp",
    "aggregate",
    "get_strategy",
    "input_rect",
    "input_shape",
    "lattice",
    "response",
    "rounds",
    "strategy_ids",
    "tiles",
    "total_flops",
]
