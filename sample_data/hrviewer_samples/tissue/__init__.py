"""An H&E slide: islands of skin, glands and tumours on white glass, and every nucleus known."""

from hrviewer_samples.tissue.image import Tissue

__all__ = ["Tissue"]
