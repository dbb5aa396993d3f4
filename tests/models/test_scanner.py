from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from toys import Bright, ToyBundle, Workbench  # noqa: E402

import hrviewer  # noqa: E402
from hrviewer.errors import HrviewerError  # noqa: E402
from hrviewer.models import ModelCard, Network  # noqa: E402
from hrviewer.models.architectures import DensityScanner, DensityUNet  # noqa: E402
from hrviewer.models.loaders import load  # noqa: E402
from hrviewer.models.loaders.backend import outputs_agree  # noqa: E402
from hrviewer.models.shift_and_stitch import ShiftAndStitch  # noqa: E402
from hrviewer.strategies.scanner import Scanner, ScannerParams  # noqa: E402

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


def card(**output: object) -> ModelCard:
    return ModelCard.from_dict(
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
def test_a_dense_output_equals_predictions_window_by_window() -> None:
    made, image = network(variance=True), torch.rand(1, 3, WINDOW + 8 * 5, WINDOW + 8 * 3)
    dense = made(image)
    assert dense.shape == (1, 2, 6, 4)
    windows = image.unfold(2, WINDOW, 8).unfold(3, WINDOW, 8)[0].permute(1, 2, 0, 3, 4)
    by_window = made(windows.reshape(-1, 3, WINDOW, WINDOW)).reshape(6, 4, 2).permute(2, 0, 1)
    torch.testing.assert_close(dense[0], by_window, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("runs", ["onnxruntime", "openvino"])
def test_other_back_ends_run_it(runs: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # Its convolutions are unpadded: a smaller example than its margins cannot be exported.
    pytest.importorskip(runs)
    made = network()
    monkeypatch.setenv("HRVIEWER_BACKEND", runs)
    exported = as_loaded(made, tmp_path)
    assert exported.backend.startswith(runs)
    monkeypatch.setenv("HRVIEWER_BACKEND", "torch")
    loaded = as_loaded(made, tmp_path)
    assert loaded.backend.startswith("torch")
    assert not any(isinstance(layer, torch.nn.BatchNorm2d) for layer in loaded.module.modules())
    x = np.random.default_rng(0).random((2, 3, 160, 184), np.float32)
    assert outputs_agree([loaded(x)], [exported(x)])


@torch.inference_mode()
def test_it_costs_a_tenth_of_main() -> None:
    from torch.utils.flop_counter import FlopCounterMode

    flops = []
    for made in (DensityScanner(variance=True), DensityUNet()):
        with FlopCounterMode(display=False) as counter:
            made.eval()(torch.zeros(1, 3, 512, 512))
        flops.append(counter.get_total_flops())
    assert flops[0] <= 0.1 * flops[1]


def as_loaded(made: torch.nn.Module, folder: Path, variance: bool = False) -> Network:
    from safetensors.torch import save_file

    path, fields = folder / "scanner.safetensors", card(variance=variance).model_dump()
    save_file(made.state_dict(), path)
    fields["architecture"]["params"] = {"variance": variance}
    return load(path, ModelCard.from_dict(fields, "card"), "cpu")


def test_tiles_meet_exactly_and_the_border_is_reflected(tmp_path) -> None:
    made = network()
    loaded = as_loaded(made, tmp_path)
    image = np.random.default_rng(0).integers(0, 255, (200, 264, 3), np.uint8)
    run = hrviewer.run(
        image, ToyBundle(main=loaded), "patches", tile=64, out=tmp_path / "a.run.zarr"
    )
    padded = np.pad(image, [(24, 24), (24, 24), (0, 0)], mode="reflect")
    with torch.inference_mode():
        whole = made(torch.from_numpy(padded).permute(2, 0, 1)[None].float() / 255)[0, 0].numpy()
    np.testing.assert_allclose(np.asarray(run.output)[0], whole, rtol=1e-4, atol=1e-6)


def by_window(made: torch.nn.Module, image: np.ndarray, k: int) -> np.ndarray:
    """Predict every window by itself: those whose prediction is centred on a cell of 8 / k."""
    fine = 8 // k
    rows, columns = image.shape[0] // fine, image.shape[1] // fine
    reach = (WINDOW - fine) // 2
    padded = np.pad(image, [(reach, reach), (reach, reach), (0, 0)], mode="reflect")
    windows = np.stack(
        [
            padded[y * fine : y * fine + WINDOW, x * fine : x * fine + WINDOW]
            for y in range(rows)
            for x in range(columns)
        ]
    )
    with torch.inference_mode():
        predictions = made(torch.from_numpy(windows).permute(0, 3, 1, 2).float() / 255)
    return predictions.reshape(rows, columns, -1).permute(2, 0, 1).numpy() / k**2


@pytest.mark.parametrize("k", [2, 4])
def test_a_denser_map_equals_predictions_of_every_window(tmp_path, k: int) -> None:
    made = network(variance=True)
    loaded = as_loaded(made, tmp_path, variance=True)
    image = np.random.default_rng(0).integers(0, 255, (96, 136, 3), np.uint8)
    there = by_window(made, image, k)
    bundle = ToyBundle(main=Bright(stride=8 // k), scanner=loaded)
    with Workbench(image, bundle) as bench:
        params = ScannerParams(denser=k, share=0, sample=0, tile=64)
        answer, record, _ = bench.run(lambda scene: Scanner().plan(scene, params))
        plain = ShiftAndStitch(loaded, k)
        assert bench.models["scanner"].flops(64, 64) * k**2 == plain.flops(80, 80)
    np.testing.assert_allclose(record.output.values, there[:1], rtol=1e-4, atol=1e-7)
    assert answer.values[0] == pytest.approx(there[0].sum(), rel=1e-4)
    assert {row.role for row in record.patches} == {f"scanner/{k}"}


def test_unsupported_denser_values_are_refused(tmp_path) -> None:
    loaded = as_loaded(network(), tmp_path)
    for k in 3, 8:
        with pytest.raises(HrviewerError, match="predicts every 8 pixels"):
            ShiftAndStitch(loaded, k)
    with pytest.raises(HrviewerError, match="choose denser=1"):
        ShiftAndStitch(Bright(task="classification"), 2)
