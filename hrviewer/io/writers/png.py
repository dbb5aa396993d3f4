"""PNG: a map over its image, with a legend, a scale bar and a caption."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field

from hrviewer.io.exportable import Exportable, ProgressCallback, WriterSettings
from hrviewer.io.figures.overlay_figure import draw_figure, load_figure_data, make_caption
from hrviewer.io.figures.plots import matplotlib_missing_reason
from hrviewer.io.run_maps import MapName
from hrviewer.io.writers.base import RunWriter

__all__ = ["PngSettings", "PngWriter"]


class PngSettings(WriterSettings):
    """Content and size of a figure."""

    map: MapName = Field("output", title="Map", description="One of the run's maps")
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
        data = load_figure_data(run, settings.map, settings.channel, side)
        progress(1, 2)
        caption = make_caption(run, settings.caption)
        draw_figure(data, caption, target, dpi=settings.dpi, inches=settings.inches)
        progress(2, 2)
