"""Setup of a plan: region, native scale and budget, before any FLOP is spent."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator, Mapping
from dataclasses import replace
from functools import partial

from hrviewer.engine.budget import Budget
from hrviewer.engine.domain_check import domain_note
from hrviewer.engine.loaded_models import LoadedModels
from hrviewer.engine.model_infos import channel_note, model_info, native_scale
from hrviewer.engine.preprocess import value_range
from hrviewer.engine.priors import Priors, validate_priors
from hrviewer.engine.rate_probe import measure_rates
from hrviewer.errors import ParameterError
from hrviewer.geometry import Rect
from hrviewer.pyramid import Pyramid
from hrviewer.regions import Region
from hrviewer.strategies import ModelInfo, PlanContext, Rates, Strategy

__all__ = ["build_context"]

log = logging.getLogger(__name__)

SMALLEST = 1 / 64
"""Part of a tile that a default budget pays for at least, in an image however small."""


class _ModelInfos(Mapping[str, ModelInfo]):
    """Descriptions of loaded models, as policies get them."""

    def __init__(self, models: LoadedModels) -> None:
        self._models = models

    def __getitem__(self, role: str) -> ModelInfo:
        measure_halo = partial(self._models.exact_halo, role)
        return replace(model_info(self._models[role]), measure_halo=measure_halo)

    def __iter__(self) -> Iterator[str]:
        return iter(self._models)

    def __len__(self) -> int:
        return len(self._models)

    def __contains__(self, role: object) -> bool:
        return role in self._models


def build_context(
    pyramid: Pyramid,
    models: LoadedModels,
    strategy: Strategy,
    *,
    region: Rect | None = None,
    budget: Budget | None = None,
    rates: Rates | None = None,
    timed: bool = False,
    seed: int = 0,
    priors: Priors | None = None,
    mask: Region | None = None,
) -> tuple[PlanContext, list[str], Rates | None]:
    """Return the context that a policy plans in, and load the networks that it needs.

    Parameters
    ----------
    pyramid, models, strategy
        Image, loaded models and strategy of the run.
    region : Rect, optional
        Region of interest of the estimate; the whole image by default. Clipped to the image.
    budget : Budget, optional
        The strategy's default otherwise.
    rates : Rates, optional
        Measured rates, when resuming a run that measured them.
    timed : bool
        Whether a clock ends the run after a budget in seconds.
    seed : int
        Random seed of the policy.
    priors : mapping, optional
        Prior maps over the whole image: drawn by the user, or predicted by earlier runs.
    mask : Region, optional
        The part of the region that counts, inside of it; all by default.

    Returns
    -------
    context : PlanContext
    notes : list of str
        Assumptions and substitutions that the user should know of.
    rates : Rates or None
        Measured rates, by which a budget in seconds was converted.

    Raises
    ------
    HrviewerError
        If the region misses the image, the bundle lacks a role or the strategy does not take one
        of the prior maps.
    """
    clipped = pyramid.rect if region is None else region & pyramid.rect
    if clipped.empty:
        raise ParameterError(
            f"the region {region.astuple() if region else ()} (y, x, h, w) lies outside the image "
            f"of {pyramid.plane_shape[0]} × {pyramid.plane_shape[1]} pixels"
        )
    for role in strategy.roles:
        models[role]
    loaded = models["main"]
    main = model_info(loaded)
    channels = channel_note(main.card, pyramid)
    scale, note = native_scale(main.card, pyramid)
    notes = [*pyramid.notes, *models.notes, *filter(None, (channels, note, loaded.halo_note))]
    if pyramid.value_range.note and value_range(main.card, pyramid) == pyramid.value_range.ends:
        notes.append(pyramid.value_range.note)
    notes += filter(None, [domain_note(main.card, pyramid)])

    if budget is not None and budget.unit == "seconds" and rates is None:
        rates = measure_rates(pyramid, models, clipped, scale)
    per_second = rates.flops_per_second if rates else math.inf

    area = clipped.area if mask is None else mask.area
    full_flops = main.flops_per_pixel() * area / scale**2
    if budget is not None:
        flops = budget.flops(main, lambda: per_second, full_flops)
    elif strategy.default_budget is not None:
        tile = main.card.input.tile
        minimum = strategy.default_tiles * main.flops(tile, tile)
        smallest = main.flops(tile, tile) * (1.0 if main.card.input.fixed else SMALLEST)
        flops = max(strategy.default_budget * full_flops, min(minimum, full_flops), smallest)
    else:
        flops = math.inf
    context = PlanContext(
        shape=pyramid.plane_shape,
        downsamples=tuple(level.downsample[0] for level in pyramid.levels),
        pixel_size=pyramid.pixel_size,
        region=clipped,
        native_scale=scale,
        models=_ModelInfos(models),
        budget=flops,
        seconds=budget.amount if timed and budget and budget.unit == "seconds" else math.inf,
        rates=rates if timed else None,
        seed=seed,
        priors=validate_priors(strategy, priors),
        pixel_bytes=pyramid.channels * pyramid.dtype.itemsize,
        scale_curve=main.card.accuracy.scale_curve_for(pyramid.synthetic_name),
        synthetic=pyramid.synthetic_name,
        mask=mask,
    )
    return context, notes, rates
