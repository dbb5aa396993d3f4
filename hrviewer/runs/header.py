"""The form of ``run.json``, which may come from anybody.

Only what is read is checked; further entries are kept as they are.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from hrviewer.errors import RunError, validation_error
from hrviewer.escaping import printable
from hrviewer.io.stored_map import read_limited_json

__all__ = ["FORMAT_VERSION", "read_header"]

FORMAT_VERSION = 1
"""Of run folders; raised when an older hrviewer could not read a new one, or the reverse."""

MAX_HEADER_BYTES = 16 << 20
"""Of ``run.json``; notes and prior maps' names are all that grows."""

Side = Annotated[int, Field(gt=0, lt=1 << 31)]
Pixel = Annotated[int, Field(gt=-(1 << 31), lt=1 << 31)]
Length = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Ends = tuple[float, float]
Amount = Annotated[float, Field(ge=0)]


class ImageHeader(BaseModel):
    """The image of a run."""

    path: str
    shape: tuple[Side, Side]
    pixel_size: tuple[Length, Length] | None
    fingerprint: str
    plane: dict[str, int] = {}
    channels: list[int] | None = None
    georeference: dict[str, Any] | None = None


class EstimateHeader(BaseModel):
    """The estimate of a run; see `hrviewer.runs.estimates.EstimateDict`."""

    kind: str
    value: float
    ci95: Ends | None = None
    ci95_truth: Ends | None = None
    per_class: dict[str, float] = {}
    per_class_ci95: dict[str, Ends] = {}
    area: float | None = None
    coverage: float | None = None
    map_sum: float | None = None
    per_mm2: float | None = None
    per_ha: float | None = None


class CostHeader(BaseModel):
    """The nominal cost of a run."""

    flops: Amount
    wall_s: Amount
    read_s: Amount
    prepare_s: Amount
    infer_s: Amount
    post_s: Amount
    bytes_read: Amount
    pixels_read: Amount


class PatchCounts(BaseModel):
    """The numbers of patches of a run."""

    planned: Annotated[int, Field(ge=0)]
    done: Annotated[int, Field(ge=0)]
    cached: Annotated[int, Field(ge=0)]
    failed: Annotated[int, Field(ge=0)]
    skipped: Annotated[int, Field(ge=0)] = 0


class RunHeader(BaseModel):
    """What every ``run.json`` has."""

    model_config = ConfigDict(extra="allow")
    image: ImageHeader
    region: tuple[Pixel, Pixel, Side, Side]
    model: str
    strategy: str
    params: dict[str, Any]
    seed: int
    budget: str | None = None
    started: str
    complete: bool
    incomplete: str | None = None
    estimate: EstimateHeader | None
    truth: dict[str, Any] | None
    notes: list[str]
    cost: CostHeader
    patches: PatchCounts


def read_header(path: Path) -> dict[str, Any]:
    """Return a run folder's ``run.json``.

    Raises
    ------
    HrviewerError
        If it is not a run folder, or one of another format version.
    """
    try:
        header = read_limited_json(path / "run.json", MAX_HEADER_BYTES)
        if "strategy" not in header:
            raise ValueError("it names no strategy")
    except FileNotFoundError:
        raise RunError(f"{path} is not a run folder: it has no run.json") from None
    except (OSError, ValueError) as error:
        raise RunError(f"{path} is not a readable run folder: {error}") from None
    version = header.get("format_version")
    if version != FORMAT_VERSION:
        raise RunError(
            f"{path} has the run format {version or 0}, and this hrviewer reads {FORMAT_VERSION}: "
            "run it again, or open it with the hrviewer that wrote it"
        )
    try:
        RunHeader.model_validate(header)
    except ValidationError as error:
        name = f"{path / 'run.json'} was not written by hrviewer"
        raise validation_error(error, name, kind=RunError) from None
    return {key: value if key == "image" else _printable(value) for key, value in header.items()}


def _printable(value: Any) -> Any:
    """Return JSON with the control characters of its texts escaped."""
    if isinstance(value, str):
        return printable(value)
    if isinstance(value, list):
        return [_printable(item) for item in value]
    if isinstance(value, dict):
        return {printable(key): _printable(item) for key, item in value.items()}
    return value
