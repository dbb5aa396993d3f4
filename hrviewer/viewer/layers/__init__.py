"""The napari layers: overlays, outlines, grids, annotations, ground truth."""
