"""The scene `crowd`: a city square and its streets, with its people."""

from hrviewer_samples.crowd.recipe import Crowd

__all__ = ["Crowd"]
