"""The base of a card's sections."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict

__all__ = ["CardSection"]


class CardSection(BaseModel):
    """Frozen and finite; unknown fields are errors, so that no typo passes silently."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)
