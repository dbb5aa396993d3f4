"""What `napari.yaml` names: commands, readers, writers, sample data."""
