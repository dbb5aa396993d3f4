"""Decoders of detectors' raw outputs, by the name that a card gives in ``output.decode``."""

from __future__ import annotations

from hrviewer.models.decoders.base import Candidates, Decoder
from hrviewer.models.decoders.cellpose import Cellpose
from hrviewer.models.decoders.detr import Detr, RtDetr
from hrviewer.models.decoders.end_to_end import EndToEnd, EndToEndMasks, EndToEndOriented
from hrviewer.models.decoders.hovernet import HoverNet
from hrviewer.models.decoders.stardist import StarDist
from hrviewer.models.decoders.yolov5 import YoloV5
from hrviewer.models.decoders.yolov8 import YoloV8, YoloV8Masks, YoloV8Oriented
from hrviewer.models.decoders.yolox import YoloX

__all__ = ["DECODERS", "Candidates", "Decoder"]

DECODERS: dict[str, Decoder] = {
    decoder.name: decoder
    for decoder in (
        YoloX(),
        YoloV5(),
        YoloV8(),
        YoloV8Masks(),
        YoloV8Oriented(),
        EndToEnd(),
        EndToEndMasks(),
        EndToEndOriented(),
        Detr(),
        RtDetr(),
        StarDist(),
        Cellpose(),
        HoverNet(),
    )
}
"""Decoders by name."""
