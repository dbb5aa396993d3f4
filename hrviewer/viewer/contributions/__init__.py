"""Contributions of `napari.yaml`: commands, readers, writers, sample data."""
