"""The summary of a run for its header: completeness, estimate and costs."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from hrviewer.engine import RunRecord
from hrviewer.errors import HrviewerError
from hrviewer.models import ModelCard
from hrviewer.models.memory_usage import peak_memory
from hrviewer.pyramid import Pyramid
from hrviewer.runs.completeness import coverage_percent, describe_incomplete, image_is_unchanged
from hrviewer.runs.estimates import estimate_to_dict, map_sum_notes
from hrviewer.runs.provenance import image_info
from hrviewer.runs.region_sums import measure_map, sum_map
from hrviewer.strategies import Estimate, PlanContext
from hrviewer.strategies.estimation.aggregation import Aggregation

__all__ = ["RunSummary"]


@dataclass(frozen=True)
class RunSummary:
    """What a run's header says of its results.

    Attributes
    ----------
    pyramid
        The image.
    context
        The context of the strategy's plan.
    card
        The card of the answering role.
    main
        The card of the model in the role `main`.
    aggregation
        How tiles become the answer of the slide.
    in_tissue
        Whether only tissue counts.
    """

    pyramid: Pyramid
    context: PlanContext
    card: ModelCard
    main: ModelCard | None
    aggregation: Aggregation
    in_tissue: bool

    def _data_area(self, record: RunRecord) -> float | None:
        """Return the area that counts and has data; None if it cannot be read."""
        context, region = self.context, self.context.region
        with suppress(HrviewerError):
            data = self.pyramid.data_area(region)
            if context.mask is None:
                return data
            if data == region.area:
                return context.area
            if record.coverage >= 1:
                canvas = record.output
                return measure_map(canvas.values, canvas.cell, context.mask, region)[1]
            return context.area * data / region.area
        return None

    def found_nothing(self, final: Estimate) -> bool:
        """Return whether a detector found no object, and that does not show that there is none.

        The strategy did not run it on all pixels at its scale, and gives no interval.
        """
        none = final.values is not None and not final.values.any()
        certain = final.exhaustive or final.interval is not None
        return self.card.detects and none and not certain

    def notes(self, final: Estimate | None, entries: Mapping[str, Any]) -> list[str]:
        """Return notes on the estimate; `entries` are those of the header."""
        notes = map_sum_notes(entries["estimate"])
        if final and self.found_nothing(final):
            notes.append(
                "nothing was found on the part, or at the scale, that the budget paid for: that is "
                "no count of the region; raise the budget, or choose patches"
            )
        return notes

    def to_dict(
        self,
        record: RunRecord,
        final: Estimate | None = None,
        *,
        setup_s: float = 0.0,
        wall_s: float = 0.0,
        saved_s: float = 0.0,
    ) -> dict[str, Any]:
        """Return the entries of the header.

        Parameters
        ----------
        record : RunRecord
            The results so far.
        final : Estimate, optional
            The strategy's estimate, if it came to its end.
        setup_s, wall_s, saved_s : float
            Seconds in which networks were loaded, of the run, and of results that were not computed
            again.
        """
        context = self.context
        costs = record.cost_map
        estimate = final.values if final else record.estimate
        if final and self.found_nothing(final):
            estimate = None
        interval = final.interval if final else record.interval
        total, failed = costs.total, record.counts()["failed"]
        data_area = self._data_area(record) if final else None
        # Before inference there is nothing to check.
        unchanged = not wall_s or image_is_unchanged(self.pyramid, image_info(self.pyramid))
        incomplete = describe_incomplete(final is not None, record.patches, unchanged)
        covered = final.coverage if final else None
        coverage = coverage_percent(record.coverage if covered is None else covered)
        estimated = estimate_to_dict(
            self.card,
            estimate,
            interval,
            context.region,
            context.pixel_size,
            exhaustive=bool(final and final.exhaustive and not failed),
            synthetic=self.pyramid.synthetic_name,
            data_area=context.area if data_area is None else data_area,
            main=self.main,
            class_intervals=(final or record).class_intervals,
            area=final.area if final else None,
            aggregation=self.aggregation,
        )
        if estimated is not None and self.in_tissue:
            estimated["density_of"] = "tissue"
        if estimated is not None and coverage < 100:
            estimated["coverage"] = coverage / 100
        if estimated is not None and estimated["kind"] == "count" and final:
            canvas = record.output
            estimated["map_sum"] = sum_map(canvas.values, canvas.cell, context.mask, context.region)
        return {
            "complete": incomplete is None,
            "incomplete": incomplete,
            "coverage": coverage,
            "estimate": estimated,
            "data_area": data_area,
            "counting_area": context.area,
            "cost": {
                "flops": total.flops,
                # Results from memory, the cache or the journal count with their original cost.
                "wall_s": wall_s + saved_s + total.seconds - costs.spent.seconds,
                "read_s": total.read_s,
                "prepare_s": total.prepare_s,
                "infer_s": total.infer_s,
                "post_s": total.post_s,
                "bytes_read": round(total.bytes),
                "pixels_read": round(total.pixels),
                "peak_rss_bytes": peak_memory(),
                "peak_device_bytes": None,
            },
            "spent": {"flops": costs.spent.flops, "wall_s": wall_s},
            "setup_s": setup_s,
            "patches": record.counts(),
        }
