"""What a strategy is, and where strategies are found."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Container, Mapping
from functools import cache
from importlib.metadata import entry_points
from typing import Any, ClassVar, Literal, get_args, get_origin

from pydantic import BaseModel, ConfigDict, Field, ValidationInfo, field_validator

from hrviewer.errors import HrviewerError
from hrviewer.strategies.protocol import Plan, PlanContext

__all__ = [
    "Params",
    "SpecialValueText",
    "Strategy",
    "VisibleIf",
    "get_strategy",
    "halo_field",
    "strategy_ids",
    "tile_field",
]

GROUP = "hrviewer.strategies"

VisibleIf = Mapping[str, tuple[str, tuple[str, ...]]]
"""What `Params.only` is."""

SpecialValueText = Mapping[str, str]
"""What `Params.least` is."""


class Params(BaseModel):
    """A strategy's parameters: they make the widget, the command's options and the provenance.

    Attributes
    ----------
    visible_if : mapping
        Parameters that say something for some choices of another one only: each with the name of
        that one and those choices. The window shows them for these alone.
    special_value_text : mapping
        Words for what a parameter's least value, which is no amount, or an empty one stands for.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    visible_if: ClassVar[VisibleIf] = {}
    special_value_text: ClassVar[SpecialValueText] = {}

    @field_validator("*", mode="before")
    @classmethod
    def _parse_choice(cls, value: Any, info: ValidationInfo) -> Any:
        """Take a choice among numbers as the command line writes it, as pydantic does a number."""
        kind = cls.model_fields[str(info.field_name)].annotation
        if isinstance(value, str) and get_origin(kind) is Literal:
            return next((choice for choice in get_args(kind) if str(choice) == value), value)
        return value


def tile_field(description: str) -> Any:
    """Declare the side of a look, in network pixels, which is the same in every strategy."""
    return Field(0, ge=0, le=8192, title="Tile", description=description)


def halo_field(description: str) -> Any:
    """Declare the context around a look, in network pixels; -1 takes the card's."""
    return Field(-1, ge=-1, le=2048, title="Halo", description=description)


class Strategy(ABC):
    """A policy that says where to look next.

    Attributes
    ----------
    id, title, family : str
        The command line's name, the person's, and the survey's family.
    when : str
        One line: when to choose it.
    Params : type
        Its parameters.
    roles : tuple of str
        What it needs of the pack; ``main`` always.
    priors : tuple of str
        The maps that it can be told beforehand: ``"saliency"`` is what a person drew,
        ``"density"`` what an earlier run saw.
    default_budget : float, optional
        FLOPs by default, as a fraction of looking at every pixel with ``main``; None for what the
        strategy needs.
    default_tiles : float
        Tiles of ``main`` that the default pays for at least: where the image is small, so is the
        price of a few looks, and fewer tell little.
    """

    id: ClassVar[str]
    title: ClassVar[str]
    family: ClassVar[str]
    when: ClassVar[str]
    Params: ClassVar[type[Params]]
    roles: ClassVar[tuple[str, ...]] = ("main",)
    priors: ClassVar[tuple[str, ...]] = ()
    default_budget: ClassVar[float | None] = None
    default_tiles: ClassVar[float] = 0.0

    def answering_role(self, roles: Container[str]) -> str:
        """Return which of a pack's roles gives the answer, and so what its classes mean."""
        return "main"

    @abstractmethod
    def plan(self, context: PlanContext, params: Any) -> Plan:
        """Yield requests, receive results, return the answer."""


@cache
def _installed() -> dict[str, Any]:
    return {point.name: point for point in entry_points(group=GROUP)}


def strategy_ids() -> list[str]:
    """Return the names of the strategies that are installed, baselines first."""
    baselines = [name for name in ("uniform", "patches") if name in _installed()]
    return baselines + sorted(_installed().keys() - set(baselines))


def get_strategy(name: str) -> Strategy:
    """Return a strategy by its id.

    Raises
    ------
    UserError
        If there is none of that name.
    """
    try:
        point = _installed()[name]
    except KeyError:
        raise HrviewerError(
            f"there is no strategy {name!r}; choose one of: {', '.join(strategy_ids())}"
        ) from None
    strategy: Strategy = point.load()()
    return strategy
