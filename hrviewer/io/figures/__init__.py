"""Figures and reports: plots, overlays on an image, HTML pages."""
