"""The model bundle that counts people: complete, small, found by its entry point."""

from __future__ import annotations

import hashlib
import json
from importlib.metadata import entry_points
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from hrviewer.geometry import Rect  # noqa: E402
from hrviewer.models import ModelBundle  # noqa: E402
from hrviewer.pyramid.synthetic import make_synthetic_image  # noqa: E402

from hrviewer_crowd import crowd  # noqa: E402


@pytest.fixture(scope="module")
def roles() -> dict[str, Any]:
    bundle: dict[str, Any] = json.loads((crowd() / "bundle.json").read_text(encoding="utf-8"))
    assert bundle["name"] == "crowd"
    return bundle["roles"]


def test_the_bundle_is_found_by_its_entry_point() -> None:
    found = [e for e in entry_points(group="hrviewer.models") if e.name == "crowd"]
    if not found:
        pytest.skip("hrviewer-crowd is not installed")
    assert found[0].load()() == crowd()


def test_the_weights_are_those_of_the_cards_and_small(roles: dict[str, Any]) -> None:
    for role in roles.values():
        data = (crowd() / role["weights"]).read_bytes()
        assert hashlib.sha256(data).hexdigest() == role["card"]["sha256"]
        assert len(data) < 2_000_000


def test_people_are_counted_and_an_empty_square_is_not() -> None:
    pytest.importorskip("hrviewer_samples")
    image = make_synthetic_image("crowd", 4096, 10_001)
    main = ModelBundle.read(crowd()).load("main", "cpu")
    whole = Rect(0, 0, 4096, 4096)
    points = image.ground_truth(whole).points
    counts, ys, xs = np.histogram2d(*points.T, bins=8, range=[[0, 4096]] * 2)

    def estimate(row: int, column: int) -> float:
        pixels = image.render(Rect(int(ys[row]), int(xs[column]), 512, 512), 1)
        return float(main(main.card.prepare(pixels)[None]).sum())

    full = np.unravel_index(counts.argmax(), counts.shape)
    empty = np.unravel_index(counts.argmin(), counts.shape)
    assert counts[full] > 30
    assert counts[empty] == 0
    assert estimate(*full) > 10 * max(1.0, estimate(*empty))
