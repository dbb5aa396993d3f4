"""Animated WebP of a window: frames of limited size, and a file of limited size."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

__all__ = ["Film"]

WIDTH = 960
"""Pixels; frames are downsampled to it."""

MAX_BYTES = 4_000_000
QUALITIES = (55, 35, 15)


class Film:
    """Frames with their durations.

    Parameters
    ----------
    width : int
        Of a frame, in pixels; larger screenshots are downsampled.
    """

    def __init__(self, width: int = WIDTH) -> None:
        self.width = width
        self.frames: list[Image.Image] = []
        self.durations: list[int] = []

    def add(self, pixels: NDArray[np.uint8], seconds: float = 0.2) -> None:
        """Append a frame, ``(h, w, 3 or 4)``; one that equals the last extends it."""
        frame = Image.fromarray(pixels[..., :3])
        height = round(frame.height * self.width / frame.width)
        frame = frame.resize((self.width, height), Image.Resampling.HAMMING)
        if self.frames and frame.size != self.frames[0].size:
            frame = frame.resize(self.frames[0].size, Image.Resampling.HAMMING)
        if self.frames and frame.tobytes() == self.frames[-1].tobytes():
            self.durations[-1] += round(1000 * seconds)
            return
        self.frames.append(frame)
        self.durations.append(round(1000 * seconds))

    def hold(self, seconds: float) -> None:
        """Show the last frame longer."""
        if self.durations:
            self.durations[-1] += round(1000 * seconds)

    def save(self, path: Path, max_bytes: int = MAX_BYTES) -> int:
        """Write the film at the best quality that fits; return its size in bytes.

        Where the lowest quality does not fit, every other frame is left out, and so on.
        """
        frames, durations = self.frames, self.durations
        while True:
            for quality in QUALITIES:
                first, *rest = frames
                first.save(
                    path,
                    format="WEBP",
                    save_all=True,
                    append_images=rest,
                    duration=durations,
                    loop=0,
                    quality=quality,
                    method=2,
                )
                size = path.stat().st_size
                if size <= max_bytes:
                    return size
            if len(frames) < 2:
                return size
            pairs = range(0, len(frames), 2)
            durations = [sum(durations[i : i + 2]) for i in pairs]
            frames = frames[::2]
