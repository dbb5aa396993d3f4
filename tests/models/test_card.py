from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from model_cards import card_fields, make_card
from PIL import Image

from hrviewer.errors import HrviewerError
from hrviewer.models import ModelCard
from hrviewer.models.accuracy import ScaleCurve
from hrviewer.objects import MergeSettings


def gray(**more: Any) -> ModelCard:
    return make_card(input={"channels": "gray", **more})


def test_importing_loads_no_back_end() -> None:
    code = (
        "import sys, hrviewer.models; "
        "print({'torch', 'onnx', 'onnxruntime', 'napari'} & set(sys.modules))"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "set()"


def test_every_shared_card_is_read(shared: Path) -> None:
    for path in sorted((shared / "models").glob("*.json")):
        card = ModelCard.read(path)
        assert json.loads(path.read_text())["name"] == card.name
    assert len(ModelCard.read(shared / "models/yolox_nano.json").classes) == 80


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"halo": 3}, "halo"),
        ({"input": {"tiles": 3}}, "input.tiles"),
        ({"input": {"channels": "hsv"}}, "input.channels"),
        ({"input": {"tile": 10, "multiple_of": 4}}, "multiple"),
        ({"input": {"mean": [1, 2]}}, "mean has 2 numbers for 3 channels"),
        ({"input": {"std": [0]}}, "input.std"),
        ({"input": {"mean": [float("nan")]}}, "input.mean"),
        ({"output": {"stride": 0}}, "output.stride"),
        ({"output": {"stride": 1.5}}, "whole number"),
        ({"output": {"stride": []}}, "empty"),
        ({"output": {"stride": [8, 16]}}, "list for detection only"),
        ({"output": {"classes": "coco81"}}, "coco81"),
        ({"task": "saliency", "output": {"variance": True}}, "variance is for density only"),
        ({"output": {"classes": []}}, "output.classes"),
        ({"task": "embedding"}, "output.width"),
        ({"task": "detection"}, "output.decode"),
        ({"sha256": "abc"}, "sha256"),
        ({"task": "guessing"}, "task"),
    ],
)
def test_an_invalid_card_is_reported_with_its_field(changes: dict[str, Any], field: str) -> None:
    with pytest.raises(HrviewerError, match=field) as raised:
        make_card(**changes)
    assert "\n" not in str(raised.value)


def test_a_missing_card_and_invalid_json(tmp_path: Path) -> None:
    with pytest.raises(HrviewerError, match="is missing"):
        ModelCard.read(tmp_path / "a.json")
    (tmp_path / "b.json").write_text("{")
    with pytest.raises(HrviewerError, match="JSON"):
        ModelCard.read(tmp_path / "b.json")
    (tmp_path / "c.json").write_text("[1]")
    with pytest.raises(HrviewerError, match="card"):
        ModelCard.read(tmp_path / "c.json")


def test_gray_equals_pillow(rng: np.random.Generator) -> None:
    rgb = rng.integers(0, 256, (64, 65, 3), np.uint8)
    want = np.asarray(Image.fromarray(rgb).convert("L"), np.float32)
    np.testing.assert_array_equal(gray().prepare(rgb)[0], want)
    np.testing.assert_array_equal(gray().prepare(np.dstack([rgb, rgb[..., 0]]))[0], want)
    # Wider types carry the same picture, but for the rounding.
    np.testing.assert_allclose(gray().prepare(rgb.astype(np.uint16) * 257)[0], want, atol=0.51)
    np.testing.assert_allclose(gray().prepare(rgb.astype(np.float32))[0], want, atol=0.51)


def test_channels(rng: np.random.Generator) -> None:
    rgb = rng.integers(0, 256, (5, 4, 3), np.uint8)
    np.testing.assert_array_equal(make_card().prepare(rgb), rgb.transpose(2, 0, 1))
    bgr = make_card(input={"channels": "bgr"}).prepare(rgb)
    np.testing.assert_array_equal(bgr, rgb[..., ::-1].transpose(2, 0, 1))
    one = rgb[..., 0]
    np.testing.assert_array_equal(make_card().prepare(one), [one] * 3)
    np.testing.assert_array_equal(gray().prepare(rgb[..., :2]), [one])
    many = make_card(input={"channels": 3})
    assert many.prepare(rgb).flags.c_contiguous
    with pytest.raises(HrviewerError, match="takes 3 channels, but the image has 4"):
        many.prepare(np.zeros((2, 2, 4)))


