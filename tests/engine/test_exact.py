"""`patches` in mode ``exact`` against the network's own output on the whole image."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter
from toys import Blurred, Bright, ToyBundle, Workbench, blocks

from hrviewer.errors import HrviewerError
from hrviewer.geometry import Rect
from hrviewer.models import ModelCard, Network, installed_bundles, open_bundle
from hrviewer.models.loaders.torch import TorchNetwork
from hrviewer.models.probe import measure_exact_halo, validate_network
from hrviewer.strategies import Plan, PlanContext, get_strategy

SHAPES = [(333, 431), (384, 320), (129, 515)]
"""No multiples of anything; multiples of every stride; a sliver at the end."""


def blots(h: int, w: int, seed: int = 0) -> NDArray[np.uint8]:
    """Return an image with structure at every scale."""
    rng = np.random.default_rng(seed)
    noise = sum(gaussian_filter(rng.normal(size=(h, w, 3)), (s, s, 0)) * s for s in (1, 3, 9))
    return np.clip(128 + 90 * noise, 0, 255).astype(np.uint8)


def exact(**params: Any) -> Callable[[PlanContext], Plan]:
    strategy = get_strategy("patches")

    def policy(context: PlanContext) -> Plan:
        return strategy.plan(context, strategy.Params(**{"mode": "exact", **params}))

    return policy


def whole(net: Network, image: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Return the network's prediction for the image in one pass."""
    halo, (h, w) = net.halo, image.shape[:2]
    if not net.card.output.margin:
        return net(net.card.prepare(image)[None])[0]
    # Without padding in the network, the image is reflected beyond the border.
    ends = ((halo, halo + -side % net.card.step) for side in (h, w))
    output = net(net.card.prepare(np.pad(image, [*ends, (0, 0)], mode="reflect"))[None])[0]
    edge = halo // net.stride
    return output[:, edge:-edge, edge:-edge]


