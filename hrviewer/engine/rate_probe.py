"""The rate of inference on an image, measured with reading, for limits of seconds."""

from __future__ import annotations

import logging
import time

import numpy as np

from hrviewer.engine.loaded_models import LoadedModels
from hrviewer.engine.model_infos import model_info
from hrviewer.engine.pipeline import InferencePipeline
from hrviewer.geometry import Rect
from hrviewer.pyramid import Pyramid
from hrviewer.strategies import PatchRequest, Rates, batches, tiles

__all__ = ["measure_rates"]

log = logging.getLogger(__name__)

NO_LIMIT = 1e30
"""FLOPs per second where none were measured: the clock alone ends the run."""

PROBE_TILES, PROBE_SECONDS = 16, 2.0
"""The probe ends after so many tiles, or so many seconds."""


def measure_rates(pyramid: Pyramid, models: LoadedModels, region: Rect, scale: float) -> Rates:
    """Measure seconds per FLOP and per pixel read, by inference on a few tiles of the region.

    The tiles are read, prepared and run as in a run, at the same time as far as the machine
    allows; the wall time is divided between reading and the rest as the stages' seconds are.

    Parameters
    ----------
    pyramid, models
        The image, and the loaded models.
    region : Rect
        Where to take the tiles from.
    scale : float
        Native scale of ``main``.
    """
    found = tiles(model_info(models["main"]), region, scale)
    some = [found[i] for i in np.random.default_rng(0).permutation(len(found))[: PROBE_TILES + 1]]
    pipeline = InferencePipeline(pyramid, models, models.device, region)
    warm_up, *timed = some if len(some) > 1 else some * 2
    list(pipeline.run(PatchRequest("main", (warm_up,))))
    before, saved = pipeline.meter.total, pipeline.meter.seconds_saved
    flops = busy = 0.0
    start = time.perf_counter()
    for batch in batches(timed, max(4, 2 * models.device.streams * models.device.batch)):
        for _, result in pipeline.run(PatchRequest("main", batch)):
            cost = result.cost
            flops += cost.flops
            busy += cost.prepare_s + cost.infer_s / models.device.streams + cost.post_s
        if time.perf_counter() - start > PROBE_SECONDS:
            break
    wall = time.perf_counter() - start
    after = pipeline.meter.total
    pixels = after.pixels - before.pixels
    reading = after.seconds - before.seconds - (pipeline.meter.seconds_saved - saved)
    share = max(0.0, reading) / max(reading + busy, 1e-9)
    rates = Rates(
        per_flop=wall * (1 - share) / flops if flops else 0.0,
        per_pixel=wall * share / pixels if pixels else 0.0,
        flops_per_second=flops / wall if flops else NO_LIMIT,
    )
    log.info(
        "main runs at %.3g FLOP/s with reading, which takes %.0f %%; %d tiles measured",
        rates.flops_per_second,
        100 * share,
        len(timed),
    )
    return rates
