"""Files beside a TIFF in which GDAL keeps overviews (``.ovr``) and masks (``.msk``)."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hrviewer.pyramid.readers.tiff_channels import is_mask, mask_pages

__all__ = ["SideFiles", "open_side_files"]


@dataclass
class SideFiles:
    """Pages of the files beside a TIFF, which are open while its levels are listed.

    Attributes
    ----------
    paths : list of Path
        The files that are there.
    overviews : list
        tifffile's pages of coarse levels, the finest first.
    masks : dict
        tifffile's pages of masks, by height and width.
    """

    paths: list[Path] = field(default_factory=list)
    overviews: list[Any] = field(default_factory=list)
    masks: dict[tuple[int, int], Any] = field(default_factory=dict)


@contextmanager
def open_side_files(path: str) -> Iterator[SideFiles]:
    """Open the files beside a local TIFF; one that is no TIFF is left out."""
    import tifffile

    found = SideFiles()
    with ExitStack() as stack:
        for suffix in (".ovr", ".msk", ".msk.ovr"):
            beside = Path(path + suffix)
            if not beside.is_file():
                continue
            with suppress(tifffile.TiffFileError, OSError, ValueError):
                tiff = stack.enter_context(tifffile.TiffFile(beside))
                found.paths.append(beside)
                if suffix == ".ovr":
                    found.overviews += [page for page in tiff.pages if not is_mask(page)]
                    found.masks |= mask_pages(tiff)
                else:
                    found.masks |= mask_pages(tiff, every=True)
        found.overviews.sort(key=lambda page: -page.imagelength)
        yield found