def check(net: Network, shape: tuple[int, int], tile: int = 96, **params: Any) -> str:
    """Compare tiles with the whole image, cell by cell; return the estimate's note."""
    image = blots(*shape)
    there = whole(net, image)
    largest = float(np.abs(there).max())
    assert largest > 0
    with Workbench(image, ToyBundle(main=net)) as bench:
        estimate, record, _ = bench.run(exact(tile=tile, **params))
    assert estimate is not None
    assert estimate.values is not None
    # Cells that the image's border cuts hold the image's part of them.
    rows, columns = (side // net.stride for side in shape)
    found = record.output.values[:, :rows, :columns]
    expected = there[: len(found), :rows, :columns]
    np.testing.assert_allclose(found, expected, atol=2e-5 * largest)
    assert "is not exact" not in estimate.note
    assert record.counts()["failed"] == 0
    return estimate.note


@pytest.fixture
def loaded(monkeypatch: pytest.MonkeyPatch) -> Callable[[str, str], Network]:
    """Load networks of model bundles in plain torch, without measuring back ends."""
    monkeypatch.setattr(
        "hrviewer.models.loaders.backend.select_backend", lambda network, threads: network
    )
    return find


def find(bundle: str, role: str) -> Network:
    if bundle not in installed_bundles():
        pytest.skip(f"the bundle {bundle} is not installed")
    networks = open_bundle(bundle)
    if role not in networks.roles:
        pytest.skip(f"the bundle {bundle} has no {role} yet")
    return networks.load(role, "cpu")


BUNDLED = [
    (bundle, role) for bundle in ("crowd", "nuclei") for role in ("main", "scout", "scanner")
]


@pytest.mark.slow
@pytest.mark.parametrize(("bundle", "role"), BUNDLED)
def test_bundled_networks(loaded: Callable[[str, str], Network], bundle: str, role: str) -> None:
    net = loaded(bundle, role)
    note = check(net, SHAPES[0], tile=192)
    assert f"exact, with {net.halo} pixels" in note
    assert "2 tiles verified" in note


def test_a_published_network(shared: Any) -> None:
    pytest.importorskip("onnxruntime")
    net = open_bundle(shared / "models" / "mcnn_shtechB_110.onnx").load("main", "cpu")
    assert "exact, with 40 pixels" in check(net, SHAPES[2])
    net.halo = 8  # as if the card lied
    assert "exact, with 36 pixels" in check(net, SHAPES[0])


# Networks of every build.

torch = pytest.importorskip("torch")
nn = torch.nn


class Decoder(nn.Module):
    """Down by 8 and up again, by transposed convolution and by repetition."""

    def __init__(self) -> None:
        super().__init__()
        self.down = nn.Sequential(
            nn.Conv2d(3, 4, 3, 2, 1), nn.ReLU(), nn.Conv2d(4, 6, 4, 4, 0), nn.ReLU()
        )
        self.up = nn.Sequential(
            nn.ConvTranspose2d(6, 4, 4, 2, 1), nn.ReLU(), nn.Upsample(scale_factor=2)
        )
        self.end = nn.Conv2d(4, 1, 3, 1, 1)

    def forward(self, x: Any) -> Any:
        return self.end(self.up(self.down(x)))


BUILDS = {
    "same": (lambda: [nn.Conv2d(3, 4, 7, 1, 3), nn.ReLU(), nn.Conv2d(4, 1, 5, 1, 2)], 1, 1),
    "dilated": (lambda: [nn.Conv2d(3, 4, 3, 1, 4, 4), nn.ReLU(), nn.Conv2d(4, 1, 1)], 1, 1),
    "strided": (
        lambda: [
            nn.Conv2d(3, 4, 5, 2, 2), nn.ReLU(), nn.Conv2d(4, 6, 3, 2, 1), nn.ReLU(),
            nn.Conv2d(6, 1, 3, 2, 1),
        ],
        8, 8,
    ),
    "pooled": (
        lambda: [
            nn.Conv2d(3, 4, 3, 1, 1), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(4, 4, 3, 1, 1),
            nn.AvgPool2d(2), nn.Conv2d(4, 1, 3, 1, 1),
        ],
        4, 4,
    ),
    "by three": (lambda: [nn.Conv2d(3, 4, 3, 3, 0), nn.ReLU(), nn.Conv2d(4, 1, 3, 1, 1)], 3, 3),
    "decoder": (lambda: [Decoder()], 2, 8),
    # Shrinks by 8 inside, and its card claims that any multiple of 2 is enough.
    "hidden stride": (lambda: [nn.ReflectionPad2d(0), Decoder()], 2, 2),
}  # fmt: skip


@pytest.fixture
def built(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Network]:
    """Load a network as its weights and a card would."""
    from safetensors.torch import save_file

    from hrviewer.models import registry

    def make(layers: list[Any], stride: int, multiple_of: int, halo: int | None) -> Network:
        torch.manual_seed(1)
        module = nn.Sequential(*layers)
        for part in module.modules():
            if isinstance(part, nn.Conv2d | nn.ConvTranspose2d):
                nn.init.uniform_(part.weight, -0.1, 0.2)
        monkeypatch.setitem(registry._REGISTERED, "built", lambda: module)
        path = tmp_path / "built.safetensors"
        save_file(module.state_dict(), path)
        output: dict[str, Any] = {"stride": stride, "classes": ["thing"]}
        card = ModelCard.from_dict(
            {
                "name": "built",
                "task": "density",
                "architecture": {"name": "built"},
                "input": {"channels": "rgb", "tile": 96, "multiple_of": multiple_of, "scale": 0.01},
                "output": output if halo is None else output | {"halo": halo},
            },
            "card",
        )
        network = TorchNetwork.load(path, card, "cpu", None)
        validate_network(network)
        return network

    return make


@pytest.mark.parametrize("build", BUILDS)
@pytest.mark.parametrize("halo", [None, 0])
def test_every_build(built: Callable[..., Network], build: str, halo: int | None) -> None:
    layers, stride, multiple_of = BUILDS[build]
    net = built(layers(), stride, multiple_of, halo)
    for shape in SHAPES:
        if build == "hidden stride":  # what it makes of other sizes, no tile can know
            shape = tuple(side // 8 * 8 for side in shape)
        check(net, shape, tile=50)


class Whorls(Bright):
    """Predicts the mean of each 16 × 16 block for each of its cells: its period is 16 pixels."""

    def predict(self, batch: NDArray[np.float32]) -> NDArray[np.float32]:
        n, _, h, w = batch.shape
        found = np.zeros((n, 1, h // 4, w // 4), np.float32)
        for y in range(0, h, 16):
            for x in range(0, w, 16):
                part = found[:, :, y // 4 : y // 4 + 4, x // 4 : x // 4 + 4]
                part[:] = batch[:, :1, y : y + 16, x : x + 16].mean((2, 3), keepdims=True)
        return found


@pytest.mark.parametrize("mode", ["exact", "tiles"])
def test_a_hidden_stride_is_measured_and_met(mode: str) -> None:
    net = Whorls()
    validate_network(net)
    assert (net.card.step, net.period) == (4, 16)
    image = blots(200, 268)
    for region in (None, Rect(37, 50, 121, 163)):
        with Workbench(image, ToyBundle(main=net)) as bench:
            _, record, _ = bench.run(exact(mode=mode, tile=36), region=region)
        there = whole(net, image)[0]
        output = np.isfinite(record.output.values[0])
        assert output.sum() == (50 * 67 if region is None else 31 * 42)
        inside = slice(10, 39), slice(13, 53)  # of cells that the region does not cut
        np.testing.assert_allclose(record.output.values[0][inside], there[inside], rtol=1e-6)


def test_a_halo_too_small_in_the_card_is_corrected() -> None:
    net = Blurred()
    net.halo = 4
    image = blots(*SHAPES[0])
    there = whole(net, image)
    with Workbench(image, ToyBundle(main=net)) as bench:
        _, record, _ = bench.run(exact(mode="tiles", tile=64))
        assert np.abs(record.output.values[:, :83, :107] - there).max() > 0.05
        estimate, record, _ = bench.run(exact(tile=64))
        np.testing.assert_allclose(record.output.values[:, :83, :107], there, atol=1e-5)
    assert estimate is not None
    assert "exact, with 16 pixels" in estimate.note


def test_custom_tiles_and_resampled_patches_are_exact() -> None:
    net = Blurred()
    image = blots(*SHAPES[0])
    with Workbench(image, ToyBundle(main=net)) as bench:
        _, record, _ = bench.run(exact(grid="3x4"))
        np.testing.assert_allclose(record.output.values[:, :83, :107], whole(net, image), atol=1e-5)

        # Two pixels of the image to one of the network's.
        def shrunk(context: PlanContext) -> Plan:
            return exact(tile=48)(replace(context, native_scale=2.0))

        _, record, _ = bench.run(shrunk)
        half = bench.pyramid.read(bench.pyramid.rect, 2.0)
        there = net(net.card.prepare(half)[None])[0, 0]
        found = record.output.values[0, :82, :106].reshape(41, 2, 53, 2).sum((1, 3))
        np.testing.assert_allclose(found, there[:41, :53], rtol=1e-5, atol=1e-5)


def test_too_little_context_is_detected(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hrviewer.models.probe.measure_exact_halo", lambda network: 4)
    with Workbench(blots(*SHAPES[0]), ToyBundle(main=Blurred())) as bench:
        estimate, _, _ = bench.run(exact(tile=64, verify=3))
        assert estimate is not None
        assert "3 tiles verified with 12" in estimate.note
        assert "more than by rounding: the output is not exact" in estimate.note
        estimate, record, _ = bench.run(exact(tile=64, verify=0))
        assert estimate is not None
        assert "verified" not in estimate.note
        assert len(record.patches) == 6 * 7


def test_a_budget_ends_before_the_test() -> None:
    with Workbench(blots(128, 128), ToyBundle(main=Bright())) as bench:
        estimate, _, _ = bench.run(exact(), budget=100.0 * 128 * 128)
    assert estimate is not None
    assert "the budget ended before this was verified" in estimate.note


def test_the_estimate_is_reproducible() -> None:
    notes = set()
    for _ in range(2):
        with Workbench(blots(192, 192), ToyBundle(main=Blurred())) as bench:
            estimate, record, _ = bench.run(exact())
            assert estimate is not None
            notes.add((estimate.note, tuple((row.y, row.x) for row in record.patches)))
    assert len(notes) == 1


class Everything(Bright):
    def predict(self, batch: NDArray[np.float32]) -> NDArray[np.float32]:
        return blocks(batch) - batch[:, :1].mean((2, 3), keepdims=True)


class Ramp(Bright):
    """Predicts by position, as a network with position embeddings does."""

    def predict(self, batch: NDArray[np.float32]) -> NDArray[np.float32]:
        found = blocks(batch)
        return found + np.arange(found.shape[2], dtype=np.float32)[:, None]


def fixed() -> Network:
    net = Bright()
    made = net.card.input.model_copy(update={"fixed": True})
    net.card = net.card.model_copy(update={"input": made})
    return net


@pytest.mark.parametrize(
    ("net", "why"),
    [
        (fixed(), "takes tiles of 64 pixels only"),
        (Bright(task="classification"), "its task, classification"),
        (
            Everything(),
            "receptive field of more than 64 pixels|predictions depend on where a tile begins",
        ),
        (Ramp(), "predictions depend on where a tile begins"),
    ],
)
def test_networks_without_an_exact_halo_are_refused(net: Network, why: str) -> None:
    with pytest.raises(HrviewerError, match=why):
        measure_exact_halo(net)
    with (
        Workbench(blots(128, 128), ToyBundle(main=net)) as bench,
        pytest.raises(HrviewerError, match=why),
    ):
        bench.run(exact())


def test_a_custom_halo_is_refused() -> None:
    with (
        Workbench(blots(128, 128), ToyBundle(main=Blurred())) as bench,
        pytest.raises(HrviewerError, match="leave halo out"),
    ):
        bench.run(exact(halo=8))
