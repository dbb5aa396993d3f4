"""What figures and things have in common: colours of a table, shadows on the ground."""

from __future__ import annotations

from typing import Any

import numpy as np

from hrviewer_samples.drawing import ellipse, stroke
from hrviewer_samples.noise import compiled, uniform

__all__ = ["CANVAS", "pick", "shadow"]

CANVAS = np.array([(196, 60, 52), (60, 108, 168), (226, 188, 88), (70, 136, 98)], float)
"""Of parasols, stalls and awnings."""


@compiled
def pick(table: Any, h: Any, k: Any) -> Any:
    """Return a colour of a table, a little lighter or darker."""
    c = table[int(uniform(h, k, 0, 70) * len(table))]
    v = 0.88 + 0.24 * uniform(h, k, 1, 70)
    return min(250.0, c[0] * v), min(250.0, c[1] * v), min(250.0, c[2] * v)


@compiled
def shadow(
    w: Any, c: Any, oy: Any, ox: Any, s: Any, y: Any, x: Any, p: Any, high: Any, half: Any
) -> None:
    """Darken the ground behind something `high` metres tall and `half` a metre wide."""
    dx, dy = w.sun_x * high * p, -w.sun_z * high * p
    if abs(dx) + abs(dy) > half * p:
        stroke(c, oy, ox, s, y, x, y + dy, x + dx, half * p, 20.0, 22.0, 34.0, w.shade)
    else:
        ellipse(
            c, oy, ox, s, y, x, 0.6 * half * p, 1.3 * half * p, 20.0, 22.0, 30.0, w.shade + 0.12
        )
