"""Regions of an image: named polygons with holes, and their exact overlap with cells and points.

Nothing here knows runs, files or models. Coordinates are level-0 pixels ``(y, x)``; shapely's are
``(x, y)``.
"""

from hrviewer.regions.cell_areas import cell_areas
from hrviewer.regions.cell_integral import CellValues, RegionEdges
from hrviewer.regions.point_membership import points_inside
from hrviewer.regions.rect_areas import rect_areas
from hrviewer.regions.region import Region

__all__ = ["CellValues", "Region", "RegionEdges", "cell_areas", "points_inside", "rect_areas"]
