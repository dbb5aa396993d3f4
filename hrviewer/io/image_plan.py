"""Plan of an image to write: shape, planes, pixels and OME metadata."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import product
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hrviewer.geometry import Rect
from hrviewer.io.ome_metadata import CHANNEL_COLORS, multiscales
from hrviewer.pyramid import Pyramid, open_plane
from hrviewer.pyramid.channels import NAMED_COLORS, ChannelInfo
from hrviewer.pyramid.overviews import halve
from hrviewer.pyramid.readers.omezarr_series import MASK_PATH
from hrviewer.pyramid.tile_cache import DecodedTile

__all__ = [
    "ImagePlan",
    "Pixels",
    "describe_losses",
    "image_metadata",
    "plan_image",
    "plan_mask",
]

COARSEST = 512
"""Maximum number of pixels along the longer side of the coarsest level."""

LABELS_METHODS = {
    "nearest": "each level is every second pixel of the finer one",
    "minimum": "each level is the minimum of 2 x 2 pixels of the finer one",
}

PLANE_AXES = "tz"
"""Axes besides c, y and x that OME-Zarr has."""

Pixels = NDArray[Any]
Plane = Mapping[str, int]


@dataclass(frozen=True, slots=True)
class ImagePlan:
    """Image to write.

    Parameters
    ----------
    name : str
        Name in the metadata.
    shape : tuple of int
        ``(channels, height, width)``.
    dtype : numpy.dtype
        Pixel type.
    pixel_size : tuple of float, optional
        µm, ``(y, x)``.
    read : callable
        Returns ``(c, h, w)`` of a rectangle of the finest level, in a plane.
    downsample : callable
        Halves ``(h, w, c)``, given where it has data, ``(h, w)``, or None for everywhere.
    labels : str
        How labels are halved, as OME-Zarr's ``type``; empty for an image.
    plane_sizes : mapping
        Length of the axes t and z, where they are written.
    plane_steps : mapping
        µm between planes in z, seconds between those in t, where known.
    default_plane : mapping
        The plane to display first.
    channels : tuple of ChannelInfo
        Name, colour and window of each channel.
    value_range : tuple of float
        Window of channels without their own.
    attributes : dict
        Under the key ``hrviewer``: what OME-Zarr has no place for.
    """

    name: str
    shape: tuple[int, int, int]
    dtype: np.dtype[Any]
    pixel_size: tuple[float, float] | None
    read: Callable[[Rect, Plane], Pixels]
    downsample: Callable[[Pixels, Pixels | None], Pixels]
    labels: str = ""
    plane_sizes: Mapping[str, int] = field(default_factory=dict)
    plane_steps: Mapping[str, float] = field(default_factory=dict)
    default_plane: Plane = field(default_factory=dict)
    channels: tuple[ChannelInfo, ...] = ()
    value_range: tuple[float, float] = (0.0, 255.0)
    attributes: dict[str, Any] = field(default_factory=dict)

    @property
    def axes(self) -> str:
        """The axes of the arrays, in their order."""
        return "".join(axis for axis in "tczyx" if axis in "cyx" or axis in self.plane_sizes)

    def levels(self) -> list[tuple[int, int]]:
        """Return the height and width of each level."""
        sides = [self.shape[1:]]
        while max(sides[-1]) > COARSEST:
            h, w = sides[-1]
            sides.append((-(-h // 2), -(-w // 2)))
        return sides

    def planes(self) -> Iterator[dict[str, int]]:
        """Yield the index of each plane."""
        for at in product(*map(range, self.plane_sizes.values())):
            yield dict(zip(self.plane_sizes, at, strict=True))

    def index(self, rect: Rect, plane: Plane) -> tuple[int | slice, ...]:
        """Return the index of a rectangle of a plane in an array."""
        at: dict[str, int | slice] = {
            "c": slice(None), "y": slice(rect.y, rect.y1), "x": slice(rect.x, rect.x1), **plane
        }  # fmt: skip
        return tuple(at[axis] for axis in self.axes)


class PlaneReader:
    """Reads the planes of a file, of which one is open at a time."""

    def __init__(self, pyramid: Pyramid) -> None:
        self._given = self._open = pyramid

    def __call__(self, rect: Rect, plane: Plane) -> Pixels:
        """Return ``(c, h, w)`` of a rectangle of a plane."""
        return self.read(rect, plane).pixels.transpose(2, 0, 1)

    def read_mask(self, rect: Rect, plane: Plane) -> Pixels:
        """Return ``(1, h, w)`` of a rectangle of a plane, 1 where there are no data."""
        valid = self.read(rect, plane).valid
        if valid is None:
            return np.zeros((1, rect.h, rect.w), np.uint8)
        return np.asarray(~valid[None], np.uint8)

    def read(self, rect: Rect, plane: Plane) -> DecodedTile:
        """Return a rectangle of a plane."""
        wanted = {**self._given.plane, **plane}
        if wanted != self._open.plane:
            self.close()
            if wanted != self._given.plane:
                self._open = open_plane(self._given, wanted)
        return self._open.levels[0].read_as_tile(rect.y, rect.y1, rect.x, rect.x1)

    def close(self) -> None:
        """Close the plane that was opened here."""
        if self._open is not self._given:
            self._open.close()
        self._open = self._given


def plan_image(pyramid: Pyramid, *, all_planes: bool = False, with_mask: bool = False) -> ImagePlan:
    """Plan a copy of a pyramid.

    Parameters
    ----------
    pyramid : Pyramid
        The image.
    all_planes : bool
        Whether all planes along t and z are written, not only the one that is open.
    with_mask : bool
        Whether the mask of `plan_mask` is written as well.
    """
    level = pyramid.levels[0]

    def downsample(pixels: Pixels, valid: Pixels | None) -> Pixels:
        return halve(level, DecodedTile(pixels, 0, valid=valid))[0]

    attributes: dict[str, Any] = {}
    if level.nodata is not None:
        attributes["nodata"] = level.nodata
    if pyramid.georeference is not None:
        attributes["georeference"] = pyramid.georeference.to_record()
    if pyramid.given_range is not None:
        attributes["value_range"] = pyramid.given_range
    if pyramid.has_mask and with_mask:
        attributes["mask"] = MASK_PATH
    named = pyramid.is_rgb or any(info != ChannelInfo() for info in pyramid.channel_info)
    return ImagePlan(
        pyramid.name,
        (pyramid.channels, *pyramid.plane_shape),
        pyramid.dtype,
        pyramid.pixel_size,
        PlaneReader(pyramid),
        downsample,
        plane_sizes=written_planes(pyramid, all_planes),
        plane_steps=pyramid.plane_steps,
        default_plane=pyramid.plane,
        channels=pyramid.channel_info if named or pyramid.channels > 1 else (),
        value_range=pyramid.value_range.ends,
        attributes=attributes,
    )


def plan_mask(pyramid: Pyramid, *, all_planes: bool = False) -> ImagePlan | None:
    """Plan the mask of a copy of a pyramid, as labels; None for an image without one.

    Its pixels are 1 where there are no data, on coarse levels only where none of their pixels has.
    """
    if not pyramid.has_mask:
        return None
    return ImagePlan(
        MASK_PATH.rpartition("/")[2],
        (1, *pyramid.plane_shape),
        np.dtype(np.uint8),
        pyramid.pixel_size,
        PlaneReader(pyramid).read_mask,
        lambda pixels, _: halve_mask(pixels),
        labels="minimum",
        plane_sizes=written_planes(pyramid, all_planes),
        plane_steps=pyramid.plane_steps,
    )


def halve_mask(pixels: Pixels) -> Pixels:
    """Return the minima of 2 × 2 pixels ``(h, w, c)``; odd borders count their own pixels only."""
    h, w, _ = pixels.shape
    wide = np.pad(pixels, ((0, h % 2), (0, w % 2), (0, 0)), "edge")
    parts = [wide[y::2, x::2] for y in (0, 1) for x in (0, 1)]
    return np.asarray(np.minimum.reduce(parts))


def written_planes(pyramid: Pyramid, all_planes: bool) -> dict[str, int]:
    """Return the length of the axes t and z that a copy has."""
    if not writes_all(pyramid, all_planes):
        return {}
    sizes = {axis: pyramid.plane_sizes.get(axis, 1) for axis in PLANE_AXES}
    return {axis: size for axis, size in sizes.items() if size > 1}


def writes_all(pyramid: Pyramid, all_planes: bool) -> bool:
    """Whether all planes of an image are written: those of a file can be opened."""
    return all_planes and pyramid.path is not None


def describe_losses(pyramid: Pyramid, *, all_planes: bool = False) -> list[str]:
    """Return what a copy of a pyramid does not keep, one line each."""
    kept = PLANE_AXES if writes_all(pyramid, all_planes) else ""
    lost = [
        f"only the plane {axis}={pyramid.plane[axis]} of {size} is written"
        for axis, size in pyramid.plane_sizes.items()
        if size > 1 and axis not in kept
    ]
    count = len(pyramid.available_channels)
    if pyramid.channels < count:
        names = [info.name or str(i) for i, info in enumerate(pyramid.available_channels)]
        selected = pyramid.selected_channels or tuple(range(pyramid.channels))
        left = [name for i, name in enumerate(names) if i not in selected]
        if left == ["alpha"] and pyramid.has_mask:
            lost.append("transparency is written as a mask: no data where it is complete")
        else:
            lost.append(
                f"{pyramid.channels} of {count} channels are written, without {', '.join(left)}"
            )
    return lost


def image_metadata(plan: ImagePlan, levels: int) -> dict[str, Any]:
    """Return the OME metadata of an image."""
    ome = multiscales(
        plan.name,
        1,
        plan.pixel_size,
        levels=[str(i) for i in range(levels)],
        description="each level is the mean of 2 x 2 pixels of the finer one",
    )
    _add_planes(ome["multiscales"][0], plan)
    if plan.labels:
        ome["multiscales"][0] |= {
            "type": plan.labels,
            "metadata": {"description": LABELS_METHODS[plan.labels]},
        }
        ome["image-label"] = {"version": "0.5", "source": {"image": "../../"}}
        return ome
    if plan.channels:
        ome["omero"] = {"channels": [_omero_channel(plan, i) for i in range(plan.shape[0])]}
        if plan.plane_sizes:
            defaults = {f"default{a.upper()}": plan.default_plane.get(a, 0) for a in PLANE_AXES}
            ome["omero"]["rdefs"] = {**defaults, "model": "color"}
    return ome


def _omero_channel(plan: ImagePlan, index: int) -> dict[str, Any]:
    info = plan.channels[index]
    low, high = plan.value_range
    start, end = info.window or plan.value_range
    return {
        "label": info.name or f"channel {index}",
        "color": info.color
        or NAMED_COLORS.get(info.name.lower())
        or CHANNEL_COLORS[index % len(CHANNEL_COLORS)],
        "active": True,
        "window": {"min": low, "max": high, "start": start, "end": end},
    }


def _add_planes(image: dict[str, Any], plan: ImagePlan) -> None:
    """Add the axes t and z to the metadata of an image with the axes c, y and x."""
    if not plan.plane_sizes:
        return
    axes = {entry["name"]: entry for entry in image["axes"]}
    units = {"z": ("space", "micrometer"), "t": ("time", "second")}
    for axis in plan.plane_sizes:
        kind, unit = units[axis]
        unit_entry = {"unit": unit} if axis in plan.plane_steps else {}
        axes[axis] = {"name": axis, "type": kind, **unit_entry}
    image["axes"] = [axes[axis] for axis in plan.axes]
    for dataset in image["datasets"]:
        for change in dataset["coordinateTransformations"]:
            values = dict(zip("cyx", change[change["type"]], strict=True))
            for axis in plan.plane_sizes:
                scale = plan.plane_steps.get(axis, 1.0)
                values[axis] = scale if change["type"] == "scale" else 0.0
            change[change["type"]] = [values[axis] for axis in plan.axes]
