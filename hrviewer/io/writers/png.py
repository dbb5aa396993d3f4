"""PNG: a map over its image, with a legend, a scale bar and a caption."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field

from hrviewer.errors import UserError
from hrviewer.io.figures.overlay_figure import captioned, draw, look_at
from hrviewer.io.figures.plots import need_plots
from hrviewer.io.run_maps import MapName
from hrviewer.io.writers import Exportable, Options, Progress

__all__ = ["Settings", "why_not", "write"]


class Settings(Options):
    """What it shows, and how large it is."""

    map: MapName = Field("output", title="Map", description="Which of the run's maps")
    channel: int = Field(-1, ge=-1, title="Channel", description="-1 for all classes together")
    dpi: int = Field(200, ge=50, le=1200, title="dpi", description="Dots per inch")
    inches: float = Field(6.0, ge=2, le=40, title="Width", description="Inches")
    caption: str = Field("", title="Caption", description="What was run and what it cost, if empty")


def why_not(run: Exportable) -> str | None:
    """Return why no figure can be drawn."""
    try:
        need_plots()
    except UserError as error:
        return str(error)
    return None


def write(run: Exportable, target: Path, settings: Settings, progress: Progress) -> None:
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
    shown = look_at(run, settings.map, settings.channel, side)
    progress(1, 2)
    caption = captioned(run, settings.caption)
    draw(shown, caption, target, dpi=settings.dpi, inches=settings.inches)
    progress(2, 2)
