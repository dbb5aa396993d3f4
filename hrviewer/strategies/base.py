"""The base class of strategies, and their registry."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Container, Mapping
from functools import cache
from importlib.metadata import entry_points
from typing import Any, ClassVar, Literal, Self, get_args, get_origin

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    ValidationInfo,
    field_validator,
    model_validator,
)

from hrviewer.errors import ParameterError
from hrviewer.extensions import load_extension
from hrviewer.strategies.protocol import Plan, PlanContext

__all__ = [
    "ChoiceTitles",
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
"""Type of `Params.visible_if`."""

SpecialValueText = Mapping[str, str]
"""Type of `Params.special_value_text`."""

ChoiceTitles = Mapping[str, Mapping[str, str]]
"""Type of `Params.choice_titles`."""


class Params(BaseModel):
    """A strategy's parameters: the source of the form, the command's options and the provenance.

    Attributes
    ----------
    visible_if : mapping
        Parameters that apply only to some choices of another one: each with the name of that
        one and those choices. The form shows them for these choices only, and for others they are
        refused, as they would have no effect.
    special_value_text : mapping
        Texts for a parameter's minimum (or empty value) where it stands for "automatic" or
        similar instead of an amount.
    choice_titles : mapping
        Titles of a parameter's choices in a form, where the choice itself is no plain word.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    visible_if: ClassVar[VisibleIf] = {}
    special_value_text: ClassVar[SpecialValueText] = {}
    choice_titles: ClassVar[ChoiceTitles] = {}

    @field_validator("*", mode="before")
    @classmethod
    def _parse_choice(cls, value: Any, info: ValidationInfo) -> Any:
        """Parse a choice among numbers from a string, as pydantic parses a number."""
        kind = cls.model_fields[str(info.field_name)].annotation
        if isinstance(value, str) and get_origin(kind) is Literal:
            return next((choice for choice in get_args(kind) if str(choice) == value), value)
        return value

    @model_validator(mode="after")
    def _check_effect(self) -> Self:
        """Refuse parameters that have no effect with the other ones."""
        for name, (other, choices) in self.visible_if.items():
            field = type(self).model_fields[name]
            given, chosen = getattr(self, name), getattr(self, other)
            if given != field.default and chosen not in choices:
                options = " or ".join(map(str, choices))
                raise ValueError(
                    f"{name} has no effect with {other}={chosen}, only with {options}: leave it out"
                )
        return self


def tile_field(description: str) -> Any:
    """Declare the side of a tile in model pixels, in the same way for every strategy."""
    return Field(0, ge=0, le=8192, title="Tile", description=description)


def halo_field(description: str) -> Any:
    """Declare the context around a tile in model pixels; -1 takes the card's."""
    return Field(-1, ge=-1, le=2048, title="Halo", description=description)


class Strategy(ABC):
    """A policy that selects the patches for inference.

    Attributes
    ----------
    id, title, family : str
        Name on the command line, name in the window, and family in the survey.
    when : str
        One line: when to choose it.
    Params : type
        Its parameters.
    roles : tuple of str
        Roles that it needs from the model bundle; ``main`` always.
    priors : tuple of str
        Prior maps that it accepts: ``"saliency"``, drawn by the user, and ``"density"``, the
        output of an earlier run.
    default_budget : float, optional
        Default budget, as a fraction of the FLOPs of running ``main`` on every pixel; None for
        no limit. It pays for a small input at least.
    default_tiles : float
        Tiles of ``main`` that the default budget pays for at least: on a small image a few more
        tiles cost little, and fewer are too few for an estimate.
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
        """Return the role whose model gives the estimate, and so the meaning of its classes."""
        return "main"

    def choose(self, context: PlanContext, params: Any) -> Any:
        """Return the parameters with values in place of automatic ones, as a run records them.

        Without any inference: from the image, the models and the budget alone.
        """
        return params

    def as_part(
        self, context: PlanContext, whole: PlanContext, params: Any
    ) -> tuple[PlanContext, Any]:
        """Return context and parameters for a part of a region, such as a cell of a live view.

        The parts of a region together give what the whole region gives: what is chosen for a
        region as a whole, such as a scale, is chosen for `whole`.
        """
        return context, params

    def advice(self, context: PlanContext, params: Any) -> str:
        """Return a note, before anything runs, where another strategy is better; else nothing."""
        return ""

    @abstractmethod
    def plan(self, context: PlanContext, params: Any) -> Plan:
        """Yield requests, receive responses, return the estimate."""


@cache
def _installed() -> dict[str, Any]:
    return {point.name: point for point in entry_points(group=GROUP)}


def strategy_ids() -> list[str]:
    """Return the ids of the installed strategies, baselines first."""
    baselines = [name for name in ("uniform", "patches") if name in _installed()]
    return baselines + sorted(_installed().keys() - set(baselines))


def get_strategy(name: str) -> Strategy:
    """Return a strategy by its id.

    Raises
    ------
    ParameterError
        If no strategy of that id is installed, or its package is broken.
    """
    try:
        point = _installed()[name]
    except KeyError:
        raise ParameterError(
            f"unknown strategy {name!r}; choose one of: {', '.join(strategy_ids())}"
        ) from None
    strategy: Strategy = load_extension(point, "the strategy", ParameterError, instantiate=True)
    return strategy
