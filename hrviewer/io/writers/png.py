"""PNG: a map or the objects over their image, with a legend, a scale bar and a caption."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field

from hrviewer.errors import ParameterError
from hrviewer.io.exportable import Exportable, ProgressCallback, WriterSettings
from hrviewer.io.figures.overlay_figure import (
    FigureData,
    ObjectFigure,
    draw_figure,
    load_figure_data,
    load_object_figure,
    make_caption,
)
from hrviewer.io.figures.plots import matplotlib_missing_reason
from hrviewer.io.object_table import has_objects
from hrviewer.io.run_maps import MapName
from hrviewer.io.writers.base import RunWriter

__all__ = ["PngSettings", "PngWriter"]


MARK = 4
"""Pixels; single cells of a large image would be too small to be recognised."""


class PngSettings(WriterSettings):
    """Content and size of a figure."""

    map: Literal["auto", MapName, "objects"] = Field(
        "auto",
        title="Map",
        description="One of the run's maps, or its objects; auto: the objects of a detector, "
        "else the output",
    )
    score: float = Field(
        0.0, ge=0, le=1, title="Score",
        description="For objects: least score, down to 0.05; 0 takes the run's",
    )  # fmt: skip
    channel: int = Field(-1, ge=-1, title="Channel", description="-1 for the sum of all classes")
    dpi: int = Field(200, ge=50, le=1200, title="dpi", description="Dots per inch")
    inches: float = Field(6.0, ge=2, le=40, title="Width", description="Inches")
    caption: str = Field(
        "", title="Caption", description="Model, strategy, estimate and cost if empty"
    )


class PngWriter(RunWriter):
    """PNG writer; the figure has no background if the image is missing."""

    suffixes = (".png",)
    description = "a figure with legend, scale bar and caption"
    Settings = PngSettings

    def unsupported_reason(self, run: Exportable) -> str | None:
        """Return why no figure can be drawn."""
        return matplotlib_missing_reason()

    def write(
        self, run: Exportable, target: Path, settings: PngSettings, progress: ProgressCallback
    ) -> None:
        """Draw a figure."""
        side = min(4000, round(settings.dpi * settings.inches))
        name = settings.map
        if name == "auto":
            name = "objects" if has_objects(run) and settings.channel < 0 else "output"
        if settings.score and name != "objects":
            raise ParameterError(f"score has no effect on a figure of {name}: leave it out")
        data: FigureData | ObjectFigure
        if name == "objects":
            data = load_object_figure(run, settings.score or None, side)
        else:
            data = load_figure_data(run, name, settings.channel, side, mark=MARK)
        progress(1, 2)
        caption = make_caption(run, settings.caption)
        draw_figure(data, caption, target, dpi=settings.dpi, inches=settings.inches)
        progress(2, 2)
