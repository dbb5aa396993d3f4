"""Channels of an image: names, colours and display windows, as its metadata gives them."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace

from hrviewer.errors import ParameterError

__all__ = [
    "NAMED_COLORS",
    "RGB_CHANNELS",
    "ChannelInfo",
    "ChannelSelection",
    "name_channels",
    "select_channels",
]

ChannelSelection = Sequence[int | str]
"""Channels by index or name."""


@dataclass(frozen=True, slots=True)
class ChannelInfo:
    """One channel.

    Attributes
    ----------
    name : str
        Name in the metadata; empty if there is none.
    color : str or None
        Colour for display, six hexadecimal digits ``RRGGBB``.
    window : tuple of float or None
        Pixel values that are displayed as black and as the full colour.
    """

    name: str = ""
    color: str | None = None
    window: tuple[float, float] | None = None

    def __post_init__(self) -> None:
        color, window = self.color, self.window
        if color is not None:
            valid = re.fullmatch(r"#?([0-9a-fA-F]{6})([0-9a-fA-F]{2})?", color.strip())
            object.__setattr__(self, "color", valid[1].upper() if valid else None)
        if window is not None and not float("-inf") < window[0] < window[1] < float("inf"):
            object.__setattr__(self, "window", None)


NAMED_COLORS = {"red": "FF0000", "green": "00FF00", "blue": "0000FF"}
"""Colours of bands that are named after them, where the file gives none."""

RGB_CHANNELS = tuple(ChannelInfo(name, color) for name, color in NAMED_COLORS.items())
"""Channels of a colour image."""


def name_channels(
    infos: Sequence[ChannelInfo], count: int, *, is_rgb: bool
) -> tuple[ChannelInfo, ...]:
    """Return one entry for each of `count` channels; those of a colour image get their names."""
    listed = [*infos[:count], *[ChannelInfo()] * (count - len(infos))]
    if is_rgb:
        for i, known in enumerate(RGB_CHANNELS[:count]):
            listed[i] = replace(
                listed[i], name=listed[i].name or known.name, color=listed[i].color or known.color
            )
    return tuple(listed)


def select_channels(
    name: str,
    channels: int | Sequence[ChannelInfo],
    wanted: ChannelSelection | None,
    default: Sequence[int] | None = None,
) -> tuple[int, ...] | None:
    """Return the indices of the selected channels, None for those that are read by default.

    Parameters
    ----------
    name : str
        Name of the image, for messages.
    channels : int or sequence of ChannelInfo
        All channels, or their number.
    wanted : sequence of int or str, optional
        Indices, or names of the metadata: the case of letters is ignored where only one channel
        has that name.
    default : sequence of int, optional
        Channels that are read by default; all if not given.

    Raises
    ------
    ParameterError
        If there is no such channel, or several have the name.
    """
    infos = [ChannelInfo()] * channels if isinstance(channels, int) else list(channels)
    if wanted is None:
        return None
    found = tuple(_find(name, infos, entry) for entry in wanted)
    if not found:
        raise ParameterError(f"{name}: none of its channels is selected: {_listed(infos)}")
    return None if found == tuple(range(len(infos)) if default is None else default) else found


def _find(name: str, infos: Sequence[ChannelInfo], wanted: int | str) -> int:
    """Return the index of a channel."""
    if isinstance(wanted, str):
        text = wanted.strip()
        exact = [i for i, info in enumerate(infos) if info.name == text]
        similar = [i for i, info in enumerate(infos) if info.name.lower() == text.lower()]
        matches = exact or similar
        if len(matches) > 1:
            raise ParameterError(
                f"{name} has several channels named {text!r}: select one by its number, "
                f"{' or '.join(map(str, matches))}"
            )
        if matches:
            return matches[0]
        if not text.isdecimal():
            raise ParameterError(f"{name} has no channel {text!r}; {_listed(infos)}")
        wanted = int(text)
    if not 0 <= wanted < len(infos):
        raise ParameterError(f"{name} has no channel {wanted}; {_listed(infos)}")
    return int(wanted)


def _listed(infos: Sequence[ChannelInfo]) -> str:
    names = [info.name for info in infos[:32]]
    if not any(names):
        return f"it has channels 0 to {len(infos) - 1}"
    named = ", ".join(f"{i} {name}".strip() for i, name in enumerate(names))
    return f"it has {named}{', …' if len(infos) > 32 else ''}"
