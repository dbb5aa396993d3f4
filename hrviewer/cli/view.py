"""Looking at images: the window, and what an image is."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, Annotated, Any

import typer

from hrviewer.cli.common import JsonOption, app, command, print_json, print_rows
from hrviewer.errors import HrviewerError

if TYPE_CHECKING:
    from hrviewer.pyramid import Pyramid

__all__ = ["info", "open_napari", "view"]

NameOption = Annotated[str | None, typer.Option(help="As `run` takes it; chosen in the panel.")]


def print_version(wanted: bool) -> None:
    """Print the version and end."""
    if wanted:
        from hrviewer import __version__

        typer.echo(__version__)
        raise typer.Exit


@command(app, "")
def open_napari(
    version: Annotated[
        bool,
        typer.Option("--version", callback=print_version, is_eager=True, help="Print the version."),
    ] = False,
) -> None:
    """Open napari."""
    open_viewer([], None, None)


@command(app)
def view(
    images: Annotated[list[str], typer.Argument(metavar="IMAGE...")],
    model: NameOption = None,
    strategy: NameOption = None,
    live: Annotated[bool, typer.Option("--live", help="Look at what is visible.")] = False,
) -> None:
    """Open images in napari, with the panel docked."""
    open_viewer(images, model, strategy, live=live)


def open_viewer(
    images: list[str], model: str | None, strategy: str | None, *, live: bool = False
) -> None:
    """Open a window and wait until it is closed."""
    try:
        import qtpy.QtWidgets  # noqa: F401
    except ImportError as error:  # qtpy's own errors are import errors, too
        raise HrviewerError(
            f"no Qt binding can be used ({type(error).__name__}): pip install 'hrviewer[qt]'"
        ) from None
    shown = ("DISPLAY", "WAYLAND_DISPLAY", "QT_QPA_PLATFORM")
    if sys.platform == "linux" and not any(map(os.environ.get, shown)):
        raise HrviewerError(
            "there is no display (DISPLAY is not set): open a desktop session or use xvfb-run; "
            "`hrviewer run` needs none"
        )
    import napari
    from napari.layers import Layer

    from hrviewer.pyramid import open_pyramid
    from hrviewer.viewer.image.image_layer import image_layer_data
    from hrviewer.viewer.view import view

    opened = view(images[0] if images else None, model=model, strategy=strategy, live=live)
    for image in images[1:]:
        opened.viewer.add_layer(Layer.create(*image_layer_data(open_pyramid(image))))
    napari.run()


@command(app)
def info(image: str, as_json: JsonOption = False) -> None:
    """Say what an image is, and whether it can be read."""
    from hrviewer.pyramid import open_pyramid

    with open_pyramid(image) as pyramid:
        pyramid.check()
        found = describe_image(pyramid)
    if as_json:
        print_json(found)
        return
    (height, width), size = found["shape"], found["pixel_size"]
    levels = [
        f"{level['shape'][0]} × {level['shape'][1]}, 1/{level['downsample'][0]:.6g}, "
        f"tiles of {level['tile'][0]} × {level['tile'][1]}"
        for level in found["levels"]
    ]
    print_rows(
        ("image", found["path"] or found["name"]),
        ("size", f"{height} × {width} pixels (height × width), {height * width / 1e6:,.1f} MP"),
        ("pixels", f"{found['channels']} × {found['dtype']}"),
        ("pixel size", "unknown" if size is None else f"{size[0]:.4g} × {size[1]:.4g} µm"),
        ("no data", "none" if found["nodata"] is None else f"{found['nodata']}"),
        *((f"level {i}", level) for i, level in enumerate(levels)),
        ("fingerprint", found["fingerprint"]),
        *(("note", note) for note in found["notes"]),
    )


def describe_image(pyramid: Pyramid) -> dict[str, Any]:
    """Return what `info` says of an image."""
    nodata = pyramid.nodata
    return {
        "path": pyramid.path,
        "name": pyramid.name,
        "shape": list(pyramid.plane_shape),
        "channels": pyramid.channels,
        "dtype": str(pyramid.dtype),
        "pixel_size": pyramid.pixel_size and list(pyramid.pixel_size),
        # NaN is no JSON.
        "nodata": str(nodata) if nodata != nodata else nodata,
        "levels": [
            {
                "shape": list(level.shape[:2]),
                "downsample": list(level.downsample),
                "tile": list(level.tile),
            }
            for level in pyramid.levels
        ],
        "fingerprint": pyramid.fingerprint,
        "notes": pyramid.notes,
    }
