"""PNG: a map over its image, with a legend, a scale bar and a caption."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field

from hrviewer.errors import HrviewerError
from hrviewer.io.figures.overlay_figure import draw_figure, load_figure_data, make_caption
from hrviewer.io.figures.plots import require_matplotlib
from hrviewer.io.run_maps import MapName
from hrviewer.io.writers import Exportable, ProgressCallback, WriterSettings

__all__ = ["PngSettings", "unsupported_reason", "write"]


class PngSettings(WriterSettings):
    """What it shows, and how large it is."""

    map: MapName = Field("output", title="Map", description="Which of the run's maps")
    channel: int = Field(-1, ge=-1, title="Channel", description="-1 for all classes together")
    dpi: int = Field(200, ge=50, le=1200, title="dpi", description="Dots per inch")
    inches: float = Field(6.0, ge=2, le=40, title="Width", description="Inches")
    caption: str = Field("", title="Caption", description="What was run and what it cost, if empty")


def unsupported_reason(run: Exportable) -> str | None:
    """Return why no figure can be drawn."""
    try:
        require_matplotlib()
    except HrviewerError as error:
        return str(error)
    return None


def write(run: Exportable, target: Path, settings: PngSettings, progress: ProgressCallback) -> None:
    """Draw a figure.

    Parameters
    ----------
    run : Exportable
        What to show; without its image if that is gone.
    target : Path
        The file.
    settings : Settings
        What it shows.
    progress : callable
        Told when it is drawn.

    Raises
    ------
    UserError
        If the run does not hold the map or the channel.
    """
    side = min(4000, round(settings.dpi * settings.inches))
    shown = load_figure_data(run, settings.map, settings.channel, side)
    progress(1, 2)
    caption = make_caption(run, settings.caption)
    draw_figure(shown, caption, target, dpi=settings.dpi, inches=settings.inches)
    progress(2, 2)
