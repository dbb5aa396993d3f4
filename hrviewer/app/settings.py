"""Settings of the next run, and their resolution into what is run.

`RunSettings` are what the user selects, possibly half typed; `ResolvedRun` is checked and frozen.
Run, the queue of runs and Live resolve here and nowhere else.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal, Protocol

import numpy as np
from numpy.typing import NDArray
from psygnal import SignalGroupDescriptor

from hrviewer.app.image_session import ImageSession, ImageSource
from hrviewer.engine import Budget, Priors
from hrviewer.errors import ModelError, ParameterError
from hrviewer.geometry import Rect
from hrviewer.io.region_files import unique_names
from hrviewer.models import ModelBundle
from hrviewer.regions import Region
from hrviewer.runs import Run, RunSpec, parse_params
from hrviewer.runs.priors import as_priors, prior_sources
from hrviewer.runs.run_regions import read_parts
from hrviewer.strategies import Params, Strategy, get_strategy, strategy_ids

__all__ = ["PriorSource", "RegionKind", "ResolvedRun", "RunSettings", "TissueKind"]

RegionKind = Literal["whole", "visible", "drawn"]
TissueKind = Literal["off", "auto", "file"]


class PriorSource(Protocol):
    """A prior map that the front end offers, such as a drawn layer."""

    @property
    def available(self) -> bool:
        """Whether it still exists."""

    def map_on(self, source: ImageSource) -> NDArray[np.floating]:
        """Return the map over the whole image, ``(rows, columns)``."""


@dataclass(frozen=True, eq=False)
class ResolvedRun:
    """Everything that a run needs, checked.

    Parameters
    ----------
    image : ImageSession
        The image.
    plane : tuple of int
        Its displayed plane.
    model, device, precision
        The model bundle, and where and how it runs.
    strategy, params, budget, seed
        The strategy; the budget is None for the strategy's default.
    region : Rect or None
        Level-0 pixels; None for the whole image.
    regions, tissue
        What counts in it, if that is not all.
    priors : dict of str to ndarray
        Drawn prior maps by name.
    prior_sources : dict of str to str
        Where `load_priors` reads others: the run whose predictions are one.
    """

    image: ImageSession
    plane: tuple[int, ...]
    model: ModelBundle
    device: str
    precision: str
    strategy: Strategy
    params: Params
    budget: Budget | None
    region: Rect | None = None
    priors: Priors = field(default_factory=dict)
    prior_sources: dict[str, str] = field(default_factory=dict)
    seed: int = 0
    regions: Sequence[Region] = ()
    tissue: Region | None = None

    def load_priors(self) -> Priors:
        """Return all prior maps by name; on a worker thread, for it may read."""
        return {**self.priors, **as_priors(self.prior_sources)}

    def spec(self) -> RunSpec:
        """Return the run's specification; on a worker thread, for it may read."""
        return RunSpec(
            self.image.source.pyramid(self.plane),
            self.model,
            self.strategy,
            self.params,
            self.region,
            self.budget,
            self.seed,
            self.load_priors(),
            self.prior_sources,
            self.regions,
            self.tissue,
        )


