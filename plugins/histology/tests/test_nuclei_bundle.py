"""The model bundle that counts nuclei: complete, small, and as accurate as its card states."""

from __future__ import annotations

import hashlib
import json
import os
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file

torch = pytest.importorskip("torch")

from hrviewer.models.card import ModelCard  # noqa: E402
from hrviewer.training.density_task import build, count_metrics, normalise, predict_density  # noqa: E402

from hrviewer_histology import nuclei  # noqa: E402
from hrviewer_histology.photos import Photo, read_photos  # noqa: E402
from hrviewer_histology.stains import PhotoFields  # noqa: E402
from hrviewer_histology.training_tasks import INPUT, count_samples  # noqa: E402

SHARED = Path(os.environ.get("HRVIEWER_SHARED", Path(__file__).parents[3].parent / "shared"))
DATA = SHARED / "data" / "nuclei"


@pytest.fixture(scope="module")
def card() -> dict[str, Any]:
    bundle = json.loads((nuclei() / "bundle.json").read_text(encoding="utf-8"))
    assert bundle["name"] == "nuclei"
    return bundle["roles"]["main"]["card"]


@pytest.fixture(scope="module")
def network(card: dict[str, Any]) -> torch.nn.Module:
    network = build(ModelCard.from_dict(card, "the card").architecture)
    network.load_state_dict(load_file(nuclei() / "main.safetensors"))
    return network.eval()


@pytest.fixture(scope="module")
def photos() -> list[Photo]:
    if not DATA.is_dir():
        pytest.skip(f"the labelled photos are not at {DATA}")
    return read_photos(DATA, "val")


def test_the_bundle_is_found_by_its_entry_point() -> None:
    found = [e for e in entry_points(group="hrviewer.models") if e.name == "nuclei"]
    if not found:
        pytest.skip("hrviewer-histology is not installed")
    assert found[0].load()() == nuclei()


def test_the_weights_are_those_of_the_card_and_small(card: dict[str, Any]) -> None:
    data = (nuclei() / "main.safetensors").read_bytes()
    assert hashlib.sha256(data).hexdigest() == card["sha256"]
    assert len(data) < 2_000_000


def test_the_card_matches_the_network(card: dict[str, Any], network: torch.nn.Module) -> None:
    assert card["task"] == "density"
    step, stride = card["input"]["multiple_of"], card["output"]["stride"]
    assert card["input"]["tile"] % step == 0
    assert card["output"]["halo"] == network.halo
    assert card["input"]["scale"] == pytest.approx(1 / 255)
    density = network(torch.zeros(2, 3, 3 * step, 2 * step))
    assert density.shape == (
        2,
        len(card["output"]["classes"]),
        3 * step // stride,
        2 * step // stride,
    )
    assert (density >= 0).all()


def test_a_tile_with_its_halo_is_as_in_the_whole(network: torch.nn.Module) -> None:
    rgb = torch.rand(3, 512, 512, generator=torch.Generator().manual_seed(0))
    rgb[:, 100:400, 100:400] *= (
        torch.rand(300 // 4, 300 // 4).repeat_interleave(4, 0).repeat_interleave(4, 1)
    )
    halo, side = network.halo, 128
    whole = predict_density(network, rgb, INPUT)[0]
    for y, x in ((192, 192), (208, 240), (384, 0)):
        top, left = max(0, y - halo), max(0, x - halo)
        tile = predict_density(
            network, rgb[:, top : y + side + halo, left : x + side + halo], INPUT
        )[0]
        a, b, s = (y - top) // 4, (x - left) // 4, side // 4
        torch.testing.assert_close(
            tile[a : a + s, b : b + s],
            whole[y // 4 : y // 4 + s, x // 4 : x // 4 + s],
            atol=1e-5,
            rtol=0,
        )


def test_clear_glass_holds_no_nuclei(network: torch.nn.Module) -> None:
    for level in (0.9, 0.95, 1.0):
        assert float(predict_density(network, torch.full((3, 512, 512), level), INPUT).sum()) < 1


@pytest.mark.slow
def test_val_photos_are_counted_as_the_card_says(
    card: dict[str, Any], network: torch.nn.Module, photos: list[Photo]
) -> None:
    for factor in (1, 2, 4):
        found = count_metrics(network, count_samples(photos, factor), INPUT)["mae_over_mean"]
        assert found == pytest.approx(card["metrics"][f"val_{factor}"]["mae_over_mean"], abs=2e-3)
    assert count_metrics(network, count_samples(photos), INPUT)["mae_over_mean"] <= 0.12


def test_every_nucleus_has_mass_one(photos: list[Photo]) -> None:
    for photo in photos:
        assert float(photo.layers[3].sum()) == pytest.approx(photo.count, rel=1e-4)


def test_every_visible_nucleus_of_a_crop_counts_one(photos: list[Photo]) -> None:
    photo = photos[0]
    h, w = photo.labels.shape
    torch.testing.assert_close(photo.crop(0, 0, h, w), photo.layers)
    piece, labels = photo.crop(40, 50, 90, 70), photo.labels[40:130, 50:120]
    whole = [
        float(piece[3][labels == n].sum())
        for n in labels.unique().tolist()
        if n and n <= photo.count
    ]
    # Slivers are not visible; every visible nucleus counts one, even if most of it is cut off.
    assert all(
        mass == pytest.approx(0, abs=1e-6) or mass == pytest.approx(1, rel=1e-4) for mass in whole
    )
    assert sum(whole) > float(photo.layers[3, 40:130, 50:120].sum())


@pytest.mark.slow
def test_fields_depend_on_seed_and_number_only(photos: list[Photo]) -> None:
    a, b = (PhotoFields(photos[1:4], 2, batch=3, side=64, seed=7)[1] for _ in range(2))
    assert all(torch.equal(x, y) for x, y in zip(a, b, strict=True))
    rgb, density = a
    assert rgb.shape == (3, 3, 64, 64)
    assert density.shape == (3, 1, 16, 16)
    assert rgb.min() >= 0
    assert rgb.max() <= 1
    assert normalise(rgb, INPUT).shape == rgb.shape
