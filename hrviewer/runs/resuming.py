"""Whether a run folder can be resumed, with the settings that its run had."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hrviewer.claims import require_unclaimed
from hrviewer.engine import LoadedModels
from hrviewer.errors import RunError
from hrviewer.paths import is_vacant
from hrviewer.runs.header import read_header

__all__ = ["check_matches", "existing_header"]

IMAGE_ENTRIES = {
    "image": "fingerprint",
    "series": "series",
    "plane": "plane",
    "channels": "channels",
    "value range": "value_range",
    "pixel size": "pixel_size",
}
"""Entries of a header's image that a resumed run must share."""

RUN_ENTRIES = {
    "region": "region",
    "regions or tissue": "parts",
    "strategy": "strategy",
    "parameters": "params",
    "seed": "seed",
    "prior": "priors",
    "budget": "budget",
}
"""Entries of a header that a resumed run must share."""


def existing_header(path: Path, resume: bool) -> dict[str, Any] | None:
    """Return the header of the run in a folder; None where a new run may begin.

    Raises
    ------
    RunError
        If the folder does not fit `resume`, or is no run folder.
    """
    if not path.name.endswith(".run.zarr"):
        raise RunError(f"a run folder is named NAME.run.zarr, not {path.name!r}")
    if is_vacant(path):
        if resume and not path.exists():
            raise RunError(f"there is no run to resume in {path}; run without --resume")
        if resume and not any(path.iterdir()):  # a run that was killed at once left its claim
            raise RunError(f"{path} is not a run folder; choose another --out")
        return None
    if not resume:
        require_unclaimed(path)
        raise RunError(f"{path} exists: resume it with --resume, or choose another --out")
    if not (path / "run.json").exists() and not (path / "journal").exists():
        raise RunError(f"{path} is not a run folder; choose another --out")
    if not (path / "run.json").exists():
        return None
    return read_header(path)


def check_matches(
    header: Mapping[str, Any],
    identity: Mapping[str, Any],
    models: LoadedModels,
    engine: Mapping[str, Any] | None,
    path: Path,
) -> None:
    """Refuse to resume with another image, model, strategy or device than the run's own.

    Parameters
    ----------
    header : mapping
        The header of the run that is resumed.
    identity : mapping
        The entries that identify the run now.
    models : LoadedModels
        The networks.
    engine : mapping, optional
        The settings of the engine now.
    path : Path
        The run folder.

    Raises
    ------
    RunError
        If they differ.
    """
    was, now = header["image"], identity["image"]
    checks = {name: (was.get(entry), now[entry]) for name, entry in IMAGE_ENTRIES.items()}
    for name, entry in RUN_ENTRIES.items():
        absent: dict[str, Any] | None = {} if entry in ("parts", "priors") else None
        checks[name] = header.get(entry, absent), identity[entry]
    # The header names the roles used so far: a strategy may never have requested `main`.
    for role, digest in header["networks"].items():
        checks[f"model as {role}"] = digest, models[role].digest if role in models else None
    if engine is not None:
        checks["engine"] = header["engine"], engine
    for name, (earlier, current) in checks.items():
        if earlier != current:
            raise RunError(
                f"{path} was started with another {name} ({earlier}, now {current}): choose "
                "another --out for a new run"
            )
