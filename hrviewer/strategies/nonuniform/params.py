"""Parameters of `NonUniform`."""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field

from hrviewer.strategies.base import Params, VisibleIf
from hrviewer.strategies.nonuniform.grid_sampler import FWHM, NODES
from hrviewer.strategies.nonuniform.overview import ImportanceSource

__all__ = ["NonUniformParams"]


class NonUniformParams(Params):
    """Parameters of `NonUniform`."""

    visible_if: ClassVar[VisibleIf] = {"bandwidth": ("importance", ("auto", "density"))}
    importance: ImportanceSource = Field(
        "auto",
        title="Importance",
        description="Source of the importance map: the scout; the image's gradient, entropy or "
        "foreground; the prior map saliency (drawn) or density (output of an earlier run). auto "
        "takes saliency if given, else density if given, else the scout",
    )
    contrast: float = Field(
        1.0,
        gt=0,
        le=8,
        title="Contrast",
        description="Exponent of the importance: more spends the budget on fewer places",
    )
    coarsest: float = Field(
        8.0,
        ge=1,
        le=64,
        title="Maximum downsampling",
        description="Downsampling factor per side of unimportant areas; more if the budget "
        "requires it",
    )
    share: float = Field(
        0.15,
        ge=0,
        le=1,
        title="Random share",
        description="Fraction of what remains after the scout for patches drawn at random where "
        "its prediction is kept: they correct it, and give the interval; 0 for none",
    )
    largest: int = Field(
        2048,
        ge=128,
        le=16384,
        title="Largest warp",
        description="Maximum side of a warp, in model pixels at full resolution",
    )
    context: int = Field(
        16,
        ge=0,
        le=512,
        title="Context",
        description="Context around each patch or warp, in model pixels; less around small ones",
    )
    nodes: int = Field(
        NODES, ge=3, le=129, title="Nodes", description="Nodes of a warp's grid, per side"
    )
    width: float = Field(
        FWHM,
        gt=0.5,
        le=64,
        title="Kernel width",
        description="Width of the kernel by which importance attracts samples: full width at half "
        "maximum, in nodes of a grid of 31",
    )
    separable: bool = Field(
        False, title="Separable", description="Warp rows and columns separately, as FOVEA does"
    )
    bandwidth: float = Field(
        48.0,
        gt=0,
        le=4096,
        title="Bandwidth",
        description="Smoothing of the prior map density: standard deviation of the Gaussian, in "
        "model pixels at full resolution",
    )
