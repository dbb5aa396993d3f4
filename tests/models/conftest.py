from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from model_cards import card_fields


@pytest.fixture(scope="session")
def shared() -> Path:
    """Published networks and pictures, kept beside the checkout."""
    here = Path(__file__).resolve().parents[2] / ".." / "shared"
    folder = Path(os.environ.get("HRVIEWER_SHARED", here)).resolve()
    if not (folder / "models").is_dir():
        pytest.skip("no shared data beside the checkout: set HRVIEWER_SHARED")
    return folder


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(0)


@pytest.fixture
def save(tmp_path: Path) -> Callable[..., Path]:
    """Save an ONNX graph of `nodes` with its card; returns the ``.onnx`` file's path."""

    def write(
        nodes: list[Any],
        weights: dict[str, np.ndarray] | None = None,
        shape: tuple[int | str, ...] = ("n", 3, "h", "w"),
        outputs: tuple[str, ...] = ("y",),
        kind: int = 1,
        **changes: Any,
    ) -> Path:
        from onnx import helper, numpy_helper, save_model

        graph = helper.make_graph(
            nodes,
            "g",
            [helper.make_tensor_value_info("x", kind, shape)],
            [helper.make_empty_tensor_value_info(name) for name in outputs],
            [numpy_helper.from_array(w, name) for name, w in (weights or {}).items()],
        )
        opset = helper.make_opsetid("", 17)
        model = helper.make_model(graph, opset_imports=[opset], ir_version=8)
        path = tmp_path / "net.onnx"
        save_model(model, path)
        path.with_suffix(".json").write_text(json.dumps(card_fields(**changes)))
        return path

    return write
