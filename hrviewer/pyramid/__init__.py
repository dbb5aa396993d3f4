"""Gigapixel images as pyramids of levels, read lazily in bounded memory.

`open_pyramid` opens files, URLs and arrays. A `Pyramid` reads any rectangle at any scale from its
`Level` objects, whose tiles all come through one `TileCache`; a `ReadMeter` adds up what reading
costs.
"""

from hrviewer.pyramid.level import Level
from hrviewer.pyramid.opening import open_plane, open_pyramid, reopen_pyramid, using_pyramid
from hrviewer.pyramid.pyramid import Pyramid
from hrviewer.pyramid.read_cost import ReadCost, ReadMeter
from hrviewer.pyramid.tile_cache import TileCache, TileKey, tile_cache

__all__ = [
    "Level",
    "Pyramid",
    "ReadCost",
    "ReadMeter",
    "TileCache",
    "TileKey",
    "open_plane",
    "open_pyramid",
    "reopen_pyramid",
    "tile_cache",
    "using_pyramid",
]
