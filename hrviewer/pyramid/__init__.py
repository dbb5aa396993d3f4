"""What is looked at: images as pyramids of levels, read lazily in bounded memory.

`open_pyramid` takes anything that is an image. A `Pyramid` reads any rectangle at any scale from
its `Level` objects, whose tiles all come through one `TileCache`; a `Meter` says what each look
paid.
"""

from .cache import TileCache, TileKey, tile_cache
from .level import Level
from .meter import Meter, Reading
from .opening import open_pyramid
from .pyramid import Pyramid

__all__ = [
    "Level",
    "Meter",
    "Pyramid",
    "Reading",
    "TileCache",
    "TileKey",
    "open_pyramid",
    "tile_cache",
]
