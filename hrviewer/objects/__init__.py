"""Detected objects: boxes and outlines with class and score, merged over the borders of tiles."""

from hrviewer.objects.detected_objects import DetectedObjects
from hrviewer.objects.merging import (
    CANDIDATE_SCORE,
    MAX_CANDIDATES,
    MergeSettings,
    count_classes,
    drop_refined,
    merge_objects,
    tile_duplicates,
    unite_objects,
)
from hrviewer.objects.outlines import corners_of_polygons, mask_ring, outlines_as_lines
from hrviewer.objects.suppression import suppress

__all__ = [
    "CANDIDATE_SCORE",
    "MAX_CANDIDATES",
    "DetectedObjects",
    "MergeSettings",
    "corners_of_polygons",
    "count_classes",
    "drop_refined",
    "mask_ring",
    "merge_objects",
    "outlines_as_lines",
    "suppress",
    "tile_duplicates",
    "unite_objects",
]