@dataclass(eq=False)
class RunSettings:
    """What the user selected for the next run; `events` has a signal for each field.

    Attributes
    ----------
    model : ModelBundle or None
    strategy : Strategy
    params : dict
        Parameters that are not at their default.
    region : {"whole", "visible", "drawn"}
    tissue : {"off", "auto", "file"}
        Whether only tissue counts: that which was found, or read from a file.
    budget : str
        As typed; empty for the strategy's default.
    device, precision : str
    prior : PriorSource, "run" or None
        A prior map; "run" is the density that the displayed run predicted.
    """

    events: ClassVar[SignalGroupDescriptor] = SignalGroupDescriptor()

    model: ModelBundle | None = None
    strategy: Strategy = field(default_factory=lambda: get_strategy(strategy_ids()[0]))
    params: dict[str, Any] = field(default_factory=dict)
    region: RegionKind = "whole"
    tissue: TissueKind = "off"
    budget: str = ""
    device: str = "auto"
    precision: str = "float32"
    prior: PriorSource | Literal["run"] | None = None

    def require_model(self) -> ModelBundle:
        """Return the model.

        Raises
        ------
        HrviewerError
            If none is selected.
        """
        if self.model is None:
            raise ModelError("choose a model first")
        return self.model

    def resolve(
        self, image: ImageSession, *, strategy: Strategy | None = None, whole: bool = False
    ) -> ResolvedRun:
        """Return the settings as they are now, checked.

        Parameters
        ----------
        image : ImageSession
            The image to run on.
        strategy : Strategy, optional
            Another strategy with its default parameters instead of the selected one.
        whole : bool
            Whether to leave the region out, as Live does.

        Raises
        ------
        HrviewerError
            If something is missing or out of range.
        """
        model, chosen = self.require_model(), strategy or self.strategy
        return ResolvedRun(
            image,
            image.source.plane(),
            model,
            self.device,
            self.precision,
            chosen,
            parse_params(chosen, {} if strategy else self.params),
            Budget.parse(self.budget) if self.budget.strip() else None,
            None if whole else self.selected_rect(image.source),
            *(({}, {}) if strategy else self.priors(image, chosen)),
            regions=[] if whole else self.selected_regions(image.source),
            tissue=None if whole else self.selected_tissue(image),
        )

    def resolve_resumed(self, image: ImageSession, run: Run) -> ResolvedRun:
        """Return what a stopped run was begun with; model and device are those selected now.

        Prior maps that were read are read again where they were; drawn ones are those drawn now.

        Raises
        ------
        HrviewerError
            If no model is selected.
        """
        header = run.header
        if self.model is None:
            raise ModelError(f"choose the model that the run was begun with: {header['model']}")
        strategy = get_strategy(header["strategy"])
        sources: dict[str, str] = header.get("prior_sources", {})
        regions, tissue = read_parts(run)
        are_drawn = bool(header.get("priors", {}).keys() - sources.keys())
        return ResolvedRun(
            image,
            image.source.plane(),
            self.model,
            self.device,
            self.precision,
            strategy,
            parse_params(strategy, header["params"]),
            Budget.parse(header["budget"]) if header["budget"] else None,
            run.region,
            self.priors(image, strategy)[0] if are_drawn else {},
            sources,
            seed=header["seed"],
            regions=regions,
            tissue=tissue,
        )

    def selected_rect(self, source: ImageSource) -> Rect | None:
        """Return the selected region, level-0 pixels; None for the whole image.

        Raises
        ------
        HrviewerError
            If nothing is drawn, or the image is out of view.
        """
        if self.region == "whole":
            return None
        if self.region == "visible":
            rect = source.viewport().rect
            if rect.empty:
                raise ParameterError(
                    "the image is out of view: bring it back, or choose another region"
                )
            return rect
        return Region.union(self.selected_regions(source)).bounds & source.rect

    def selected_regions(self, source: ImageSource) -> list[Region]:
        """Return what is drawn, where that is selected, with unique names.

        Raises
        ------
        HrviewerError
            If nothing is drawn.
        """
        if self.region != "drawn":
            return []
        regions = source.drawn_regions()
        if not regions:
            raise ParameterError(
                "no shape is drawn on the image: draw a rectangle, or choose another region"
            )
        return unique_names(regions)

    def selected_tissue(self, image: ImageSession) -> Region | None:
        """Return the tissue, where only that counts.

        Raises
        ------
        HrviewerError
            If it is not known yet.
        """
        if self.tissue != "off" and image.tissue is None:
            raise ParameterError(
                "the tissue is not known yet: wait until its area is shown, or choose off"
            )
        return None if self.tissue == "off" else image.tissue

    def priors(self, image: ImageSession, strategy: Strategy) -> tuple[Priors, dict[str, str]]:
        """Return the drawn prior maps that a strategy accepts, and where others are read.

        Raises
        ------
        HrviewerError
            If the selected layer has nothing on the image.
        """
        accepted, prior = strategy.priors, self.prior
        if prior == "run":
            is_prior = image.run is not None and "density" in accepted
            return {}, prior_sources({"density": image.run}) if is_prior else {}
        if prior is None or "saliency" not in accepted or not prior.available:
            return {}, {}
        return {"saliency": prior.map_on(image.source)}, {}
