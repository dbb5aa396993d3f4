"""The inference pipeline: failures, order, halos, and the untiled output as reference."""

import numpy as np
import pytest
from toys import Blurred, Bright, ToyBundle, Workbench, many_patches, picture

from hrviewer.engine import InferenceResult
from hrviewer.geometry import Patch, Rect
from hrviewer.models import open_bundle
from hrviewer.strategies import Estimate, PatchRequest, PlanContext, aggregate, get_strategy, tiles

IMAGE = picture(210, 270)


def cut(**how):
    """Return a policy that tiles with these parameters."""
    strategy = get_strategy("patches")
    params = strategy.Params(**how)

    def policy(context: PlanContext):
        return strategy.plan(context, params)

    return policy


@pytest.mark.parametrize("tile", [32, 48, 64, 200, 512])
def test_tiles_with_the_cards_halo_equal_the_whole_image(tile):
    net = Blurred()
    with Workbench(IMAGE, ToyBundle(main=net)) as bench:
        whole = net(net.card.prepare(IMAGE)[None])[0]
        estimate, record, _ = bench.run(cut(tile=tile))
        rows, columns = whole.shape[1:]
        np.testing.assert_allclose(record.output.values[:, :rows, :columns], whole, atol=1e-5)
        assert estimate.values[0] == pytest.approx(whole.sum(), rel=1e-6)


def test_without_halo_they_do_not():
    net = Blurred()
    with Workbench(IMAGE, ToyBundle(main=net)) as bench:
        whole = net(net.card.prepare(IMAGE)[None])[0]
        _, record, _ = bench.run(cut(tile=32, halo=0))
        assert np.abs(record.output.values[:, :52, :67] - whole).max() > 0.1


def test_the_patch_nearest_to_the_views_centre_comes_first():
    with Workbench(IMAGE) as bench:
        results: list[InferenceResult] = []
        bench.run(
            many_patches,
            on_event=lambda update: (
                results.append(update) if isinstance(update, InferenceResult) else None
            ),
            focus=lambda: (100.0, 144.0),
        )
        first = [np.hypot(*np.subtract(s.patch.core.center, (100, 144))) for s in results[:7]]
        assert first == sorted(first)


def test_given_order_is_released_as_prefixes():
    patches = tuple(Patch(Rect(y, 0, 32, 32), 1.0) for y in range(160, -1, -32))

    def policy(context: PlanContext):
        result = yield PatchRequest("main", patches, order="given")
        return Estimate(aggregate(context.main, result.results))

    with Workbench(IMAGE) as bench:
        results: list[InferenceResult] = []
        bench.run(
            policy,
            on_event=lambda update: (
                results.append(update) if isinstance(update, InferenceResult) else None
            ),
            focus=lambda: (0.0, 0.0),
        )
        assert [s.patch.core for s in results] == [patch.core for patch in patches]


def test_a_failed_patch_is_reported_has_its_cost_and_is_left_blank():
    net = Bright()

    def refuse(batch):
        if net.calls == 3:
            raise RuntimeError("cosmic ray\nwith a long story")

    net.before = refuse
    with Workbench(IMAGE, ToyBundle(main=net)) as bench:
        estimate, record, _ = bench.run(many_patches)
        (failed,) = [row for row in record.patches if row.status == "failed"]
        assert failed.error == "RuntimeError: cosmic ray"
        assert np.isnan(failed.value)
        assert failed.flops > 0
        assert failed.prepare_s > 0
        assert record.counts()["failed"] == 1
        core = record.output.values[
            0,
            failed.y // 4 : (failed.y + failed.h) // 4,
            failed.x // 4 : (failed.x + failed.w) // 4,
        ]
        assert np.isnan(core).all()
        red = IMAGE[:208, :268, 0].astype(float) / 255
        lost = red[failed.y : failed.y + failed.h, failed.x : failed.x + failed.w].sum()
        assert estimate.values[0] == pytest.approx(red.sum() - lost, rel=1e-5)


def test_output_that_is_not_finite_is_a_failure():
    class Broken(Bright):
        def predict(self, batch):
            return super().predict(batch) * np.nan

    with Workbench(IMAGE, ToyBundle(main=Broken())) as bench:
        estimate, record, _ = bench.run(many_patches)
        assert estimate.values is None
        assert {row.status for row in record.patches} == {"failed"}


