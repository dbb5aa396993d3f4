"""A resizer starts as a plain resize, is trained through main, and saved as an encoder."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from hrviewer.errors import HrviewerError
from hrviewer.models import ModelBundle
from hrviewer.models.card import Architecture, ModelOutput
from hrviewer.models.loaders.torch import count_flops
from hrviewer.training import ResizerTask, TaskSet, train, write_role
from hrviewer.training.density_task import build, normalise

from .fixtures import CARD, Pictures, picture

TASKS = TaskSet("Squares", "Counts squares.", {})
NETWORK = Architecture(
    name="density-unet", params={"widths": [4, 6, 8, 10], "blocks": [0, 0, 0], "unit": 1.0}
)
MAIN = CARD.model_copy(
    update={"architecture": NETWORK, "output": ModelOutput(stride=4, halo=64, classes=("square",))}
)


class Wide(Pictures):
    def __getitem__(self, step: int) -> tuple[torch.Tensor]:
        return (picture((self.seed, step), 128)[None],)


def make_task(bundle) -> ResizerTask:
    return ResizerTask.from_bundle(
        bundle,
        {"data": "squares"},
        Wide,
        validation=[picture(seed, 128) for seed in range(2)],
        test=[picture(seed, 128) for seed in range(2, 5)],
        tile=32,
        device="cpu",
    )


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HRVIEWER_BACKEND", "torch")
        torch.manual_seed(0)
        folder, network = tmp_path_factory.mktemp("bundles") / "bundle", build(NETWORK)
        write_role(folder, "squares", TASKS, "main", network, MAIN, training={}, metrics={})
        yield folder


def test_it_starts_as_the_plain_resize(bundle):
    resizer = make_task(bundle)
    images = picture(7, 64)[None]
    inputs = normalise(images, MAIN.input)
    network = resizer.create_model().eval()
    plain = F.interpolate(inputs, scale_factor=0.5, mode="bilinear")
    with torch.inference_mode():
        torch.testing.assert_close(network(inputs), plain, rtol=1e-4, atol=1e-5)
        predicted = resizer._predict(network, images)
        torch.testing.assert_close(predicted, resizer.frozen_main(plain), rtol=1e-4, atol=1e-5)
    assert predicted.shape == (1, 1, 8, 8)
    figures = resizer.evaluate(network)
    assert figures["plain"]["count_error"] == figures["count_error"]


def test_its_card_is_an_encoders_and_its_cost_has_mains(bundle):
    resizer = make_task(bundle)
    card = resizer.card
    assert (card.task, card.stride, card.prediction_channels, card.input.multiple_of) == (
        "embedding",
        2,
        3,
        32,
    )
    assert (card.output.halo, card.input.mean) == (8, MAIN.input.mean)
    main = ModelBundle.read(bundle).load("main", "cpu")
    side = card.input.tile
    own = count_flops(build(card.architecture).to("meta"), "forward", (1, 3, side, side))
    cost = (own + main.flops(side // 2, side // 2)) / main.flops(side, side)
    assert resizer._relative_flops(resizer.create_model()) == pytest.approx(cost)


def test_it_learns_and_main_does_not(bundle, tmp_path):
    resizer = make_task(bundle)
    before = {name: w.clone() for name, w in resizer.frozen_main.state_dict().items()}
    torch.manual_seed(0)
    network, batch = resizer.create_model(), [Wide(1, 0)[0][0]]
    first = resizer.loss(network, batch).item()
    optimiser = torch.optim.Adam(network.parameters(), 3e-3)
    for _ in range(30):
        optimiser.zero_grad()
        resizer.loss(network, batch).backward()
        optimiser.step()
    assert resizer.loss(network, batch).item() < 0.8 * first
    assert all(torch.equal(w, before[name]) for name, w in resizer.frozen_main.state_dict().items())
    network, _ = train(resizer, tmp_path / "checkpoint", steps=2, workers=0)
    assert resizer.calibrate(network) == {}
    folder = tmp_path / "bundle"
    main = ModelBundle.read(bundle)
    write_role(folder, "squares", TASKS, "main", resizer.frozen_main, MAIN, training={}, metrics={})
    write_role(folder, "squares", TASKS, "resizer", network, resizer.card, training={}, metrics={})
    assert ModelBundle.read(folder).load("resizer", "cpu").stride == 2
    assert set(main.roles) == {"main"}


def test_a_folder_without_a_bundle_is_refused(tmp_path):
    with pytest.raises(HrviewerError, match="not a model bundle"):
        make_task(tmp_path)
