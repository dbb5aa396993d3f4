"""What everything that looks shares: the image, the networks, where they run, who pays."""

from __future__ import annotations

from collections.abc import Mapping

from hrviewer.engine.device_scheduler import DeviceScheduler, Priority
from hrviewer.geometry import Rect
from hrviewer.models import Network
from hrviewer.pyramid import Pyramid, ReadMeter

__all__ = ["InferenceContext"]


class InferenceContext:
    """What one run looks with.

    Parameters
    ----------
    pyramid : Pyramid
        What is looked at.
    models : mapping of str to Network
        Who looks, by role.
    device : Device
        Where networks run.
    region : Rect
        Cores of what answers are clipped to it; other looks may lie anywhere.
    priority : Priority
        Who goes first on the device.

    Attributes
    ----------
    meter : Meter
        What reading cost so far.
    """

    def __init__(
        self,
        pyramid: Pyramid,
        models: Mapping[str, Network],
        device: DeviceScheduler,
        region: Rect,
        priority: Priority = Priority.RUN,
    ) -> None:
        self.pyramid, self.models, self.device = pyramid, models, device
        self.region, self.priority = region, priority
        self.meter = ReadMeter()
