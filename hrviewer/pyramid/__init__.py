"""What is looked at: images as pyramids of levels, read lazily in bounded memory.

`open_pyramid` takes anything that is an image. A `Pyramid` reads any rectangle at any scale from
its `Level` objects, whose tiles all come through one `TileCache`; a `Meter` says what each look
paid.
"""

from hrviewer.pyramid.level import Level
from hrviewer.pyramid.opening import open_pyramid
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
    "open_pyramid",
    "tile_cache",
]
