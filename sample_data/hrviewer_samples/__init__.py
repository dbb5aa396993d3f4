"""Synthetic images that are rendered on demand; one folder each."""
