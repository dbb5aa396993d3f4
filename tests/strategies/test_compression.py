"""Compression: embeddings equal those of the whole image, and are computed only once."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import astuple
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from toys import FLOPS, Bright, Encoder, Head, ToyBundle, Workbench, collect_cells, picture

import hrviewer
import hrviewer.runs
from hrviewer.engine import InferenceResult, ResultCache, RunControl, RunRecord
from hrviewer.errors import HrviewerError
from hrviewer.geometry import Rect
from hrviewer.models import ModelCard
from hrviewer.models.accuracy import ASSUMED_ERROR, ModelAccuracy
from hrviewer.models.loaders import load
from hrviewer.strategies import Estimate, Plan, PlanContext
from hrviewer.strategies.compression import Compression, CompressionParams, _head_context

IMAGE = picture(400, 520)
RED = IMAGE[..., 0].astype(float) / 255
TILES = 7 * 9
EMBEDDING_COUNT = 100 * 130


def with_error(network: Bright, **error: float) -> Bright:
    """Return a network whose card has an error against `main`."""
    measured = ASSUMED_ERROR.model_copy(update={"spread": 0.0} | error)
    accuracy = ModelAccuracy(prediction_error=measured)
    network.card = network.card.model_copy(update={"accuracy": accuracy})
    return network


def policy(**params: Any) -> Callable[[PlanContext], Plan]:
    def compress(context: PlanContext) -> Plan:
        return Compression().plan(context, CompressionParams(**params))

    return compress


def make_bundle(**networks: Bright) -> ToyBundle:
    parts: dict[str, Bright] = {"main": Bright(), "encoder": Encoder(), "head": Head("head")}
    return ToyBundle(**parts | networks)


def ask(toys: ToyBundle, **how: Any) -> tuple[Estimate, RunRecord]:
    with Workbench(IMAGE, toys) as bench:
        estimate, record, _ = bench.run(policy(), **how)
    assert estimate is not None
    return estimate, record


def test_the_head_counts_from_embeddings() -> None:
    estimate, record = ask(make_bundle())
    assert estimate.values == pytest.approx(
        [RED.sum()], rel=1e-4
    )  # embeddings are rounded to half precision
    blocks = RED.reshape(100, 4, 130, 4).sum((1, 3))
    np.testing.assert_allclose(record.output.values[0], blocks, rtol=1e-3)
    roles = [row.role for row in record.patches]
    assert (roles.count("encoder"), roles.count("head")) == (TILES, 4)
    assert estimate.interval is None
    assert not estimate.exhaustive  # main, whose task the head has, was not run


def test_a_measured_error_of_the_head_gives_the_interval_of_main() -> None:
    head = with_error(Head("head"), ratio=0.9, ratio_deviation=0.05)
    estimate, _ = ask(make_bundle(head=head))
    total = 0.9 * RED.sum()
    assert estimate.values == pytest.approx([total], rel=1e-4)
    half = 1.96 * 0.05 * total
    assert estimate.interval == pytest.approx((total - half, total + half), rel=1e-4)
    assert "corrected by 0.90" in estimate.note


def test_the_cost_map_adds_up() -> None:
    _, record = ask(make_bundle())
    cost_map = record.cost_map
    placed = cost_map.values.sum(axis=(1, 2)) + np.array(astuple(cost_map.unattributed))
    np.testing.assert_allclose(placed, astuple(cost_map.total), rtol=1e-9)
    assert cost_map.total.flops == FLOPS * 400 * 520 + 2.0 * 3 * EMBEDDING_COUNT
    assert cost_map.total.pixels == 400 * 520


def test_cached_embeddings_cost_the_head_alone() -> None:
    cache, toys = ResultCache(), make_bundle()
    ask(toys, cache=cache)
    assert toys.networks["encoder"].inferred == TILES
    # The same run; another region, not on tile borders; and another head.
    _, again = ask(toys, cache=cache)
    assert again.cost_map.spent.flops == 0
    region = Rect(37, 101, 210, 333)
    estimate, part = ask(toys, cache=cache, region=region)
    embeddings = (248 // 4 - 36 // 4) * (436 // 4 - 100 // 4)
    assert part.cost_map.spent.flops == 2.0 * 3 * embeddings
    inside = RED[37:247, 101:434].sum()
    assert estimate.values == pytest.approx([inside], rel=2e-3)  # cells count by their part inside
    assert np.nansum(part.output.values) == pytest.approx(estimate.values[0], rel=1e-5)

    class Half(Head):
        def run_features(self, features: NDArray[np.float32]) -> NDArray[np.float32]:
            return 8 * features[:1]

    estimate, other = ask(
        make_bundle(encoder=toys.networks["encoder"], head=Half("half")), cache=cache
    )
    assert estimate.values == pytest.approx([RED.sum() / 2], rel=1e-4)
    assert other.cost_map.spent.flops == 2.0 * 3 * EMBEDDING_COUNT
    assert toys.networks["encoder"].inferred == TILES


def test_a_run_stores_embeddings_and_notes_their_size(tmp_path) -> None:
    toys = make_bundle()
    run = hrviewer.run(IMAGE, toys, "compression", cache="off", out=tmp_path / "a.run.zarr")
    embeddings, cell = run.map("embeddings")
    assert (embeddings.dtype, embeddings.shape, cell) == (np.float16, (3, 100, 130), 4.0)
    means = RED.reshape(100, 4, 130, 4).mean((1, 3))
    np.testing.assert_allclose(embeddings[0], means, atol=5e-4)
    import zarr

    about = zarr.open_group(run.path / "embeddings", mode="r").attrs["hrviewer"]
    assert about["encoder"] == toys.networks["encoder"].digest
    # 2 bytes for each of 3 numbers, against 48 bytes of pixels.
    assert "1/8 of the image's pixels" in run.header["notes"][-1]
    assert not (run.path / "journal").exists()


def test_a_stopped_run_resumes_with_the_same_encoder_only(tmp_path) -> None:
    control, seen = RunControl(), []
    how = {"out": tmp_path / "a.run.zarr", "cache": "off", "tile": 64}

    def watch(update) -> None:
        seen.append(update)
        if sum(isinstance(update, InferenceResult) for update in seen) == 20:
            control.stop()

    part = hrviewer.runs.run(
        IMAGE, make_bundle(), "compression", **how, control=control, on_event=watch
    )
    assert not part.complete
    assert "main" not in part.header["networks"]
    other = make_bundle(encoder=Encoder("other"))
    with pytest.raises(HrviewerError, match="another model as encoder"):
        hrviewer.runs.run(IMAGE, other, "compression", **how, resume=True)
    done = hrviewer.runs.run(IMAGE, make_bundle(), "compression", **how, resume=True)
    whole = hrviewer.run(
        IMAGE, make_bundle(), "compression", cache="off", tile=64, out=tmp_path / "b.run.zarr"
    )
    assert done.complete
    assert done.estimate == whole.estimate
    again = hrviewer.runs.run(IMAGE, make_bundle(), "compression", **how, resume=True)
    assert again.estimate == whole.estimate


def test_without_a_head_there_are_embeddings_and_no_estimate(tmp_path) -> None:
    toys = ToyBundle(main=Bright(), encoder=Encoder())
    run = hrviewer.run(IMAGE, toys, "compression", cache="off", out=tmp_path / "a.run.zarr")
    assert run.estimate is None
    assert run.complete
    assert np.isfinite(run.map("embeddings")[0][:]).all()
    assert "no head" in run.header["notes"][-1]


def test_a_budget_pays_for_a_random_sample_of_tiles() -> None:
    whole = FLOPS * 400 * 520
    exact, roomy = (with_error(Head("head"), ratio_deviation=part) for part in (0.0, 0.2))
    estimate, record = ask(make_bundle(head=exact), budget=0.6 * whole)
    assert 0.5 * whole < record.cost_map.total.flops <= 0.6 * whole
    assert f"of {TILES} tiles were processed, drawn at random" in estimate.note
    assert estimate.values is not None
    low, high = estimate.interval or (0, 0)
    assert low < float(estimate.values[0]) < high
    assert low < RED.sum() < high
    # The head's own error is independent of the sample's.
    wider, _ = ask(make_bundle(head=roomy), budget=0.6 * whole)
    total = float(estimate.values[0])
    assert wider.values == pytest.approx(estimate.values)
    ends = (
        total - math.hypot(total - low, 1.96 * 0.2 * total),
        total + math.hypot(high - total, 1.96 * 0.2 * total),
    )
    assert wider.interval == pytest.approx(ends)
    unmeasured, _ = ask(make_bundle(), budget=0.6 * whole)
    assert unmeasured.interval is None
    assert "was not measured on images of this kind" in unmeasured.note
    assert record.coverage == pytest.approx(0.58, abs=0.05)
    estimate, record = ask(make_bundle(), budget=whole / 200)
    assert (estimate.values, record.patches) == (None, [])


def test_failed_tiles_are_estimated_by_the_others() -> None:
    encoder, image = Encoder(), IMAGE.copy()
    image[64:128, 128:192] = 255  # by which it is known

    def fails(batch: NDArray[Any]) -> None:
        if batch.min() == 1:
            raise ValueError("too bright")

    encoder.before = fails
    with Workbench(image, make_bundle(encoder=encoder)) as bench:
        estimate, record, _ = bench.run(policy())
    rest = RED.sum() - RED[64:128, 128:192].sum()
    assert estimate.values == pytest.approx([rest * 400 * 520 / (400 * 520 - 64 * 64)], rel=1e-4)
    assert estimate.interval is None
    assert "failed on 1 " in estimate.note
    blank = np.isnan(record.output.values[0])
    assert blank[16:32, 32:48].all()
    assert blank.sum() == 16 * 16


def test_saliency_is_the_norm_of_embeddings() -> None:
    estimate, record = ask(make_bundle())
    assert "has no attribution" in estimate.note  # a head without a gradient
    seen: Any = record.saliency.values[0]
    means = IMAGE.reshape(100, 4, 130, 4, 3).mean((1, 3)) / 255
    away = np.sqrt((means**2).mean(-1)).reshape(25, 4, 130, 4 // 4).mean((1, 3))
    np.testing.assert_allclose(np.nanmean(seen), away.mean(), rtol=2e-2)


# Real networks with random weights.


@pytest.fixture(scope="module")
def learned(tmp_path_factory) -> ToyBundle:
    torch = pytest.importorskip("torch")
    from safetensors.torch import save_file

    from hrviewer.models.architectures import DensityEncoder, EmbeddingHead

    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("weights")
    small = {"embedding_dim": 6, "widths": [4, 6, 8, 8], "blocks": [0, 1, 1]}
    wide = {"embedding_dim": 6, "widths": [8], "size": 3}
    made = {"encoder": DensityEncoder(**small), "head": EmbeddingHead(**wide)}
    common: dict[str, Any] = {"channels": "rgb", "scale": 1 / 255, "mean": [0.5], "std": [0.25]}
    cards = {
        "encoder": {
            "task": "embedding",
            "architecture": {"name": "density-encoder", "params": small},
            "input": {**common, "tile": 64, "multiple_of": 16},
            "output": {"stride": 16, "halo": made["encoder"].halo, "width": 6},
        },
        "head": {
            "task": "density",
            "architecture": {"name": "embedding-head", "params": wide},
            "input": {"channels": 6, "tile": 8},
            "output": {"stride": 1, "halo": 1, "classes": ["thing"]},
        },
    }
    networks: dict[str, Any] = {"main": Bright()}
    for role, module in made.items():
        for layer in module.modules():
            if isinstance(layer, torch.nn.BatchNorm2d):
                layer.running_mean.normal_(0, 0.1)
                layer.running_var.uniform_(0.5, 2)
        module.eval()
        save_file(module.state_dict(), folder / f"{role}.safetensors")
        card = ModelCard.from_dict({"name": role, **cards[role]}, role)
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("HRVIEWER_BACKEND", "torch")  # the quickest is not asked for here
            networks[role] = load(folder / f"{role}.safetensors", card, "cpu")
    make_bundle = ToyBundle(**networks)
    make_bundle.modules = made  # type: ignore[attr-defined]
    return make_bundle


def test_tiled_embeddings_and_estimate_equal_those_of_the_whole_image(learned, tmp_path) -> None:
    import torch

    image = picture(19 * 16, 23 * 16, seed=3)
    run = hrviewer.run(image, learned, "compression", cache="off", out=tmp_path / "a.run.zarr")
    with torch.inference_mode():
        pixels = (torch.from_numpy(image).permute(2, 0, 1)[None].float() / 255 - 0.5) / 0.25
        embeddings = learned.modules["encoder"](pixels)
        counts = learned.modules["head"](embeddings)[0]
    found = np.asarray(run.map("embeddings")[0][:], np.float32)
    np.testing.assert_allclose(found, embeddings[0].numpy(), rtol=2e-3, atol=2e-3)
    assert (run.patches["role"] == "head").sum() > 1  # bands that need each other's rows
    each = run.output[0].reshape(19, 4, 23, 4).sum((1, 3))
    np.testing.assert_allclose(each, counts[0].numpy(), rtol=1e-2, atol=1e-2)
    assert run.estimate["value"] == pytest.approx(float(counts.sum()), rel=1e-3)


@pytest.mark.slow
def test_predictions_in_a_region_equal_those_of_the_whole_image(learned, tmp_path) -> None:
    image = picture(300, 410, seed=3)
    whole = hrviewer.run(image, learned, "compression", cache="off", out=tmp_path / "a.run.zarr")
    region = Rect(80, 112, 160, 176)
    part = hrviewer.run(
        image, learned, "compression", region=region, cache="off", out=tmp_path / "b.run.zarr"
    )
    inside = (0, slice(20, 60), slice(28, 72))
    np.testing.assert_allclose(part.output[inside], whole.output[inside], rtol=1e-4, atol=1e-5)
    assert np.isnan(part.output).sum() == part.output.size - 40 * 44


def test_saliency_is_the_attribution_of_the_head(learned, tmp_path) -> None:
    import torch

    image = picture(19 * 16, 23 * 16, seed=3)
    ask = {"cache": "off"}
    run = hrviewer.run(image, learned, "compression", out=tmp_path / "a.run.zarr", **ask)
    embeddings = torch.from_numpy(np.asarray(run.map("embeddings")[0][:], np.float32))[
        None
    ].requires_grad_()
    counts = learned.modules["head"](embeddings)
    (slope,) = torch.autograd.grad(counts.sum(), embeddings)
    want = (slope * embeddings).sum(1)[0].abs().detach().numpy()
    # The head has context across bands of tiles.
    found = learned.networks["head"].attribution(embeddings.detach()[0].numpy())
    np.testing.assert_allclose(found, want, rtol=1e-4, atol=1e-5)
    shown = np.asarray(run.saliency)
    close = np.isclose(shown, want, rtol=1e-3, atol=1e-3)
    assert shown.shape == want.shape
    assert close.mean() > 0.9
    # The gradient costs twice as much as the prediction.
    plain = hrviewer.run(
        image, learned, "compression", out=tmp_path / "b.run.zarr", saliency="embeddings", **ask
    )
    notes = [*run.header["notes"], *plain.header["notes"]]
    assert not any("has no attribution" in note for note in notes)
    np.testing.assert_array_equal(plain.output, run.output)
    paid = [sum(r.patches["flops"][r.patches["role"] == "head"]) for r in (plain, run)]
    assert paid[1] == 3 * paid[0]


def test_tiled_attention_pooling_equals_pooling_all_embeddings_at_once(learned, tmp_path) -> None:
    import torch
    from safetensors.torch import save_file

    from hrviewer.models.architectures import AttentionHead

    torch.manual_seed(2)
    params = {"embedding_dim": 6, "classes": 3, "width": 4}
    module = AttentionHead(**params)
    module.score.weight.data *= 8
    save_file(module.state_dict(), tmp_path / "head.safetensors")
    card = ModelCard.from_dict(
        {
            "name": "kinds",
            "task": "classification",
            "architecture": {"name": "attention-head", "params": params},
            "input": {"channels": 6, "tile": 8},
            "output": {
                "stride": 1, "halo": 0, "classes": ["a", "b", "c"],
                "activation": "softmax", "attention": True,
            },
        },
        "kinds",
    )  # fmt: skip
    head = load(tmp_path / "head.safetensors", card, "cpu")
    toys = ToyBundle(**learned.networks | {"head": head})
    image = picture(19 * 16, 23 * 16, seed=3)
    run = hrviewer.run(image, toys, "compression", cache="off", out=tmp_path / "a.run.zarr")
    assert (run.patches["role"] == "head").sum() > 1  # in parts
    with torch.inference_mode():
        embeddings = (
            torch.from_numpy(np.asarray(run.map("embeddings")[0][:], np.float32)).flatten(1).T
        )
        seen = module.projection.weight.flatten(1), module.gate.weight.flatten(1)
        request = (embeddings @ seen[0].T + module.projection.bias).tanh()
        score = (
            request * (embeddings @ seen[1].T + module.gate.bias).sigmoid()
        ) @ module.score.weight[0, :, 0, 0]
        part = score.softmax(0)
        pooled = part @ embeddings  # one vector, of which the answer is made
        want = (module.head.weight.flatten(1) @ pooled + module.head.bias).softmax(0).numpy()
    np.testing.assert_allclose(list(run.estimate["per_class"].values()), want, atol=1e-5)
    assert run.estimate["kind"] == "probabilities"
    assert run.estimate["exhaustive"]  # no other model of the bundle has this task
    assert not any("has no attribution" in note for note in run.header["notes"])
    attention = np.asarray(run.saliency)
    np.testing.assert_allclose(attention / attention.sum(), part.reshape(19, 23).numpy(), rtol=1e-4)
    assert run.output.shape[0] == 3


def test_a_head_of_another_encoder_is_refused_without_cost(learned) -> None:
    mixed = make_bundle(head=learned.networks["head"])
    with pytest.raises(HrviewerError, match="takes embeddings of 6 values, not 3"):
        ask(mixed)
    assert mixed.networks["encoder"].inferred == 0


@pytest.fixture(scope="module")
def resizing(tmp_path_factory) -> ToyBundle:
    """A small counting network and a resizer for it, with random weights."""
    torch = pytest.importorskip("torch")
    from safetensors.torch import save_file

    from hrviewer.models.architectures import DensityUNet, LearnedResizer

    torch.manual_seed(1)
    folder = tmp_path_factory.mktemp("weights")
    small, shrink = {"widths": [4, 4, 6, 6], "blocks": [0, 0, 0]}, {"shrink": 2, "width": 4}
    made = {"main": DensityUNet(**small), "resizer": LearnedResizer(**shrink)}
    common: dict[str, Any] = {"channels": "rgb", "scale": 1 / 255, "mean": [0.5], "std": [0.25]}
    cards = {
        "main": {
            "task": "density",
            "architecture": {"name": "density-unet", "params": small},
            "input": {**common, "tile": 64, "multiple_of": 16},
            "output": {"stride": 4, "halo": made["main"].halo, "classes": ["thing"]},
        },
        "resizer": {
            "task": "embedding",
            "architecture": {"name": "learned-resizer", "params": shrink},
            "input": {**common, "tile": 96, "multiple_of": 32},
            "output": {"stride": 2, "halo": made["resizer"].halo, "width": 3},
        },
    }
    networks: dict[str, Any] = {"encoder": Encoder()}
    for role, module in made.items():
        for layer in module.modules():
            if isinstance(layer, torch.nn.BatchNorm2d):
                layer.running_mean.normal_(0, 0.1)
                layer.running_var.uniform_(0.5, 2)
            if isinstance(layer, torch.nn.Conv2d) and not layer.weight.any():
                layer.weight.data.normal_(0, 0.1)
        module.eval()
        save_file(module.state_dict(), folder / f"{role}.safetensors")
        card = ModelCard.from_dict({"name": role, **cards[role]}, role)
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("HRVIEWER_BACKEND", "torch")
            networks[role] = load(folder / f"{role}.safetensors", card, "cpu")
    make_bundle = ToyBundle(**networks)
    make_bundle.modules = made  # type: ignore[attr-defined]
    return make_bundle


def test_main_on_resized_tiles_equals_main_on_the_whole_resized_image(resizing, tmp_path) -> None:
    import torch

    image = picture(13 * 32, 18 * 32, seed=4)
    ask = {"cache": "off", "encoder": "resizer"}
    run = hrviewer.run(image, resizing, "compression", out=tmp_path / "a.run.zarr", **ask)
    with torch.inference_mode():
        pixels = (torch.from_numpy(image).permute(2, 0, 1)[None].float() / 255 - 0.5) / 0.25
        small = resizing.modules["resizer"](pixels)
        counts = resizing.modules["main"](small)[0, 0].numpy()
    assert small.shape[2:] == (13 * 16, 18 * 16)
    embeddings, cell = run.map("embeddings")
    assert (embeddings.shape, cell) == ((3, 13 * 16, 18 * 16), 2.0)
    np.testing.assert_allclose(embeddings[:], small[0], rtol=2e-3, atol=2e-3)
    roles = list(run.patches["role"])
    assert roles.count("main") > 1  # bands that need each other's rows
    each = run.output[0].reshape(13 * 4, 2, 18 * 4, 2).sum((1, 3))
    np.testing.assert_allclose(each, counts, rtol=2e-2, atol=2e-3)
    assert run.estimate["value"] == pytest.approx(float(counts.sum()), rel=2e-3)
    assert (run.estimate["exhaustive"], run.estimate["ci95"]) == (False, None)
    # So does a region that begins between the allowed origins of main's inputs.
    region = Rect(72, 88, 160, 232)
    part = hrviewer.run(
        image, resizing, "compression", region=region, out=tmp_path / "b.run.zarr", **ask
    )
    inside = (0, slice(18, 58), slice(22, 80))
    np.testing.assert_allclose(part.output[inside], run.output[inside], rtol=1e-4, atol=1e-5)


def test_a_resizer_needs_a_main_model_that_reads_it(resizing) -> None:
    with (
        Workbench(IMAGE, make_bundle()) as bench,
        pytest.raises(HrviewerError, match="the model bundle has no resizer"),
    ):
        bench.run(policy(encoder="resizer"))
    other = Head("other")
    other.card = other.card.model_copy(update={"task": "segmentation"})
    mixed = ToyBundle(**resizing.networks, head=other)
    with (
        Workbench(IMAGE, mixed) as bench,
        pytest.raises(HrviewerError, match="another task than main"),
    ):
        bench.run(policy(encoder="resizer"))
    with pytest.raises(ValueError, match="encoder"):
        CompressionParams(encoder="nobody")


def test_live_cells_share_embeddings() -> None:
    import time

    from hrviewer.engine import LiveSession

    with Workbench(picture(900, 1100), make_bundle()) as bench:
        found: list[Any] = []
        session = LiveSession(
            bench.pyramid,
            bench.models,
            Compression(),
            CompressionParams(),
            on_update=collect_cells(found),
        )
        try:
            session.follow_view(Rect(0, 0, 900, 1100), 1.0)
            end = time.monotonic() + 30
            while not session.is_idle():
                assert time.monotonic() < end
                time.sleep(0.005)
            assert session.error is None
        finally:
            session.close()
    encoded = [
        result
        for cell in found
        for _, results in cell.results
        for result in results
        if isinstance(result, InferenceResult) and result.role == "encoder"
    ]
    assert bench.bundle.networks["encoder"].inferred == len(
        {result.patch.core for result in encoded}
    )
    total = sum(float(cell.estimate.values[0]) for cell in found)
    assert total == pytest.approx(picture(900, 1100)[..., 0].sum() / 255, rel=1e-4)


def test_a_head_with_a_period_needs_context_of_a_period() -> None:
    head = Head()
    head.halo = 3
    assert _head_context(head) == 3
    head.period = 4
    assert _head_context(head) == 7
