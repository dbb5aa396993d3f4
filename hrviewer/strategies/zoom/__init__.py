"""Selective zooming and skipping: a coarse pass everywhere, full resolution where it pays.

`zoom` is the strategy, `params` its parameters; `selection` selects the cells to measure by each
method, `quadtree_search` the nodes of a quadtree (`quadtree_nodes`).
"""

from hrviewer.strategies.zoom.params import ZoomParams
from hrviewer.strategies.zoom.zoom import Zoom

__all__ = ["Zoom", "ZoomParams"]
