"""The synthetic image `crowd`: a city square and its streets, with its people."""

from hrviewer_samples.crowd.image import Crowd

__all__ = ["Crowd"]
