"""An open image: its source in the front end, and everything that belongs to it.

Invariant: estimate, cost, notes, progress, result maps, run, inspected patch, ground truth, labels
and listed runs are attributes of one `ImageSession`, so they end with their image and cannot stand
beside another one.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from hrviewer.app.maps.colour_scale import ColourScales
from hrviewer.formatting import NO_ESTIMATE, EstimateText
from hrviewer.geometry import Rect
from hrviewer.pyramid import Pyramid
from hrviewer.regions import Region

if TYPE_CHECKING:
    from hrviewer.app.maps.ground_truth_points import GroundTruthPoints, GroundTruthSource
    from hrviewer.app.maps.patch_preview import PatchInspection
    from hrviewer.app.maps.result_maps import ResultMaps
    from hrviewer.io.features import Feature
    from hrviewer.runs import Run
    from hrviewer.runs.run_index import RunEntry

__all__ = ["ImageSession", "ImageSource", "PyramidImage", "Status", "Viewport"]


@dataclass(frozen=True)
class Status:
    """Progress of a run, or of a file that is opened.

    Parameters
    ----------
    fraction : float
        Of 0 to 1.
    message : str
        What goes on.
    busy : bool
        Whether how much is left is not known.
    """

    fraction: float
    message: str
    busy: bool = False


IDLE = Status(0.0, "")


@dataclass(frozen=True)
class Viewport:
    """Visible part of an image.

    Parameters
    ----------
    rect : Rect
        Level-0 pixels; empty if the image is out of view.
    pixel : tuple of float
        Level-0 pixels per screen pixel, ``(y, x)``; they differ where pixels have unequal sides.
    """

    rect: Rect
    pixel: tuple[float, float] = (1.0, 1.0)

    @property
    def side(self) -> float:
        """Side of a square of level-0 pixels that covers as much as one screen pixel."""
        return math.sqrt(self.pixel[0] * self.pixel[1])

    @property
    def coarsest(self) -> float:
        """Level-0 pixels per screen pixel along the axis that is shown smaller."""
        return max(self.pixel)


class ImageSource(ABC):
    """An image as a front end shows it.

    `pyramid` is called on worker threads, everything else on the front end's thread.
    """

    @property
    @abstractmethod
    def name(self) -> str:
        """Title of the image."""

    @property
    @abstractmethod
    def shape(self) -> tuple[int, int]:
        """Height and width, level-0 pixels."""

    @property
    @abstractmethod
    def path(self) -> str | None:
        """Path or address of the file; None if the image is none that hrviewer opened."""

    @property
    @abstractmethod
    def image_key(self) -> str | None:
        """See `Pyramid.image_key`; None if it is not known without reading."""

    @property
    @abstractmethod
    def has_ground_truth(self) -> bool:
        """Whether the image has its own ground truth, as synthetic images do."""

    @abstractmethod
    def plane(self) -> tuple[int, ...]:
        """Return the displayed plane of the axes beyond y and x."""

    @abstractmethod
    def pyramid(self, plane: Sequence[int] = ()) -> Pyramid:
        """Return the pyramid of a plane; it may read."""

    @abstractmethod
    def viewport(self) -> Viewport:
        """Return the visible part."""

    @abstractmethod
    def drawn_regions(self) -> list[Region]:
        """Return the regions that are drawn on the image."""

    @property
    def rect(self) -> Rect:
        """The whole image."""
        return Rect(0, 0, *self.shape)


class PyramidImage(ImageSource):
    """A pyramid without a front end: the view and the drawn regions are set by hand.

    Parameters
    ----------
    pyramid : Pyramid
        The image.
    view : Viewport, optional
        The whole image by default.
    """

    def __init__(self, pyramid: Pyramid, view: Viewport | None = None) -> None:
        self._pyramid = pyramid
        self.view = view or Viewport(pyramid.rect)
        self.regions: list[Region] = []

    @property
    def name(self) -> str:
        """Title of the image."""
        return self._pyramid.name

    @property
    def shape(self) -> tuple[int, int]:
        """Height and width, level-0 pixels."""
        rect = self._pyramid.rect
        return rect.h, rect.w

    @property
    def path(self) -> str | None:
        """Path or address of the file."""
        return None if self._pyramid.path is None else str(self._pyramid.path)

    @property
    def image_key(self) -> str | None:
        """See `Pyramid.image_key`."""
        return self._pyramid.image_key

    @property
    def has_ground_truth(self) -> bool:
        """Whether the image is synthetic."""
        return self._pyramid.synthetic_image is not None

    def plane(self) -> tuple[int, ...]:
        """Return no plane: a pyramid is one."""
        return ()

    def pyramid(self, plane: Sequence[int] = ()) -> Pyramid:
        """Return the pyramid."""
        return self._pyramid

    def viewport(self) -> Viewport:
        """Return the view that was set."""
        return self.view

    def drawn_regions(self) -> list[Region]:
        """Return the regions that were set."""
        return self.regions


@dataclass(eq=False)
class ImageSession:
    """One image and everything that belongs to it.

    Parameters
    ----------
    source : ImageSource
        The image.

    Attributes
    ----------
    maps : ResultMaps or None
        Result maps over the image, of a run or of Live.
    run : Run or None
        The finished or reopened run that `maps` show.
    status : Status
        Progress of the run on this image.
    estimate : EstimateText
        Of the run or of the view, as the front end displays it.
    cost : str
        What it cost.
    notes : list of str
        Remarks on the run.
    inspection : PatchInspection or None
        The patch that was clicked last.
    live_status, hud : str
        Speed and progress of Live, in the panel and on the canvas.
    ground_truth : GroundTruthPoints or None
        What is displayed of the ground truth.
    ground_truth_source : GroundTruthSource or None
        Ground truth that runs are compared with: what is displayed, or a synthetic image's own.
    ground_truth_status : str
        Number of displayed objects.
    colour_scales : ColourScales
        What the ends of each quantity's colours stand for, for all results on this image.
    tissue : Region or None
        What of the image is tissue, where runs count only this; None while it is not known.
    labels : list of Feature
        Labelled places that a head is fitted to.
    runs : list of RunEntry
        Runs of this image in the known folders.
    closed : bool
        Whether the image is gone.
    """

    source: ImageSource
    maps: ResultMaps | None = None
    run: Run | None = None
    status: Status = IDLE
    estimate: EstimateText = NO_ESTIMATE
    cost: str = ""
    notes: list[str] = field(default_factory=list)
    inspection: PatchInspection | None = None
    live_status: str = ""
    hud: str = ""
    ground_truth: GroundTruthPoints | None = None
    ground_truth_source: GroundTruthSource | None = None
    ground_truth_status: str = ""
    colour_scales: ColourScales = field(default_factory=ColourScales)
    tissue: Region | None = None
    labels: list[Feature] = field(default_factory=list)
    runs: list[RunEntry] = field(default_factory=list)
    closed: bool = False

    @property
    def name(self) -> str:
        """Title of the image."""
        return self.source.name

    def clear_results(self) -> None:
        """Forget the results of the run or of Live."""
        self.maps = self.run = self.inspection = None
        self.status, self.estimate, self.cost, self.notes = IDLE, NO_ESTIMATE, "", []

    def close(self) -> None:
        """End with the image."""
        self.closed = True
        self.clear_results()
        self.live_status = self.hud = self.ground_truth_status = ""
        self.ground_truth = self.ground_truth_source = None
        self.labels, self.runs, self.tissue = [], [], None
