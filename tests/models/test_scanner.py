from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from toys import ToyPack  # noqa: E402

import hrviewer  # noqa: E402
from hrviewer.models import Card  # noqa: E402
from hrviewer.models.architectures import DensityScanner, DensityUNet  # noqa: E402
from hrviewer.models.loaders import load  # noqa: E402

WINDOW = 56


def network(variance: bool = False) -> torch.nn.Module:
    torch.manual_seed(0)
    made = DensityScanner(variance=variance)
    for layer in made.modules():
        if isinstance(layer, torch.nn.BatchNorm2d):
            layer.running_mean.normal_(0, 0.1)
            layer.running_var.uniform_(0.5, 2)
    made.head.weight.data.normal_(0, 1)
    return made.eval()


def card(**output: object) -> Card:
    return Card.of(
        {
            "name": "scanner",
            "task": "density",
            "architecture": {"name": "density-scanner"},
            "input": {"channels": "rgb", "scale": 1 / 255, "tile": 128, "multiple_of": 8},
            "output": {"stride": 8, "halo": 24, "margin": 24, "classes": ["thing"]} | output,
        },
        "card",
    )


@torch.inference_mode()
def test_a_dense_output_is_what_it_says_window_by_window() -> None:
    made, image = network(variance=True), torch.rand(1, 3, WINDOW + 8 * 5, WINDOW + 8 * 3)
    dense = made(image)
    assert dense.shape == (1, 2, 6, 4)
    windows = image.unfold(2, WINDOW, 8).unfold(3, WINDOW, 8)[0].permute(1, 2, 0, 3, 4)
    by_window = made(windows.reshape(-1, 3, WINDOW, WINDOW)).reshape(6, 4, 2).permute(2, 0, 1)
    torch.testing.assert_close(dense[0], by_window, rtol=1e-5, atol=1e-7)


@torch.inference_mode()
def test_it_costs_a_tenth_of_main() -> None:
    from torch.utils.flop_counter import FlopCounterMode

    flops = []
    for made in (DensityScanner(variance=True), DensityUNet()):
        with FlopCounterMode(display=False) as counter:
            made.eval()(torch.zeros(1, 3, 512, 512))
        flops.append(counter.get_total_flops())
    assert flops[0] <= 0.1 * flops[1]


def test_tiles_meet_exactly_and_the_border_is_reflected(tmp_path) -> None:
    from safetensors.torch import save_file

    made = network()
    save_file(made.state_dict(), tmp_path / "scanner.safetensors")
    loaded = load(tmp_path / "scanner.safetensors", card(), "cpu")
    image = np.random.default_rng(0).integers(0, 255, (200, 264, 3), np.uint8)
    run = hrviewer.run(image, ToyPack(main=loaded), "patches", tile=64, out=tmp_path / "a.run.zarr")
    padded = np.pad(image, [(24, 24), (24, 24), (0, 0)], mode="reflect")
    with torch.inference_mode():
        whole = made(torch.from_numpy(padded).permute(2, 0, 1)[None].float() / 255)[0, 0].numpy()
    np.testing.assert_allclose(np.asarray(run.output)[0], whole, rtol=1e-4, atol=1e-6)
