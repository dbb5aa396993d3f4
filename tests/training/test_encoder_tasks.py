"""An encoder begins where main is, and a head reads what it kept."""

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


def lesson(kind: type[EncoderTask] | type[HeadTask], pack) -> EncoderTask | HeadTask:
    return kind.from_bundle(
        pack,
        {"data": "squares"},
        Wide,
        validation=[picture(seed, 128) for seed in range(4)],
        test=[picture(seed, 128) for seed in range(4, 8)],
        tile=32,
        device="cpu",
    )


class Wide(Pictures):
    """Large enough for eight codes a side."""

    def __getitem__(self, step: int) -> tuple[torch.Tensor]:
        return (picture((self.seed, step), 128)[None],)


@pytest.fixture(scope="module", autouse=True)
def one_backend():
    """What runs a network quickest is not asked here."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HRVIEWER_BACKEND", "torch")
        yield


@pytest.fixture(scope="module")
def pack(tmp_path_factory):
    torch.manual_seed(0)
    folder, network = tmp_path_factory.mktemp("packs") / "pack", build(NETWORK)
    write_role(folder, "squares", TASKS, "main", network, MAIN, training={}, metrics={})
    return folder


@pytest.fixture(scope="module")
def encoded(pack):
    """The pack with an encoder that has seen a few pictures."""
    coder, folder = lesson(EncoderTask, pack), pack.with_name("encoded")
    network, _ = train(coder, pack.with_name("checkpoint"), steps=3, workers=0)
    coder.calibrate(network)
    shutil.copytree(pack, folder)
    write_role(folder, "squares", TASKS, "encoder", network, coder.card, training={}, metrics={})
    return folder


def test_it_begins_with_as_much_of_main_as_fits(pack):
    own = lesson(EncoderTask, pack).create_model().state_dict()
    main = load_file(pack / "main.safetensors")
    trunk = [name for name in main if name.startswith(("stem.", "down.0.", "down.1."))]
    assert len(trunk) == 5 * 6  # five convolutions, each with its normalisation
    for name in trunk:
        assert torch.equal(own[name], main[name])
    assert own["down.2.0.0.weight"].shape != main["down.2.0.0.weight"].shape


def test_its_card_is_an_embeddings(pack):
    coder = lesson(EncoderTask, pack)
    card = coder.card
    assert (card.task, card.stride, card.prediction_channels, card.classes) == (
        "embedding",
        16,
        24,
        (),
    )
    assert card.output.halo == build(card.architecture).halo
    assert card.input.mean == MAIN.input.mean
    assert coder.sources["teacher"]["name"] == "squares"


def test_calibrated_its_own_head_counts_what_main_does(encoded, tmp_path):
    coder = lesson(EncoderTask, encoded)
    network, _ = train(coder, tmp_path / "again", steps=3, workers=0)
    coder.calibrate(network)
    _, pictures = coder._tile_sums(network, coder.validation)
    assert fit_gain(pictures[:, 0], pictures[:, 2]) == pytest.approx(1, rel=1e-3)
    figures = coder.evaluate(network)
    assert figures["embedding_ratio"] == 2 * 24 / (16 * 16 * 3)


def test_a_head_reads_the_codes_as_they_are_kept(encoded):
    reader = lesson(HeadTask, encoded)
    head = reader.create_model().eval()
    encoder = ModelBundle.read(encoded).load("encoder", "cpu")
    image = picture(5, 64)
    codes = encoder(encoder.card.prepare(image.permute(1, 2, 0).numpy() * 255)[None])
    with torch.inference_mode():
        wanted = head(torch.from_numpy(codes.astype(np.float16).astype(np.float32)))
        said = reader._predict(head, image[None])
    torch.testing.assert_close(said, wanted, rtol=1e-3, atol=1e-3)
    assert reader.card.input.channels == 24
    assert reader.card.output.halo == 0
    flops = count_flops(build(reader.card.architecture).to("meta"), "forward", (1, 24, 4, 4))
    main = ModelBundle.read(encoded).load("main", "cpu").flops(64, 64)
    assert reader._relative_flops(head) == pytest.approx(flops / main, rel=1e-6)


def test_a_head_learns_and_is_written_beside_its_encoder(encoded, tmp_path):
    reader = lesson(HeadTask, encoded)
    network, _ = train(reader, tmp_path / "head", steps=3, workers=0)
    reader.calibrate(network)
    write_role(encoded, "squares", TASKS, "head", network, reader.card, training={}, metrics={})
    pack = ModelBundle.read(encoded)
    assert {"main", "encoder", "head"} <= set(pack.roles)
    said = pack.load("head", "cpu").run_features(np.zeros((24, 5, 7), np.float32))
    assert said.shape == (2, 5, 7)


def test_there_is_no_head_without_an_encoder(pack):
    with pytest.raises(HrviewerError, match="encoder"):
        lesson(HeadTask, pack)
