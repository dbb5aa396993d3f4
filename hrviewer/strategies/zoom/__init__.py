"""Selective zooming and skipping: a cheap look everywhere, closer looks where they pay.

`zoom` is the strategy; `scouting` and `leaves` say where one may look and what is guessed there,
`sampling` and `intervals` what the looks say of the total, `quadtree` which nodes are worth one.
"""

from hrviewer.strategies.zoom.zoom import Zoom, ZoomParams

__all__ = ["Zoom", "ZoomParams"]
