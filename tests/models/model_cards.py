from __future__ import annotations

from typing import Any

from hrviewer.models import ModelCard


def card_fields(**changes: Any) -> dict[str, Any]:
    """A card's JSON; ``input`` and ``output`` are merged field by field."""
    fields: dict[str, Any] = {
        "name": "net",
        "task": "density",
        "input": {"channels": "rgb", "tile": 64},
        "output": {"stride": 1, "classes": ["thing"]},
    }
    for key, value in changes.items():
        part = isinstance(value, dict) and key in ("input", "output")
        fields[key] = fields[key] | value if part else value
    return fields


def make_card(**changes: Any) -> ModelCard:
    return ModelCard.from_dict(card_fields(**changes), "card")
