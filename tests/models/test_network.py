"""Behaviour common to all networks, tested on networks in NumPy."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
from model_cards import make_card
from scipy import ndimage

from hrviewer.errors import HrviewerError
from hrviewer.models import Network, open_bundle
from hrviewer.models.activations import activate
from hrviewer.models.network import Floats
from hrviewer.models.probe import measure_halo, validate_network


class Toy(Network):
    """Runs a function of ``(n, C, h, w)``, and records the sizes of its inputs."""

    def __init__(self, run: Callable[[Floats], Any], **changes: Any) -> None:
        super().__init__(make_card(**changes), "toy", "numpy", "cpu")
        self.run, self.sizes = run, list[tuple[int, ...]]()
        self.cost: Callable[[int, int], float] = lambda h, w: 2.0 * h * w

    def _run(self, batch: Floats) -> Sequence[Floats]:
        self.sizes.append(batch.shape)
        out = self.run(batch)
        return out if isinstance(out, list) else [np.asarray(out, np.float32)]

    def _count(self, h: int, w: int) -> float:
        self.sizes.append((h, w))
        return self.cost(h, w)


def mean(s: int, strict: bool = True) -> Callable[[Floats], Floats]:
    """Mean grey on blocks of s × s; strict: sides must be multiples."""

    def run(x: Floats) -> Floats:
        n, _, h, w = x.shape
        if strict and (h % s or w % s):
            raise ValueError("not a multiple")
        x = x.mean(1, keepdims=True)[:, :, : h // s * s, : w // s * s]
        return x.reshape(n, 1, h // s, s, w // s, s).mean((3, 5))

    return run


def four(**more: Any) -> dict[str, Any]:
    return {"input": {"multiple_of": 4, **more}, "output": {"stride": 4, "halo": 0}}


def test_other_sizes_are_padded_by_reflection_and_cropped() -> None:
    net = Toy(mean(4), **four())
    x = np.arange(6, dtype=np.float32)[None, None, None].repeat(3, 1).repeat(5, 2)
    out = net(x)
    assert net.sizes[-1] == (1, 3, 8, 8)
    # 0 1 2 3 | 4 5 4 3
    np.testing.assert_allclose(out, [[[[1.5, 4], [1.5, 4]]]])
    assert net.flops(5, 6) == 2 * 8 * 8
    assert net.flops(8, 7) == 2 * 8 * 8
    counted = len(net.sizes)
    assert net.flops(64, 1000) == 2 * 64 * 1000
    assert len(net.sizes) == counted  # FLOPs in closed form need no counting


@pytest.mark.parametrize(
    "cost",
    [
        lambda h, w: 3 * h * w + 5 * h + 7 * w + 11,
        lambda h, w: h * w + (h // 8) ** 2,
        lambda h, w: (h * w) ** 2,
        lambda h, w: h * w + 100 * (h > 64),
        lambda h, w: h * w + 100 * (w < 8),
    ],
)
def test_flops_of_sizes(cost: Callable[[int, int], int]) -> None:
    net = Toy(mean(4), **four(tile=64))
    net.cost = cost
    for size in ((64, 64), (8, 200), (76, 12), (4, 4), (72, 4)):
        assert net.flops(*size) == cost(*size)
    assert net.flops(5, 61) == cost(8, 64)


def test_sizes_that_cannot_be_counted_are_reported() -> None:
    net = Toy(mean(4), **four(tile=64))

    def cost(h: int, w: int) -> float:
        if min(h, w) < 16:
            raise HrviewerError("too small")
        return 2.0 * h * w

    net.cost = cost
    assert net.flops(64, 128) == 2 * 64 * 128
    with pytest.raises(HrviewerError, match="too small"):
        net.flops(8, 64)


def test_a_fixed_size_is_filled_with_the_letterbox() -> None:
    net = Toy(
        lambda x: x,
        input={"tile": 4, "fixed": True, "letterbox": 114, "scale": 0.5, "mean": [7], "std": [2]},
        output={"classes": ["r", "g", "b"]},
    )
    inputs: list[Floats] = []
    net.run = lambda x: inputs.append(x) or x  # type: ignore[func-returns-value]
    assert net(np.zeros((1, 3, 2, 3), np.float32)).shape == (1, 3, 2, 3)
    assert inputs[0][0, 0, 3, 3] == 25
    assert inputs[0][0, 0, :2, :3].max() == 0


@pytest.mark.parametrize("strict", [False, True])
def test_accepting_any_size_is_measured(strict: bool) -> None:
    net = Toy(mean(4, strict), **four())
    validate_network(net)
    assert net.accepts_any_size is not strict
    shape = net(np.zeros((1, 3, 9, 11), np.float32)).shape
    assert shape == ((1, 1, 3, 3) if strict else (1, 1, 2, 2))


def test_batches_are_split_to_the_supported_size() -> None:
    def one(x: Floats) -> Floats:
        if len(x) > 1:
            raise ValueError("one at a time")
        return x[:, :1]

    net = Toy(one)
    validate_network(net)
    assert net.max_batch == 1
    x = np.random.default_rng(0).random((3, 3, 8, 8)).astype(np.float32)
    np.testing.assert_array_equal(net(x), x[:, :1])


def test_a_network_that_mixes_its_batch_is_given_one_at_a_time() -> None:
    net = Toy(lambda x: x[:, :1] - x.mean(axis=(0, 1, 2, 3), keepdims=True), output={"halo": 0})
    validate_network(net)
    assert net.max_batch == 1


def test_a_margin_is_padded() -> None:
    net = Toy(
        lambda x: x[:, :1, 4:-4, 4:-4],
        input={"channels": "gray"},
        output={"margin": 4, "halo": 4},
    )
    validate_network(net)
    x = np.random.default_rng(0).random((1, 1, 16, 16)).astype(np.float32)
    out = net(x)
    assert out.shape == x.shape
    np.testing.assert_array_equal(out[:, :, 4:-4, 4:-4], x[:, :, 4:-4, 4:-4])


def test_a_finer_output_is_pooled_and_a_density_keeps_its_sum() -> None:
    def double(x: Floats) -> Floats:
        return x[:, :1].repeat(2, 2).repeat(2, 3)

    x = np.random.default_rng(0).random((1, 3, 8, 8)).astype(np.float32)
    density = Toy(double, output={"stride": 0.5})
    np.testing.assert_allclose(density(x), 4 * x[:, :1])
    other = Toy(double, task="segmentation", output={"stride": 0.5})
    np.testing.assert_allclose(other(x), x[:, :1])


def test_activations_do_not_overflow() -> None:
    x = np.array([[-1000, 0, 1000], [0, 0, 0]], np.float32)
    np.testing.assert_allclose(activate(x, "sigmoid"), [[0, 0.5, 1], [0.5] * 3])
    np.testing.assert_allclose(activate(x, "softmax"), [[0, 0, 1], [1 / 3] * 3], rtol=1e-6)
    np.testing.assert_array_equal(activate(x, "relu"), [[0, 0, 1000], [0, 0, 0]])
    assert activate(x, "none") is x


def test_unsupported_operations_are_refused() -> None:
    net = Toy(mean(4), **four())
    one = np.zeros((1, 3, 8, 8), np.float32)
    for call in (
        lambda: net.run_tokens(one, np.zeros((1, 4))),
        lambda: net.token_flops(3),
        lambda: net.run_features(one[0, :2]),
        lambda: net.feature_flops(2, 8, 8),
        lambda: net.detect(one),
        lambda: net(one[:, :2]),
    ):
        with pytest.raises(HrviewerError, match="net"):
            call()
    assert "Toy net on numpy, cpu" in repr(net)


def test_a_head_is_a_network_on_embeddings() -> None:
    head = Toy(lambda x: x[:, :2] * 2, input={"channels": 5}, output={"classes": ["a", "b"]})
    validate_network(head)
    features = np.random.default_rng(0).standard_normal((5, 7, 9))
    np.testing.assert_allclose(
        head.run_features(features.astype(np.float32)), 2 * features[:2], rtol=1e-6
    )
    assert head.feature_flops(5, 7, 9) == 126
    with pytest.raises(HrviewerError, match="embeddings of 5 values, not 6"):
        head.feature_flops(6, 7, 9)


def reach(radius: int) -> Callable[[Floats], Floats]:
    def run(x: Floats) -> Floats:
        kernel = np.ones((1, 2 * radius + 1, 2 * radius + 1)) / (2 * radius + 1) ** 2
        return np.stack([ndimage.convolve(one.mean(0)[None], kernel) for one in x])

    return run


@pytest.mark.parametrize("radius", [0, 1, 3, 7])
def test_the_halo_of_a_known_receptive_field(radius: int) -> None:
    assert measure_halo(Toy(reach(radius))) == radius
    net = Toy(reach(radius), input={"multiple_of": 4})
    validate_network(net)
    assert net.halo == -(-radius // 4) * 4


def test_an_asymmetric_receptive_field_is_measured() -> None:
    net = Toy(lambda x: np.roll(x, 5, axis=2)[:, :1] + x[:, :1])
    net.run = lambda x: x[:, :1] + np.pad(x[:, :1], [(0, 0), (0, 0), (5, 0), (0, 0)])[:, :, :-5]
    assert measure_halo(net) == 5


def test_a_halo_that_cannot_be_measured_is_chosen_and_noted() -> None:
    net = Toy(lambda x: x[:, :1] - x.mean(axis=(2, 3), keepdims=True)[:, :1])
    validate_network(net)
    assert net.halo == net.card.input.tile // 8
    assert "receptive field of more than" in net.halo_note
    assert f"a halo of {net.halo} pixels is taken" in net.halo_note
    net = Toy(lambda x: np.maximum(reach(5)(x) - 1e6, 0))
    validate_network(net)
    assert "hardly responds to noise" in net.halo_note


@pytest.mark.parametrize(("radius", "halo"), [(0, 0), (3, 3), (8, 8), (9, 4)])
def test_the_halo_of_a_fixed_size_is_measured(radius: int, halo: int) -> None:
    """Up to a quarter of the tile; beyond, an eighth is taken, and noted."""
    net = Toy(reach(radius), input={"tile": 32, "fixed": True})
    validate_network(net)
    assert net.halo == halo
    assert ("9 pixels in inputs of 32" in net.halo_note) == (radius == 9)


def test_mcnn_s_measured_halo_makes_tiles_equal_the_whole(shared: Any) -> None:
    net = open_bundle(shared / "models/mcnn_shtechA_660.onnx").load("main", "cpu")
    halo = measure_halo(net, seeds=1)
    assert 0 < halo <= 40
    picture = np.random.default_rng(0).uniform(0, 255, (1, 1, 320, 320)).astype(np.float32)
    whole = net(picture)
    part = net(picture[:, :, 128 - halo : 192 + halo, 128 - halo : 192 + halo])
    edge = halo // 4
    np.testing.assert_allclose(
        part[:, :, edge:-edge, edge:-edge],
        whole[:, :, 32:48, 32:48],
        atol=1e-5 * float(np.abs(whole).max()),
    )


def test_running_out_of_memory_while_loading_is_no_card_mismatch() -> None:
    def full(x: Floats) -> Floats:
        raise MemoryError

    with pytest.raises(MemoryError):
        validate_network(Toy(full))


def test_a_fixed_size_must_be_in_the_card() -> None:
    def run(x: Floats) -> Floats:
        if x.shape[2] != 64:
            raise ValueError("64 only")
        return x[:, :1]

    with pytest.raises(HrviewerError, match=r"32 × 32 fails \(64 only\).*fixed"):
        validate_network(Toy(run))
