"""Commands ``view`` and ``info``: the window, and the properties of an image."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

import typer

from hrviewer.cli.common import (
    ChannelsOption,
    JsonOption,
    PixelSizeOption,
    PlaneOption,
    RangeOption,
    SeriesOption,
    TrustOption,
    app,
    command,
    image_options,
    open_model,
    print_json,
    print_rows,
)
from hrviewer.units import format_length

if TYPE_CHECKING:
    from hrviewer.models import ModelBundle
    from hrviewer.pyramid import Pyramid
    from hrviewer.pyramid.channels import ChannelInfo

__all__ = ["info", "open_napari", "view"]

NameOption = Annotated[str | None, typer.Option(help="As `run` takes it; chosen in the panel.")]


def print_version(wanted: bool) -> None:
    """Print the version and exit."""
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
    """Open napari with the panel."""
    open_viewer([], None, None)


@command(app)
def view(
    images: Annotated[list[str], typer.Argument(metavar="IMAGE...")],
    model: NameOption = None,
    trust: TrustOption = False,
    strategy: NameOption = None,
    live: Annotated[
        bool,
        typer.Option("--live", help="Run the model on the visible region as you pan and zoom."),
    ] = False,
    series: SeriesOption = None,
    plane: PlaneOption = None,
    channels: ChannelsOption = None,
    pixel_size: PixelSizeOption = None,
    value_range: RangeOption = None,
) -> None:
    """Open images in napari with the panel."""
    options = image_options(series, plane, channels, pixel_size, value_range)
    open_viewer(images, open_model(model, trust), strategy, live=live, options=options)


def open_viewer(
    images: list[str],
    model: str | ModelBundle | None,
    strategy: str | None,
    *,
    live: bool = False,
    options: Mapping[str, Any] | None = None,
) -> None:
    """Open a window and wait until it is closed; `options` apply to every image."""
    from hrviewer.pyramid import open_pyramid
    from hrviewer.viewer.view import view

    options = options or {}
    first: object = images[0] if images else None
    if images and options:
        first = open_pyramid(images[0], **options)
    window = view(first, model=model, strategy=strategy, live=live)
    # Heavy, and impossible without a display, which `view` checks.
    import napari
    from napari.layers import Layer

    from hrviewer.viewer.image.image_layer import image_layers_data

    for image in images[1:]:
        for data in image_layers_data(open_pyramid(image, **options)):
            window.viewer.add_layer(Layer.create(*data))
    napari.run()


@command(app)
def info(
    image: str,
    series: SeriesOption = None,
    plane: PlaneOption = None,
    channels: ChannelsOption = None,
    pixel_size: PixelSizeOption = None,
    value_range: RangeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show the properties of an image, and check that it can be read."""
    from hrviewer.pyramid import open_pyramid

    with open_pyramid(
        image, **image_options(series, plane, channels, pixel_size, value_range)
    ) as pyramid:
        pyramid.check()
        properties = describe_image(pyramid)
        pyramid_series = pyramid.series
        named = any(info.name for info in pyramid.available_channels) and not pyramid.is_rgb
        channel_info = pyramid.available_channels if named else ()
        axes = [f"{axis}: {size}" for axis, size in pyramid.plane_sizes.items() if size > 1]
    if as_json:
        print_json(properties)
        return
    (height, width), size = properties["shape"], properties["pixel_size"]
    levels = [
        f"{level['shape'][0]:,} × {level['shape'][1]:,}, 1/{level['downsample'][0]:.6g}, "
        f"tiles of {level['tile'][0]} × {level['tile'][1]}"
        for level in properties["levels"]
    ]
    print_rows(
        ("image", properties["path"] or properties["name"]),
        *(
            (("series", str(series)) for series in pyramid_series)
            if len(pyramid_series) > 1
            else ()
        ),
        ("size", f"{height:,} × {width:,} pixels (height × width), {height * width / 1e6:,.1f} MP"),
        ("pixels", f"{properties['channels']} × {properties['dtype']}"),
        *(("channel", format_channel(i, info)) for i, info in enumerate(channel_info)),
        *(("axis", axis) for axis in axes),
        ("values", "{low:g} to {high:g}, {source}".format(**properties["value_range"])),
        ("pixel size", "unknown" if size is None else " × ".join(map(format_length, size))),
        ("no data", format_nodata(properties)),
        *((f"level {i}", level) for i, level in enumerate(levels)),
        ("fingerprint", properties["fingerprint"]),
        *(("note", note) for note in properties["notes"]),
    )


def format_nodata(properties: Mapping[str, Any]) -> str:
    """Return which pixels have no data: those of a value, and those that are masked."""
    value = [] if properties["nodata"] is None else [str(properties["nodata"])]
    mask = ["where a mask, transparency or tiles that are not stored say so"]
    return ", and ".join([*value, *(mask if properties["mask"] else [])]) or "none"


def format_channel(index: int, info: ChannelInfo) -> str:
    """Return a channel's number, name, colour and display window."""
    window = "" if info.window is None else f"{info.window[0]:g} to {info.window[1]:g}"
    details = ", ".join(filter(None, [info.color and f"#{info.color}", window]))
    return f"{index} {info.name}" + (f" ({details})" if details else "")


def describe_image(pyramid: Pyramid) -> dict[str, Any]:
    """Return the properties of an image."""
    nodata = pyramid.nodata
    return {
        "path": pyramid.path,
        "name": pyramid.name,
        "series": [asdict(series) for series in pyramid.series],
        "selected_series": pyramid.selected_series,
        "shape": list(pyramid.plane_shape),
        "channels": pyramid.channels,
        "available_channels": [asdict(info) for info in pyramid.available_channels],
        "axes": pyramid.plane_sizes,
        "plane": pyramid.plane,
        "dtype": str(pyramid.dtype),
        "value_range": asdict(pyramid.value_range),
        "pixel_size": pyramid.pixel_size and list(pyramid.pixel_size),
        # JSON has no NaN.
        "nodata": str(nodata) if nodata != nodata else nodata,
        "mask": pyramid.has_mask,
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
