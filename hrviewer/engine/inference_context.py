"""What everything that looks shares: the image, the networks, where they run, who pays."""

from __future__ import annotations

from collections.abc import Mapping

from hrviewer.engine.device_scheduler import Device, Priority
from hrviewer.geometry import Rect
from hrviewer.models import Network
from hrviewer.pyramid import Meter, Pyramid

__all__ = ["Sight"]


class Sight:
    """What one run looks with.

    Parameters
    ----------
    pyramid : Pyramid
        What is looked at.
    networks : mapping of str to Network
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
        networks: Mapping[str, Network],
        device: Device,
        region: Rect,
        priority: Priority = Priority.RUN,
    ) -> None:
        self.pyramid, self.networks, self.device = pyramid, networks, device
        self.region, self.priority = region, priority
        self.meter = Meter()
