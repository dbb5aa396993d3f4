"""HTML: a self-contained report of a run."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

from pydantic import Field

from hrviewer.errors import RunError
from hrviewer.formatting import format_estimate, format_evaluation
from hrviewer.io.exportable import Exportable, ProgressCallback, WriterSettings
from hrviewer.io.figures.html_report import CaptionedImage, render_page
from hrviewer.io.figures.overlay_figure import draw_figure, load_figure_data, load_object_figure
from hrviewer.io.figures.plots import matplotlib_missing_reason
from hrviewer.io.object_table import has_objects
from hrviewer.io.run_maps import MapName, open_maps
from hrviewer.io.writers.base import RunWriter
from hrviewer.units import format_si

__all__ = ["HtmlSettings", "HtmlWriter"]

MAP_TITLES = {
    "objects": "Objects",
    "output": "Model output",
    "saliency": "Saliency",
    "cost": "Compute cost",
}
STAGES = ("read", "prepare", "infer", "post")


class HtmlSettings(WriterSettings):
    """Resolution of the pictures."""

    dpi: int = Field(130, ge=50, le=600, title="dpi", description="Dots per inch of the pictures")


class HtmlWriter(RunWriter):
    """HTML report writer: estimate, cost, maps, parameters and versions."""

    suffixes = (".html", ".htm")
    description = "a report of the run, in one file"
    Settings = HtmlSettings

    def unsupported_reason(self, run: Exportable) -> str | None:
        """Return why no picture can be drawn."""
        return matplotlib_missing_reason()

    def write(
        self, run: Exportable, target: Path, settings: HtmlSettings, progress: ProgressCallback
    ) -> None:
        """Write the report; progress counts the pictures."""
        import pandas as pd

        header = run.header
        names: list[str] = ["objects"] if has_objects(run) else []
        names += [run_map.name for run_map in open_maps(run) if run_map.name in MAP_TITLES]
        pictures: list[CaptionedImage] = []
        for i, name in enumerate(names):
            data = (
                load_object_figure(run, None, 800)
                if name == "objects"
                else load_figure_data(run, cast(MapName, name), -1, 800, mark=3)
            )
            with tempfile.NamedTemporaryFile(suffix=".png", dir=target.parent) as file:
                draw_figure(data, "", Path(file.name), dpi=settings.dpi, inches=6)
                pictures.append((MAP_TITLES[name], Path(file.name).read_bytes()))
            progress(i + 1, len(names))
        page = render_page(
            f"{Path(header['image']['path']).name}: {header['model']}, {header['strategy']}",
            list(describe_run(header)),
            pd.DataFrame(cost_rows(header), columns=["cost", "amount"]),
            plots=[],
            sections=[("Maps", "", pictures)],
            notes=header.get("notes", ()),
        )
        target.write_text(page, "utf-8")


def describe_run(header: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield names and values: image, model, strategy, estimate and environment of a run."""
    image = header["image"]
    size = image["pixel_size"]
    yield "image", image["path"]
    yield (
        "size",
        " × ".join(f"{side:,}" for side in image["shape"])
        + " pixels"
        + (f" of {size[0]:g} × {size[1]:g} µm" if size else ""),
    )
    yield "model", header["model"]
    yield "strategy", header["strategy"]
    yield "parameters", json.dumps(header["params"]) if header["params"] else "defaults"
    if header.get("budget"):
        yield "budget", header["budget"]
    estimate = header.get("estimate")
    yield "estimate", format_estimate(estimate)
    if estimate and len(estimate["per_class"]) > 1:
        for name, value in estimate["per_class"].items():
            yield name, f"{value:,.6g}"
    if header.get("truth"):
        yield "ground truth", format_evaluation(header["truth"])
    if not header["complete"]:
        yield "incomplete", header.get("incomplete") or "partial results"
    if header.get("coverage", 100) < 100:
        yield "coverage", f"{header['coverage']:g} % of the region"
    for key in ("seed", "device", "started", "fingerprint"):
        value = image.get(key, header.get(key))
        if value is not None:
            yield key, str(value)
    yield from header.get("versions", {}).items()


def cost_rows(header: dict[str, Any]) -> list[tuple[str, str]]:
    """Return the rows of the cost table: names and amounts."""
    cost = header.get("cost")
    if not cost:
        raise RunError("this run has no cost yet: resume it first")
    once = header.get("once_per_pixel_flops")
    patches = header.get("patches", {})
    return [
        ("FLOPs", format_si(cost["flops"], "FLOP")),
        *([("of the model once per pixel", f"{cost['flops'] / once:.3g}")] if once else []),
        ("time", f"{cost['wall_s']:,.1f} s"),
        *((f"{stage} time", f"{cost[f'{stage}_s']:,.1f} s") for stage in STAGES),
        ("data read", format_si(cost["bytes_read"], "B")),
        ("pixels read", format_si(cost["pixels_read"], "px")),
        *((f"patches {state}", f"{n:,}") for state, n in patches.items()),
    ]
