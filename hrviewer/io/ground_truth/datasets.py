"""Datasets: folders of images with ground truth."""

from __future__ import annotations

from pathlib import Path

from hrviewer.errors import GroundTruthError
from hrviewer.io.ground_truth import READERS

__all__ = ["IMAGE_SUFFIXES", "find_ground_truth", "is_image_file", "pair_images"]

IMAGE_SUFFIXES = (
    ".bmp", ".jpeg", ".jpg", ".mrxs", ".ndpi", ".png", ".scn", ".svs", ".tif", ".tiff", ".webp",
    ".zarr",
)  # fmt: skip


def is_image_file(path: Path) -> bool:
    """Return whether a file is named like an image, not like its labels or a run."""
    name = path.name.lower()
    if name.startswith(".") or name.endswith(".run.zarr") or ".labels." in name:
        return False
    return name.endswith(IMAGE_SUFFIXES)


def list_images(folder: Path) -> list[Path]:
    """Return the images in a folder in alphabetical order.

    Raises
    ------
    HrviewerError
        If the folder has none.
    """
    images = [entry for entry in sorted(folder.iterdir()) if is_image_file(entry)]
    if not images:
        raise GroundTruthError(f"there is no image in {folder}: choose another folder")
    return images


def pair_images(folder: Path) -> list[tuple[Path, Path]]:
    """Return every image of a folder with its file of ground truth.

    Layouts: ShanghaiTech's (``images/IMG_1.jpg`` and ``ground-truth/GT_IMG_1.mat``), a file of the
    same name next to each image (``a.jpg`` and ``a.csv``, ``a.labels.tif``, …), or a common file.

    Raises
    ------
    HrviewerError
        If the folder is missing, has no image, or an image has no ground truth.
    """
    if not folder.is_dir():
        raise GroundTruthError(f"there is no folder {folder}: check the path")
    inner = folder / "images"
    images = list_images(inner if inner.is_dir() else folder)
    by_name = list_ground_truth(folder)
    files = list(by_name.values())
    common = files[0] if len(files) == 1 else None
    pairs = []
    for image in images:
        file = by_name.get(image.stem) or common
        if file is None:
            raise GroundTruthError(
                f"{image.name} has no ground truth: add ground-truth/GT_{image.stem}.mat, "
                f"{image.stem}.csv or another file that --truth reads to {folder}"
            )
        pairs.append((image, file))
    return pairs


def list_ground_truth(folder: Path) -> dict[str, Path]:
    """Return the files of ground truth in a folder by image name."""
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
    """Return the file of ground truth of an image.

    Raises
    ------
    HrviewerError
        If no file has the image's name.
    """
    name = Path(image).stem
    file = list_ground_truth(folder).get(name)
    if file is None:
        raise GroundTruthError(
            f"{folder} has no ground truth of {Path(image).name}: add GT_{name}.mat, {name}.csv or "
            "another file that --truth reads"
        )
    return file


def image_stem(path: Path) -> str:
    """Return the name of the image that a file of ground truth belongs to."""
    return path.stem.removeprefix("GT_").removesuffix(".labels").removesuffix(".truth")
