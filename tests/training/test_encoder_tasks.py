"""An encoder starts with main's weights, and a head is trained on its embeddings."""

from __future__ import annotations

import shutil

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from hrviewer.errors import HrviewerError
from hrviewer.models import ModelBundle
from hrviewer.models.card import Architecture, ModelOutput
from hrviewer.models.loaders.torch import count_flops
from hrviewer.training import EncoderTask, HeadTask, TaskSet, train, write_role
from hrviewer.training.density_task import build, fit_gain

from .fixtures import CARD, Pictures, picture

TASKS = TaskSet("Squares", "Counts squares.", {})
NETWORK = Architecture(
    name="density-unet", params={"widths": [4, 6, 8, 10], "blocks": [1, 1, 1], "unit": 1.0}
)
MAIN = CARD.model_copy(
    update={"architecture": NETWORK, "output": ModelOutput(stride=4, halo=96, classes=("square",))}
)


def make_task(kind: type[EncoderTask] | type[HeadTask], bundle) -> EncoderTask | HeadTask:
    return kind.from_bundle(
        bundle,
        {"data": "squares"},
        Wide,
        validation=[picture(seed, 128) for seed in range(4)],
        test=[picture(seed, 128) for seed in range(4, 8)],
        tile=32,
        device="cpu",
    )


class Wide(Pictures):
    """Large enough for eight embeddings per side."""

    def __getitem__(self, step: int) -> tuple[torch.Tensor]:
        return (picture((self.seed, step), 128)[None],)


@pytest.fixture(scope="module", autouse=True)
def one_backend():
    """No back end is measured here."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HRVIEWER_BACKEND", "torch")
        yield


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    torch.manual_seed(0)
    folder, network = tmp_path_factory.mktemp("bundles") / "bundle", build(NETWORK)
    write_role(folder, "squares", TASKS, "main", network, MAIN, training={}, metrics={})
    return folder


@pytest.fixture(scope="module")
def encoded(bundle):
    """The bundle with an encoder of a few training steps."""
    encoder_task, folder = make_task(EncoderTask, bundle), bundle.with_name("encoded")
    network, _ = train(encoder_task, bundle.with_name("checkpoint"), steps=3, workers=0)
    encoder_task.calibrate(network)
    shutil.copytree(bundle, folder)
    write_role(
        folder, "squares", TASKS, "encoder", network, encoder_task.card, training={}, metrics={}
    )
    return folder


def test_initial_weights_are_mains_where_they_fit(bundle):
    own = make_task(EncoderTask, bundle).create_model().state_dict()
    main = load_file(bundle / "main.safetensors")
    trunk = [name for name in main if name.startswith(("stem.", "down.0.", "down.1."))]
    assert len(trunk) == 5 * 6  # five convolutions, each with its normalisation
    for name in trunk:
        assert torch.equal(own[name], main[name])
    assert own["down.2.0.0.weight"].shape != main["down.2.0.0.weight"].shape


def test_its_card_is_an_embeddings(bundle):
    encoder_task = make_task(EncoderTask, bundle)
    card = encoder_task.card
    assert (card.task, card.stride, card.prediction_channels, card.classes) == (
        "embedding",
        16,
        24,
        (),
    )
    assert card.output.halo == build(card.architecture).halo
    assert card.input.mean == MAIN.input.mean
    assert encoder_task.sources["teacher"]["name"] == "squares"


def test_calibrated_its_own_head_counts_as_main(encoded, tmp_path):
    encoder_task = make_task(EncoderTask, encoded)
    network, _ = train(encoder_task, tmp_path / "again", steps=3, workers=0)
    encoder_task.calibrate(network)
    _, pictures = encoder_task._tile_sums(network, encoder_task.validation)
    assert fit_gain(pictures[:, 0], pictures[:, 2]) == pytest.approx(1, rel=1e-3)
    figures = encoder_task.evaluate(network)
    assert figures["embedding_ratio"] == 2 * 24 / (16 * 16 * 3)


def test_a_head_gets_embeddings_in_half_precision(encoded):
    head_task = make_task(HeadTask, encoded)
    head = head_task.create_model().eval()
    encoder = ModelBundle.read(encoded).load("encoder", "cpu")
    image = picture(5, 64)
    embeddings = encoder(encoder.card.prepare(image.permute(1, 2, 0).numpy() * 255)[None])
    with torch.inference_mode():
        wanted = head(torch.from_numpy(embeddings.astype(np.float16).astype(np.float32)))
        predicted = head_task._predict(head, image[None])
    torch.testing.assert_close(predicted, wanted, rtol=1e-3, atol=1e-3)
    assert head_task.card.input.channels == 24
    assert head_task.card.output.halo == 0
    flops = count_flops(build(head_task.card.architecture).to("meta"), "forward", (1, 24, 4, 4))
    main = ModelBundle.read(encoded).load("main", "cpu").flops(64, 64)
    assert head_task._relative_flops(head) == pytest.approx(flops / main, rel=1e-6)


@pytest.mark.slow
def test_a_head_is_trained_and_saved_with_its_encoder(encoded, tmp_path):
    head_task = make_task(HeadTask, encoded)
    network, _ = train(head_task, tmp_path / "head", steps=3, workers=0)
    head_task.calibrate(network)
    write_role(encoded, "squares", TASKS, "head", network, head_task.card, training={}, metrics={})
    bundle = ModelBundle.read(encoded)
    assert {"main", "encoder", "head"} <= set(bundle.roles)
    predicted = bundle.load("head", "cpu").run_features(np.zeros((24, 5, 7), np.float32))
    assert predicted.shape == (2, 5, 7)


def test_there_is_no_head_without_an_encoder(bundle):
    with pytest.raises(HrviewerError, match="encoder"):
        make_task(HeadTask, bundle)
