"""HTML: a run's report, in one file that needs no other."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pydantic import Field

from hrviewer.errors import HrviewerError
from hrviewer.io.figures.html_report import CaptionedImage, render_page
from hrviewer.io.figures.overlay_figure import draw_figure, load_figure_data
from hrviewer.io.run_maps import open_maps
from hrviewer.io.writers import Exportable, ProgressCallback, WriterSettings
from hrviewer.io.writers.png import unsupported_reason

__all__ = ["HtmlSettings", "unsupported_reason", "write"]

MAP_TITLES = {
    "output": "what the network said",
    "saliency": "what seemed worth a look",
    "cost": "where the FLOPs went",
}
STAGES = ("read", "prepare", "infer", "post")


class HtmlSettings(WriterSettings):
    """How fine the pictures are."""

    dpi: int = Field(130, ge=50, le=600, title="dpi", description="Of the pictures")


def write(
    run: Exportable, target: Path, settings: HtmlSettings, progress: ProgressCallback
) -> None:
    """Write a page: the answer and its interval, the cost, pictures, parameters and versions.

    Parameters
    ----------
    run : Exportable
        What to tell of.
    target : Path
        The file.
    settings : Settings
        How fine the pictures are.
    progress : callable
        Told how many pictures are drawn.

    Raises
    ------
    UserError
        If the run holds no map.
    """
    import pandas as pd

    header = run.header
    maps = [shown for shown in open_maps(run) if shown.name in MAP_TITLES]
    pictures: list[CaptionedImage] = []
    for i, shown in enumerate(maps):
        with tempfile.NamedTemporaryFile(suffix=".png", dir=target.parent) as file:
            draw_figure(
                load_figure_data(run, shown.name, -1, 800),
                "",
                Path(file.name),
                dpi=settings.dpi,
                inches=6,
            )
            pictures.append((MAP_TITLES[shown.name], Path(file.name).read_bytes()))
        progress(i + 1, len(maps))
    title = f"{Path(header['image']['path']).name}: {header['model']}, {header['strategy']}"
    table = pd.DataFrame(cost_rows(header), columns=["cost", "amount", "unit"])
    target.write_text(
        render_page(
            title,
            list(describe_run(header)),
            table,
            [],
            [("Maps", "", pictures)],
            header.get("notes", ()),
        ),
        "utf-8",
    )


def describe_run(header: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield names and words of what was run, what it said, and what may have mattered."""
    image = header["image"]
    size = image["pixel_size"]
    yield "image", image["path"]
    yield (
        "size",
        " × ".join(f"{side:,}" for side in image["shape"])
        + " pixels"
        + (f" of {size[0]:g} × {size[1]:g} µm" if size else ""),
    )
    yield "network", header["model"]
    yield "strategy", header["strategy"]
    yield "parameters", json.dumps(header["params"]) if header["params"] else "defaults"
    if header.get("budget"):
        yield "budget", header["budget"]
    yield from describe_estimate(header.get("estimate"))
    if header.get("truth"):
        yield "truth", json.dumps(header["truth"], ensure_ascii=False)
    if not header["complete"]:
        yield "state", "unfinished: this is as far as it came"
    for key in ("seed", "device", "started", "fingerprint"):
        known = image.get(key, header.get(key))
        if known is not None:
            yield key, str(known)
    yield from header.get("versions", {}).items()


def describe_estimate(estimate: dict[str, Any] | None) -> Iterator[tuple[str, str]]:
    """Yield the answer, class by class, and its interval."""
    if not estimate:
        yield "answer", "none"
        return
    yield "answer", f"{estimate['kind']} {estimate['value']:,.6g}"
    for name, value in estimate["per_class"].items():
        yield name, f"{value:,.6g}"
    if estimate.get("ci95"):
        low, high = estimate["ci95"]
        yield "95 % interval", f"{low:,.6g} – {high:,.6g}"
    if "per_mm2" in estimate:
        yield "per mm²", f"{estimate['per_mm2']:,.6g}"


def cost_rows(header: dict[str, Any]) -> list[tuple[str, float, str]]:
    """Return what was spent."""
    cost = header.get("cost")
    if not cost:
        raise HrviewerError("this run tells no cost: resume it first")
    rows = [("FLOPs", float(cost["flops"]), "FLOP"), ("time", float(cost["wall_s"]), "s")]
    rows += [(f"  {stage}", float(cost[f"{stage}_s"]), "s") for stage in STAGES]
    rows += [
        ("read", float(cost["bytes_read"]), "byte"),
        ("pixels read", float(cost["pixels_read"]), "px"),
    ]
    done = header.get("patches", {})
    return rows + [(f"patches {k}", float(v), "") for k, v in done.items()]
