"""Selective zooming and skipping: a cheap look everywhere, closer looks where they pay.

`zoom` is the strategy; `scouting` says what is guessed of each place, `quadtree` which nodes are
worth a look.
"""

from hrviewer.strategies.zoom.zoom import Zoom, ZoomParams

__all__ = ["Zoom", "ZoomParams"]
