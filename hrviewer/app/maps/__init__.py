"""The maps of a run as arrays: rasters, embeddings, attention, previews of patches."""
