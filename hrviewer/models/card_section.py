"""The base of a card's sections."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict, field_validator

from hrviewer.escaping import printable

__all__ = ["CardSection"]


class CardSection(BaseModel):
    """Frozen and finite; unknown fields are errors, so that no typo passes silently."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    @field_validator("*")
    @classmethod
    def _escape_control_characters(cls, value: Any) -> Any:
        """Names of models and classes reach terminals and widgets."""
        if isinstance(value, str):
            return printable(value, keep="\n")
        if isinstance(value, tuple):
            return tuple(printable(v) if isinstance(v, str) else v for v in value)
        return value