def test_out_of_memory_halves_the_batch_and_continues():
    net = Bright()

    def lack(batch):
        if len(batch) > 2:
            raise MemoryError

    net.before = lack
    with Workbench(IMAGE, ToyBundle(main=net), batch=8) as bench:
        estimate, record, _ = bench.run(many_patches)
        assert bench.device.batch == 2
        assert record.counts()["failed"] == 0
        assert estimate.values[0] == pytest.approx(IMAGE[:208, :268, 0].sum() / 255, rel=1e-5)


def test_inputs_of_fixed_networks_are_reflected_at_the_border():
    class Fixed(Bright):
        def _run(self, batch):
            assert batch.shape[2:] == (64, 64)
            return super()._run(batch)

    net = Fixed()
    fixed = net.card.input.model_copy(update={"fixed": True})
    net.card = net.card.model_copy(update={"input": fixed})
    net.accepts_any_size = False
    with Workbench(IMAGE, ToyBundle(main=net)) as bench:
        estimate, record, _ = bench.run(cut())
        assert record.counts()["failed"] == 0
        # 210 and 270 are no multiples of the stride: the last blocks are half reflection.
        assert estimate.values[0] == pytest.approx(IMAGE[..., 0].sum() / 255, rel=0.01)


@pytest.mark.parametrize("letterbox", [0, 255])
def test_the_cards_letterbox_is_beyond_the_border(letterbox):
    net = Bright()
    changes = {"fixed": True, "letterbox": letterbox}
    net.card = net.card.model_copy(update={"input": net.card.input.model_copy(update=changes)})
    net.accepts_any_size = False
    with Workbench(IMAGE, ToyBundle(main=net)) as bench:
        estimate, _, _ = bench.run(cut())
    # 210 and 270 are no multiples of the stride, 4: half of the last blocks is letterbox.
    filled = np.pad(IMAGE[..., 0], ((0, 2), (0, 2)), constant_values=letterbox) / 255
    inside = np.outer(*(np.r_[np.ones(n), np.full(4, 0.5)] for n in (208, 268)))
    assert estimate.values[0] == pytest.approx((filled * inside).sum(), rel=1e-6)


def test_tiles_are_aligned_for_any_region():
    with Workbench(IMAGE) as bench:
        role = bench.models
        from hrviewer.engine import model_info
        from hrviewer.strategies import input_rect

        main = model_info(role["main"])
        region = Rect(13, 29, 150, 200)
        patches = tiles(main, region, 1.0, tile=48)
        assert sum(p.core.area for p in patches) == region.area
        for patch in patches:
            rect = input_rect(main, patch, bench.pyramid.rect)
            assert patch.core in rect
            assert rect.y % 4 == rect.x % 4 == 0


# A published network on photographs.


@pytest.mark.parametrize("shape", [(512, 640), (419, 637)])
def test_mcnn_tiled_equals_the_whole_photo(shared, shape):
    ort = pytest.importorskip("onnxruntime")
    pytest.importorskip("onnx")
    from skimage import data, transform

    photo = (transform.resize(data.astronaut(), shape, anti_aliasing=True) * 255).astype(np.uint8)
    path = shared / "models" / "mcnn_shtechB_110.onnx"
    from PIL import Image

    gray = np.asarray(Image.fromarray(photo).convert("L"), np.float32)[None, None]
    session = ort.InferenceSession(path, providers=["CPUExecutionProvider"])
    whole = session.run(None, {session.get_inputs()[0].name: gray})[0][0]
    with Workbench(photo, open_bundle(path)) as bench:
        for how in ({"tile": 256}, {"tile": 384}, {"tile": 128}):
            estimate, record, _ = bench.run(cut(**how))
            rows, columns = whole.shape[1:]
            np.testing.assert_allclose(record.output.values[:, :rows, :columns], whole, atol=1e-5)
            assert estimate.values[0] == pytest.approx(whole.sum(), rel=1e-4)
        _, record, _ = bench.run(cut(tile=256, halo=0))
        assert np.abs(record.output.values[:, :rows, :columns] - whole).max() > 1e-3
