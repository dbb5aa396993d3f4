"""A finished, stopped or running run, read from its folder."""

from __future__ import annotations

import html
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from hrviewer.errors import HrviewerError
from hrviewer.geometry import Rect
from hrviewer.runs.estimates import format_estimate, format_evaluation
from hrviewer.runs.writer import read_header, write_header

__all__ = ["Run"]


class Run:
    """Everything one strategy saw and spent on one image.

    Parameters
    ----------
    path : Path or str
        The folder ``NAME.run.zarr``.

    Raises
    ------
    UserError
        If it is not a run folder.
    """

    def __init__(self, path: Path | str) -> None:
        self.path = Path(path)
        self.header = read_header(self.path)

    def __repr__(self) -> str:
        return (
            f"<Run {self.path.name}: {self.header['strategy']}, {format_estimate(self.estimate)}>"
        )

    @property
    def estimate(self) -> dict[str, Any] | None:
        """The answer: ``kind``, ``value``, ``ci95``, ``per_class`` and more by task."""
        return self.header["estimate"]  # type: ignore[no-any-return]

    @property
    def cost(self) -> dict[str, Any]:
        """The nominal cost: FLOPs, seconds by stage, bytes, pixels, peak memory."""
        return self.header["cost"]  # type: ignore[no-any-return]

    @property
    def evaluation(self) -> dict[str, Any] | None:
        """What is really there, and how far the answer is from it; None where nobody said."""
        return self.header["truth"]  # type: ignore[no-any-return]

    def set_evaluation(self, evaluation: dict[str, Any]) -> None:
        """Keep what the answer was measured against."""
        self.header["truth"] = evaluation
        write_header(self.path, self.header)

    @property
    def complete(self) -> bool:
        """Whether the strategy came to its end."""
        return bool(self.header["complete"])

    @property
    def image_shape(self) -> tuple[int, int]:
        """Height and width of the image, level-0 pixels."""
        height, width = self.header["image"]["shape"]
        return height, width

    @property
    def region(self) -> Rect:
        """The part that the answer speaks of."""
        return Rect(*self.header["region"])

    @property
    def pixel_size(self) -> tuple[float, float] | None:
        """µm per level-0 pixel, ``(y, x)``."""
        size = self.header["image"]["pixel_size"]
        return None if size is None else (size[0], size[1])

    @cached_property
    def patches(self) -> pd.DataFrame:
        """Every look: where, at which scale, in which order, what it gave and cost."""
        return pd.read_parquet(self.path / "patches.parquet")

    def map(self, name: str) -> tuple[Any, float]:
        """Return a map, ``output``, ``saliency``, ``cost`` or ``codes``, and its cell.

        Returns
        -------
        zarr.Array
            ``(channels, rows, columns)``, NaN where nothing was looked at.
        float
            Side of its cells, level-0 pixels.

        Raises
        ------
        UserError
            If the folder does not hold it.
        """
        import zarr

        try:
            group = zarr.open_group(self.path / name, mode="r")
            array = group["0"]
            cell = group.attrs["hrviewer"]["cell"]  # type: ignore[index,call-overload]
        except (OSError, KeyError, ValueError) as error:
            raise HrviewerError(f"{self.path} holds no readable {name} map: {error}") from None
        return array, float(cell)  # type: ignore[arg-type]

    @property
    def output(self) -> NDArray[np.float32]:
        """What the network said, ``(k, rows, columns)``."""
        return np.asarray(self.map("output")[0][:])

    @property
    def saliency(self) -> NDArray[np.float32]:
        """What the strategy found worth a look, ``(rows, columns)``."""
        return np.asarray(self.map("saliency")[0][0])

    def cost_map(self, quantity: str = "flops") -> NDArray[np.float64]:
        """Return one quantity's cost per cell, ``(rows, columns)``."""
        from hrviewer.engine.cost import QUANTITIES

        return np.asarray(self.map("cost")[0][QUANTITIES.index(quantity)])

    def _repr_html_(self) -> str:
        from hrviewer.io.figures.html_report import render_gallery

        cost = self.cost
        params = [f"{name}={value}" for name, value in self.header["params"].items()]
        rows = {
            "image": self.header["image"]["path"],
            "network": self.header["model"],
            "strategy": " ".join([self.header["strategy"], *params]),
            "answer": format_estimate(self.estimate),
            **({"truth": format_evaluation(self.evaluation)} if self.evaluation else {}),
            "cost": f"{cost['flops'] / 1e9:,.4g} GFLOP · {cost['wall_s']:.2f} s · "
            f"{cost['pixels_read'] / 1e6:,.1f} MP read",
            "patches": f"{self.header['patches']['done'] + self.header['patches']['cached']} of "
            f"{self.header['patches']['planned']}",
        }
        cells = "".join(
            f"<tr><th style='text-align:left'>{name}</th><td>{html.escape(str(value))}</td></tr>"
            for name, value in rows.items()
        )
        return f"<table>{cells}</table>{render_gallery(self)}"
