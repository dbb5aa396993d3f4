"""Commands ``export``, ``import``, ``convert`` and ``sample``: runs and images as files."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from hrviewer.cli.common import (
    ChannelsOption,
    PixelSizeOption,
    PlaneOption,
    RangeOption,
    SeriesOption,
    app,
    check_settings,
    command,
    image_options,
    print_message,
    print_path,
)
from hrviewer.io import writer_names

if TYPE_CHECKING:
    from hrviewer.io.exportable import ProgressCallback

__all__ = ["convert", "export", "import_", "sample"]


@command(app)
def export(
    run: Annotated[Path, typer.Argument(metavar="RUN.run.zarr")],
    out: Annotated[Path, typer.Option("--out", "-o", help="New file; it must not exist.")],
    to: Annotated[
        str | None,
        typer.Option(help=f"Format: {', '.join(writer_names())}; by the file's suffix otherwise."),
    ] = None,
    options: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="KEY=VALUE",
            help="An option of the format; may be repeated.",
            callback=check_settings,
        ),
    ] = None,
    anonymous: Annotated[
        bool, typer.Option("--anonymous", help="Leave out the paths and names of files.")
    ] = False,
) -> None:
    """Export a run to another format: maps, outlines, tables, figures."""
    from hrviewer.io import export
    from hrviewer.runs import Run

    settings: dict[str, Any] = dict(item.split("=", 1) for item in options or [])
    if anonymous:
        settings["anonymous"] = True
    with writing_progress() as progress:
        print_path(export(Run(run), out, to, progress, **settings))


@command(app, "import")
def import_(
    file: Annotated[Path, typer.Argument(help="CSV of WSInfer, or HDF5 of TRIDENT or CLAM.")],
    image: Annotated[str, typer.Argument(help="Image that the file belongs to.")],
    out: Annotated[Path, typer.Argument(metavar="OUT.run.zarr")],
) -> None:
    """Import the patches of another tool as a run, for comparison."""
    from hrviewer.runs.importers import import_run

    print_path(import_run(file, image, out).path)


def check_version(text: str) -> str:
    """Check that a version is one of OME-Zarr's."""
    if text not in ("0.5", "0.4"):
        raise typer.BadParameter(f"{text!r} is neither 0.5 nor 0.4")
    return text


@command(app)
def convert(
    image: str,
    out: Annotated[Path, typer.Argument(metavar="OUT.ome.zarr")],
    version: Annotated[
        str,
        typer.Option(
            help="OME-Zarr version: 0.5, or 0.4 for readers of zarr 2.", callback=check_version
        ),
    ] = "0.5",
    series: SeriesOption = None,
    plane: PlaneOption = None,
    channels: ChannelsOption = None,
    pixel_size: PixelSizeOption = None,
    value_range: RangeOption = None,
) -> None:
    """Convert an image to OME-Zarr, with all planes unless one is given; resumes if interrupted."""
    from hrviewer.io.image_plan import describe_losses
    from hrviewer.io.image_writer import write_image
    from hrviewer.pyramid import open_pyramid

    options = image_options(series, plane, channels, pixel_size, value_range)
    with open_pyramid(image, **options) as pyramid, writing_progress() as progress:
        every = not plane
        written = write_image(
            pyramid,
            out,
            progress,
            version=version,  # type: ignore[arg-type]
            all_planes=every,
        )
        print_path(written)
        for line in describe_losses(pyramid, all_planes=every):
            print_message(f"note: {line}")


@command(app)
def sample(
    name: Annotated[str, typer.Argument(help="Kind of synthetic image, as crowd.")],
    out: Annotated[Path, typer.Argument(metavar="OUT.ome.zarr")],
    size: Annotated[int, typer.Option(help="Side in pixels.")] = 32768,
    seed: Annotated[int, typer.Option(help="Random seed.")] = 0,
    labels: Annotated[
        bool, typer.Option("--labels", help="Include a label map of the objects.")
    ] = False,
) -> None:
    """Write a synthetic image as sharded OME-Zarr, and its ground truth as CSV."""
    from hrviewer.io.image_writer import write_synthetic_image
    from hrviewer.pyramid import open_pyramid

    with (
        open_pyramid(f"sample:{name}?size={size}&seed={seed}") as pyramid,
        writing_progress() as progress,
    ):
        for path in write_synthetic_image(pyramid, out, progress, labels=labels):
            print_path(path)


@contextmanager
def writing_progress() -> Iterator[ProgressCallback | None]:
    """Show a progress bar for written files on a terminal."""
    if sys.stderr is None or not sys.stderr.isatty():
        yield None
        return
    from rich.console import Console
    from rich.progress import BarColumn, TaskProgressColumn, TextColumn, TimeRemainingColumn
    from rich.progress import Progress as Bar

    columns = TextColumn("writing"), BarColumn(), TaskProgressColumn(), TimeRemainingColumn()
    with Bar(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("", total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)
