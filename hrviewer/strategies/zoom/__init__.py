"""Selective zooming and skipping: a cheap look everywhere, closer looks where they pay.

`zoom` is the strategy; `scouting` says what is guessed of each place, `choosing` where to look by
each method, `quadtree` which of its `nodes` are worth a look.
"""

from hrviewer.strategies.zoom.params import ZoomParams
from hrviewer.strategies.zoom.zoom import Zoom

__all__ = ["Zoom", "ZoomParams"]
