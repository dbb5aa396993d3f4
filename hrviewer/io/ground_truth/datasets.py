"""Folders of images and their truth."""

from __future__ import annotations

from pathlib import Path

from hrviewer.errors import HrviewerError
from hrviewer.io.ground_truth import READERS

__all__ = ["IMAGE_SUFFIXES", "find_ground_truth", "is_image_file", "pair_images"]

IMAGE_SUFFIXES = (
    ".bmp", ".jpeg", ".jpg", ".mrxs", ".ndpi", ".png", ".scn", ".svs", ".tif", ".tiff", ".webp",
    ".zarr",
)  # fmt: skip


def is_image_file(path: Path) -> bool:
    """Whether a file's name is that of an image, and not of its labels or of a run."""
    name = path.name.lower()
    if name.startswith(".") or name.endswith(".run.zarr") or ".labels." in name:
        return False
    return name.endswith(IMAGE_SUFFIXES)


def list_images(folder: Path) -> list[Path]:
    """Return a folder's images in alphabetical order.

    Raises
    ------
    UserError
        If there is none.
    """
    found = [entry for entry in sorted(folder.iterdir()) if is_image_file(entry)]
    if not found:
        raise HrviewerError(f"there is no image in {folder}")
    return found


def pair_images(folder: Path) -> list[tuple[Path, Path]]:
    """Return every image of a folder with the file that holds its truth.

    ShanghaiTech's layout (``images/IMG_1.jpg`` and ``ground-truth/GT_IMG_1.mat``); or beside each
    image a file of its name (``a.jpg`` and ``a.csv``, ``a.labels.tif``, …); or one file for all.

    Raises
    ------
    UserError
        If there is no folder, no image, or an image without truth.
    """
    if not folder.is_dir():
        raise HrviewerError(f"there is no folder {folder}")
    inner = folder / "images"
    found = list_images(inner if inner.is_dir() else folder)
    by_name = list_ground_truth(folder)
    files = list(by_name.values())
    common = files[0] if len(files) == 1 else None
    told = []
    for image in found:
        truth = by_name.get(image.stem) or common
        if truth is None:
            raise HrviewerError(
                f"{image.name} has no truth: neither ground-truth/GT_{image.stem}.mat nor "
                f"{image.stem}.csv or another file that --truth reads is in {folder}"
            )
        told.append((image, truth))
    return told


def list_ground_truth(folder: Path) -> dict[str, Path]:
    """Return a folder's files of truth by the name of the image that each belongs to."""
    places = [
        place
        for name in ("ground-truth", "ground_truth", "truth", "labels", "annotations", ".")
        if (place := folder / name).is_dir()
    ]
    files = [
        entry
        for place in places
        for entry in sorted(place.iterdir())
        if entry.suffix.lower() in READERS and (not is_image_file(entry) or place != folder)
    ]
    return {image_stem(entry): entry for entry in reversed(files)}


def find_ground_truth(folder: Path, image: str) -> Path:
    """Return the file in a folder that holds an image's truth.

    Raises
    ------
    UserError
        If none has its name.
    """
    name = Path(image).stem
    found = list_ground_truth(folder).get(name)
    if found is None:
        raise HrviewerError(
            f"{folder} holds no truth of {Path(image).name}: neither GT_{name}.mat nor {name}.csv "
            "or another file that --truth reads"
        )
    return found


def image_stem(path: Path) -> str:
    """Return the name of the image that a file of truth belongs to."""
    return path.stem.removeprefix("GT_").removesuffix(".labels").removesuffix(".truth")
