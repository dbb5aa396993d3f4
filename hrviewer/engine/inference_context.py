"""Shared state of all inference in one run."""

from __future__ import annotations

from collections.abc import Mapping

from hrviewer.engine.device_scheduler import DeviceScheduler, Priority
from hrviewer.geometry import Rect
from hrviewer.models import Network
from hrviewer.pyramid import Pyramid, ReadMeter
from hrviewer.regions import Region

__all__ = ["InferenceContext"]


class InferenceContext:
    """Image, networks and device of one run, and the meter of its reads.

    Parameters
    ----------
    pyramid : Pyramid
        The image.
    models : mapping of str to Network
        Networks by role.
    device : DeviceScheduler
        Runs the networks.
    region : Rect
        Region of interest: cores that count for the estimate are clipped to it; other patches may
        lie anywhere.
    priority : Priority
        Of all jobs on the device.
    mask : Region, optional
        The part of the region that counts; all by default.

    Attributes
    ----------
    meter : ReadMeter
        Cost of reading so far.
    """

    def __init__(
        self,
        pyramid: Pyramid,
        models: Mapping[str, Network],
        device: DeviceScheduler,
        region: Rect,
        priority: Priority = Priority.RUN,
        mask: Region | None = None,
    ) -> None:
        self.pyramid, self.models, self.device = pyramid, models, device
        self.region, self.priority, self.mask = region, priority, mask
        self.meter = ReadMeter()