@pytest.mark.parametrize(
    ("value", "want"),
    [
        (np.uint8(255), 255),
        (np.uint16(65535), 255),
        (np.uint16(257), 1),
        (np.uint32(2**32 - 1), 255),
        (np.int16(-7), -7),
        (np.float32(0.5), 0.5),
        (np.float64(np.nan), 0),
        (np.float32(np.inf), 0),
        (np.bool_(True), 255),
    ],
)
@pytest.mark.parametrize("channels", [1, 3])
def test_types(value: np.generic, want: float, channels: int) -> None:
    got = gray().prepare(np.full((2, 3, channels), value))
    assert got.dtype == np.float32
    np.testing.assert_allclose(got, np.full((1, 2, 3), want), rtol=1e-6)


def test_normalisation_is_per_channel() -> None:
    card = make_card(input={"scale": 0.5, "mean": [1, 2, 3], "std": [1, 2, 4]})
    got = card.prepare(np.full((1, 1, 3), 10, np.uint8))
    np.testing.assert_allclose(got.ravel(), [4, 1.5, 0.5])


def test_the_cache_key_has_all_fields_that_change_predictions() -> None:
    one = make_card()
    assert make_card(title="another", metrics={"mae": 3}, licence="MIT").cache_key == one.cache_key
    assert make_card(input={"scale": 0.5}).cache_key != one.cache_key


def test_thresholds_are_of_detectors_and_change_their_predictions() -> None:
    fields = card_fields()
    plain = ModelCard.from_dict(fields, "card")
    assert "score" not in plain.cache_key
    assert plain.merge_settings == MergeSettings()
    detector = fields | {
        "task": "detection",
        "output": {"stride": 32, "classes": ["a"], "decode": "end2end", "overlap": 0.7},
    }
    card = ModelCard.from_dict(detector, "card")
    assert card.merge_settings == MergeSettings(overlap=0.7)
    assert '"overlap":0.7' in card.cache_key
    fields["output"]["score"] = 0.5
    with pytest.raises(HrviewerError, match=r"output.score and output.overlap are for detection"):
        ModelCard.from_dict(fields, "card")


def test_sizes() -> None:
    card = make_card(input={"multiple_of": 16}, output={"stride": 24})
    assert (card.stride, card.step, card.output_channels) == (24, 48, 1)
    assert make_card(output={"stride": 0.5}).stride == 1
    assert ModelCard.from_dict(card_fields(), "x").input.channel_count == 3


def test_variances_come_after_the_densities() -> None:
    card = make_card(task="density", output={"classes": ["a", "b"], "variance": True})
    assert (card.classes, card.output_channels) == (("a", "b"), 4)


def test_measured_accuracy_is_read_by_domain() -> None:
    measured = {"domain": "images", "images": 3, "data": "seeds 0-2", "command": "measure"}
    card = make_card(
        accuracy={
            "count_error": [
                {**measured, "synthetic": "dots", "per_object": 0.5, "relative": 0.1,
                 "constant": 2.0, "counts": [0, 100]}
            ],
            "scale_curve": [{**measured, "points": [{"scale": 1, "gain": 1}]}],
        }
    )  # fmt: skip
    error = card.accuracy.count_error_for("dots")
    assert error is not None
    assert error.deviation(100) == pytest.approx((2**2 + 0.5 * 100 + 10**2) ** 0.5)
    assert card.accuracy.count_error_for(None) is None
    assert card.accuracy.scale_curve_for(None) is not None
    assert make_card().accuracy.count_error == ()


def test_a_curve_is_interpolated_in_the_logarithm_of_the_scale() -> None:
    measured = {"domain": "images", "images": 3, "data": "seeds 0-2", "command": "measure"}
    points = [
        {"scale": 1, "gain": 1},
        {"scale": 2, "gain": 1.2, "relative": 0.1},
        {"scale": 8, "gain": 1.4, "per_object": 0.5, "relative": 0.3},
    ]
    curve = ScaleCurve.model_validate({**measured, "points": points})
    assert curve.at(2) == curve.points[1]
    assert curve.at(0.5) == curve.points[0]
    between = curve.at(4)
    assert between is not None
    assert (between.gain, between.relative) == pytest.approx((1.3, 0.2))
    assert between.per_object == pytest.approx(0.25)
    assert curve.at(8.1) is None


@pytest.mark.parametrize(
    ("section", "message"),
    [
        ({"count_error": [{"quantiles": [1, 2], "counts": [0, 1]}]}, "negative and a positive"),
        ({"scale_curve": [{"points": [{"scale": 2, "gain": 1}, {"scale": 1, "gain": 1}]}]}, "rise"),
    ],
)
def test_an_impossible_accuracy_is_refused(section: dict[str, Any], message: str) -> None:
    measured = {"domain": "images", "images": 3, "data": "seeds 0-2", "command": "measure"}
    section = {name: [{**measured, **one} for one in entries] for name, entries in section.items()}
    with pytest.raises(HrviewerError, match=message):
        ModelCard.from_dict(card_fields(accuracy=section), "a card")
