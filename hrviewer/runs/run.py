"""A run, read from its folder: finished, stopped or still going on."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from hrviewer.escaping import escape_html
from hrviewer.geometry import Rect
from hrviewer.ground_truth import GroundTruth
from hrviewer.io.map_coordinates import georeference_of
from hrviewer.io.object_table import object_frame, read_objects
from hrviewer.io.run_patches import read_patches
from hrviewer.io.stored_map import open_stored_map
from hrviewer.pyramid.fingerprint import image_key
from hrviewer.regions import Region
from hrviewer.runs.agreement import Agreement, grid_regions, region_agreement
from hrviewer.runs.estimates import (
    CostDict,
    EstimateDict,
    EvaluationDict,
    format_estimate,
    format_evaluation,
)
from hrviewer.runs.header import read_header
from hrviewer.runs.hot_spots import hot_spots, parse_field_size
from hrviewer.runs.layers import LayerDataTuple, layer_tuples
from hrviewer.runs.lazy_map import RunMaps
from hrviewer.runs.region_measurement import measure_regions
from hrviewer.runs.region_table import region_frame
from hrviewer.runs.settings import RegionsLike, resolve_regions
from hrviewer.runs.writer import write_header

__all__ = ["Run"]


class Run:
    """Results and costs of one strategy on one image.

    Parameters
    ----------
    path : Path or str
        The folder ``NAME.run.zarr``.

    Attributes
    ----------
    path : Path
        The folder.
    header : dict
        Its ``run.json``: image, model, strategy, parameters, device, notes and all that follows.

    Raises
    ------
    HrviewerError
        If it is not a run folder, or one of another format version.

    Examples
    --------
    >>> run = hrviewer.run(image, "nuclei", "zoom")  # doctest: +SKIP
    >>> run.estimate["value"], run.cost["flops"]  # doctest: +SKIP
    (2418.1, 1.2e12)
    >>> run.maps["output"]  # doctest: +SKIP
    <LazyMap 'output' (channel: 1, y: 742, x: 555) float32, cells of 4 px>
    """

    def __init__(self, path: Path | str) -> None:
        self.path = Path(path)
        self.header = read_header(self.path)

    def __repr__(self) -> str:
        estimate = format_estimate(self.estimate)
        state = "" if self.complete else f"; incomplete: {self.incomplete or 'not finished'}"
        return f"<Run {self.path.name}: {self.header['strategy']}, {estimate}{state}>"

    @property
    def estimate(self) -> EstimateDict | None:
        """The estimate; None before the first prediction, and of embeddings."""
        return self.header["estimate"]  # type: ignore[no-any-return]

    @property
    def cost(self) -> CostDict:
        """The nominal cost: FLOPs, seconds by stage, bytes, pixels, peak memory."""
        return self.header["cost"]  # type: ignore[no-any-return]

    @property
    def of_once_per_pixel(self) -> float | None:
        """Nominal FLOPs over those of ``main`` once on every pixel; None for an imported run."""
        unit = self.header.get("once_per_pixel_flops")
        return self.cost["flops"] / unit if unit else None

    @property
    def evaluation(self) -> EvaluationDict | None:
        """The errors of the estimate against ground truth; None without ground truth."""
        return self.header["truth"]  # type: ignore[no-any-return]

    def set_evaluation(self, evaluation: EvaluationDict) -> None:
        """Record the evaluation against ground truth."""
        self.header["truth"] = evaluation
        write_header(self.path, self.header)

    @property
    def complete(self) -> bool:
        """Whether the strategy finished, no patch failed and the image stayed the same.

        A run whose budget paid for a part of the region is complete if it came to its end.
        """
        return bool(self.header["complete"])

    @property
    def incomplete(self) -> str | None:
        """Why the run is not complete, in one line; None if it is."""
        return self.header.get("incomplete")

    @property
    def coverage(self) -> float:
        """Part of the region that the estimate rests on, in per cent."""
        return float(self.header.get("coverage", 100.0))

    @property
    def image_shape(self) -> tuple[int, int]:
        """Height and width of the image, level-0 pixels."""
        height, width = self.header["image"]["shape"]
        return height, width

    @property
    def region(self) -> Rect:
        """The area that the estimate covers, level-0 pixels."""
        return Rect(*self.header["region"])

    @property
    def pixel_size(self) -> tuple[float, float] | None:
        """µm per level-0 pixel, ``(y, x)``."""
        size = self.header["image"]["pixel_size"]
        return None if size is None else (size[0], size[1])

    @property
    def image_key(self) -> str:
        """What identifies the image's pixels: fingerprint, plane and channels; see `Pyramid`."""
        image = self.header["image"]
        return image_key(image["fingerprint"], image.get("plane", {}), image.get("channels"))

    @cached_property
    def patches(self) -> pd.DataFrame:
        """The patches of the run, a row each.

        ============================================ =============================================
        column                                       meaning
        ============================================ =============================================
        ``id``                                       number, from 0
        ``y``, ``x``, ``h``, ``w``                   the patch without its halo, level-0 pixels
        ``scale``                                    level-0 pixels per pixel of the input
        ``role``                                     role of the model
        ``order``                                    position in the order of inference
        ``score``                                    saliency by which the patch was selected
        ``value``                                    its prediction: count, area, largest
                                                     probability, or first quantity
        ``prob_CLASS``                               probability, of a classification
        ``share_CLASS``                              share of the patch's area, of a segmentation
        ``mean_NAME``                                mean of the quantity, of a regression
        ``count_CLASS``                              count, of several classes
        ``flops``                                    FLOPs
        ``read_s``, ``prepare_s``, ``infer_s``,      seconds of each stage
        ``post_s``
        ``bytes``, ``pixels``                        compressed bytes and pixels that were read
        ``status``                                   ``done``, ``cached`` or ``failed``
        ``error``                                    the reason, of a failed patch
        ============================================ =============================================
        """
        return read_patches(self.path)

    def objects(
        self,
        score: float | None = None,
        overlap: float | None = None,
        merging: str | None = None,
    ) -> pd.DataFrame:
        """Return the detected objects, a row each, the most confident first.

        The run keeps all candidates down to a score of 0.05, so other thresholds need no inference.

        Parameters
        ----------
        score : float, optional
            Least score; the run's, 0.3, by default.
        overlap : float, optional
            Two objects of one class that overlap by more (intersection over union) are one; the
            run's, 0.45, by default.
        merging : {"core", "all", "union"}, optional
            How objects on the borders of tiles are merged: each belongs to the tile in whose core
            its center lies; or the best prediction of all tiles that see it stays; or what tiles
            see of it is united.

        Returns
        -------
        DataFrame
            Columns ``id``, ``patch``, ``label``, ``score``; the box ``y``, ``x``, ``h``, ``w``,
            ``center_y``, ``center_x`` and ``area`` in level-0 pixels; ``outline`` as WKB, null
            where it is the box. Ids are the same at all thresholds.

        Raises
        ------
        HrviewerError
            If the model detects no objects, or a threshold is out of range.

        Examples
        --------
        >>> run.objects(score=0.5)["label"].value_counts()  # doctest: +SKIP
        """
        ids, objects, classes = read_objects(self, score=score, overlap=overlap, merging=merging)
        return object_frame(objects, ids, classes)

    @property
    def maps(self) -> RunMaps:
        """The maps by name, ``output``, ``saliency``, ``cost`` and ``embeddings``, read lazily.

        Each is an `xarray.DataArray` where xarray and dask are installed, else a `LazyMap` with
        the same attributes: dimensions ``channel``, ``y``, ``x``; coordinates are the centres of
        cells in level-0 pixels; ``attrs`` has ``units``, ``cell`` and ``pixel_size``.
        """
        return RunMaps(self)

    def measure(self, regions: RegionsLike) -> pd.DataFrame:
        """Measure regions on the maps of the run, at once: no inference runs.

        Parameters
        ----------
        regions : Region, Rect, path, or a sequence of them
            Regions, or a file of annotations: GeoJSON of QuPath and others, COCO, the Digital Slide
            Archive's. Each row counts what is inside its outline, also where regions overlap.

        Returns
        -------
        DataFrame
            A row for each region: ``name``, ``class``; ``area_px2`` in the image and
            ``data_area_px2`` with data; ``coverage``, the part of it with predictions; ``count``,
            or areas, fractions, probabilities or means by class; densities; ``ci95_low`` and
            ``ci95_high`` where inference was exhaustive; ``flops``, ``seconds``, ``bytes_read``
            and ``pixels_read``, its part of the run's cost.

        Raises
        ------
        HrviewerError
            If a region has no area, a file cannot be read, or the run has no maps.

        Examples
        --------
        >>> run = hrviewer.run(image, model, region=(0, 0, 512, 512), progress=False)
        >>> table = run.measure([hrviewer.Rect(0, 0, 512, 256), hrviewer.Rect(0, 256, 512, 256)])
        >>> bool(np.isclose(table["count"].sum(), run.estimate["value"]))
        True
        """
        found = self.resolve_regions(regions)
        return region_frame(measure_regions(self, found), self.pixel_size)

    def resolve_regions(self, regions: RegionsLike) -> list[Region]:
        """Return regions as given and as read from files, with unique names; see `measure`."""
        return resolve_regions(
            regions, self.header["image"]["path"], self.image_shape, georeference_of(self)
        )

    def hot_spots(self, size: str = "1mm2", number: int = 5) -> pd.DataFrame:
        """Find the fields that have most objects, without overlap and without inference.

        Parameters
        ----------
        size : str
            Area of a field, a square: ``0.2mm2``, ``1ha``, ``0.5km2`` or ``250000px``.
        number : int
            How many fields, at most; none of them is empty.

        Returns
        -------
        DataFrame
            As of `measure`, the fullest field first, with the corner ``y``, ``x`` and the sides
            ``h``, ``w`` of each, level-0 pixels.

        Raises
        ------
        HrviewerError
            If the run counts nothing, or there are no such fields in its region.

        Examples
        --------
        >>> run = hrviewer.run(image, model, region=(0, 0, 512, 512), progress=False)
        >>> run.hot_spots("10000px", 2)["name"].tolist()
        ['hot spot 1', 'hot spot 2']
        """
        regions, rows = hot_spots(self, parse_field_size(size, self.pixel_size), number)
        table = region_frame(rows, self.pixel_size)
        x, y, x1, y1 = np.array([region.shape.bounds for region in regions]).reshape(-1, 4).T
        return table.assign(y=y, x=x, h=y1 - y, w=x1 - x)

    def agreement(self, other: Run | GroundTruth, regions: RegionsLike | None = None) -> Agreement:
        """Compare with another run, or with ground truth, region by region.

        Parameters
        ----------
        other : Run or GroundTruth
            The reference.
        regions : Region, Rect, path, or a sequence of them, optional
            As of `measure`; 8 × 8 parts of the run's region by default.

        Returns
        -------
        Agreement
            With the differences as ``table``, their mean ``bias`` and the ``limits`` of agreement.

        Raises
        ------
        HrviewerError
            If less than two regions have estimates of both, or the runs cannot be compared.

        Examples
        --------
        >>> run = hrviewer.run(image, model, region=(0, 0, 512, 512), progress=False)
        >>> run.agreement(run).limits
        (0.0, 0.0)
        """
        parts = grid_regions(self.region) if regions is None else self.resolve_regions(regions)
        return region_agreement(self, other, parts)

    def layers(self) -> list[LayerDataTuple]:
        """Return cost, saliency, patches, output and objects as napari's layer-data tuples.

        Examples
        --------
        >>> for layer in run.layers():  # doctest: +SKIP
        ...     viewer.add_layer(napari.layers.Layer.create(*layer))
        """
        return layer_tuples(self)

    def map(self, name: str) -> tuple[Any, float]:
        """Return a map as it is stored, and the side of its cells; see `maps`.

        Returns
        -------
        zarr.Array
            ``(channels, rows, columns)``, NaN outside the processed patches.
        float
            Side of its cells, level-0 pixels.

        Raises
        ------
        HrviewerError
            If the folder has no such map.
        """
        array, attributes = open_stored_map(self.path, name, self.image_shape)
        return array, float(attributes["hrviewer"]["cell"])

    @property
    def output(self) -> NDArray[np.float32]:
        """The predictions, ``(k, rows, columns)``: counts per cell, or probabilities."""
        return np.asarray(self.map("output")[0][:])

    @property
    def saliency(self) -> NDArray[np.float32]:
        """The saliency by which patches were selected, ``(rows, columns)``."""
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
            "model": self.header["model"],
            "strategy": " ".join([self.header["strategy"], *params]),
            "estimate": format_estimate(self.estimate),
            **({} if self.complete else {"incomplete": self.incomplete or "not finished"}),
            **({"coverage": f"{self.coverage:g} % of the region"} if self.coverage < 100 else {}),
            **({"ground truth": format_evaluation(self.evaluation)} if self.evaluation else {}),
            "cost": f"{cost['flops'] / 1e9:,.4g} GFLOP · {cost['wall_s']:.2f} s · "
            f"{cost['pixels_read'] / 1e6:,.1f} MP read",
            "patches": f"{self.header['patches']['done'] + self.header['patches']['cached']} of "
            f"{self.header['patches']['planned']}",
            **({"notes": "; ".join(self.header["notes"])} if self.header["notes"] else {}),
        }
        cells = "".join(
            f"<tr><th style='text-align:left'>{name}</th><td>{escape_html(value)}</td></tr>"
            for name, value in rows.items()
        )
        return f"<table>{cells}</table>{render_gallery(self)}"
