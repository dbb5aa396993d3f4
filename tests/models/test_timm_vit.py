"""timm's transformers: as they are on a uniform grid, with merging and sizes of tokens added."""

from __future__ import annotations

import json
from importlib.util import find_spec

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn
from toys import Bright, ToyBundle, Workbench, card

from hrviewer.errors import HrviewerError
from hrviewer.models import open_bundle
from hrviewer.models.loaders.torch import count_flops
from hrviewer.models.timm_vit import TimmViT
from hrviewer.strategies.transformer import Transformer, TransformerParams

pytestmark = pytest.mark.skipif(find_spec("timm") is None, reason="needs timm")

NAME = "vit_tiny_patch16_224"
SMALL = {"embed_dim": 24, "depth": 2, "num_heads": 2, "img_size": 96}
OTHERS = {"plain": {}, "more": {"init_values": 0.5, "qk_norm": True, "reg_tokens": 3},
          "none": {"class_token": False, "global_pool": "avg"}}  # fmt: skip


@pytest.fixture(params=OTHERS)
def network(request):
    torch.manual_seed(0)
    made = TimmViT(NAME, region=256, **SMALL, **OTHERS[request.param]).eval()
    for part in made.vit.parameters():
        nn.init.normal_(part, std=0.2)
    return made.requires_grad_(False)


def grid(side: int, of: int, corner: tuple[int, int] = (0, 0)) -> torch.Tensor:
    at = torch.cartesian_prod(*2 * [torch.arange(0, of, side)]) + torch.tensor(corner)
    return torch.cat((at, torch.full_like(at, side)), dim=1).float()


@torch.no_grad()
def test_on_a_uniform_grid_it_is_timms_own_with_interpolated_positions(network):
    image = torch.randn(1, 3, 256, 256)
    tokens = image.view(1, 3, 16, 16, 16, 16).permute(0, 2, 4, 1, 3, 5).reshape(-1, 3, 16, 16)
    predictions = network.run_tokens(tokens, grid(16, 256))
    network.vit.set_input_size(img_size=256)  # timm's own interpolation
    own = network.vit.forward_features(image)[0, network.vit.num_prefix_tokens :]
    cells = nn.functional.gelu(network.spread(own)).view(256, -1, 4, 4)
    assert own.std() > 0.1
    torch.testing.assert_close(predictions, network.head(cells), rtol=1e-4, atol=1e-5)


@torch.no_grad()
def test_groups_of_mixed_sizes_do_not_leak_with_merging_too(network):
    boxes = torch.cat([grid(16, 64), grid(64, 256, (256, 256)), grid(128, 256)])
    tokens = torch.randn(len(boxes), 3, 16, 16)
    lengths = [16, 16, 4]
    for merge in (0.0, 0.25):
        packed = network.run_tokens(tokens, boxes, lengths, merge).split(lengths)
        parts = zip(tokens.split(lengths), boxes.split(lengths), packed, strict=True)
        for some, where, predictions in parts:
            alone = network.run_tokens(some, where, None, merge)
            torch.testing.assert_close(predictions, alone, rtol=1e-4, atol=1e-5)
    assert (network.run_tokens(tokens, boxes, lengths, 0.25) - torch.cat(packed)).abs().max() == 0
    assert (network.run_tokens(tokens, boxes, lengths) - torch.cat(packed)).abs().max() > 1e-5


@torch.no_grad()
def test_positions_are_those_of_the_region_and_larger_tokens_have_their_mean(network):
    fine = network._position_embeddings(grid(16, 256), [256])
    coarse = network._position_embeddings(grid(64, 256, (512, 256)), [16])
    blocks = fine.view(4, 4, 4, 4, -1).mean((1, 3)).flatten(0, 1)
    torch.testing.assert_close(coarse, blocks, rtol=1e-4, atol=1e-6)
    # Context lies anywhere, and is the nearest; the largest is the mean of all.
    around = torch.tensor([[-64.0, 0, 64, 64], [512, 512, 64, 64], [-512, 0, 512, 512]])
    found = network._position_embeddings(torch.cat([grid(16, 16), around]), [4])[1:]
    torch.testing.assert_close(found[0], blocks[0], rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(found[1], blocks[-1], rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(found[2], fine.mean(0), rtol=1e-4, atol=1e-6)


@torch.no_grad()
def test_attention_leaves_out_prefix_tokens(network):
    tokens, boxes = torch.randn(64, 3, 16, 16), grid(16, 128)
    for merge in (0.0, 0.25):
        weights, owner = network.attention(tokens, boxes, merge)
        assert weights.shape == (64, 64)
        sums = weights.sum(1)
        if network.vit.num_prefix_tokens:
            assert ((sums > 0) & (sums < 1)).all()
        else:
            torch.testing.assert_close(sums, torch.ones(64))
        assert len(owner.unique()) == (36 if merge else 64)  # 64 → 48 → 36


@pytest.fixture
def kept(tmp_path):
    """A file of local weights, its positions of another grid, and a card."""
    torch.manual_seed(1)
    made = TimmViT(NAME, **SMALL | {"img_size": 64}).eval()
    path = tmp_path / "vit.safetensors"
    save_file(made.state_dict(), path)

    def write(**params):
        about = card("vit", tile=16, channels="rgb", stride=4).model_dump(
            mode="json", exclude_none=True
        )
        about["architecture"] = {"name": "timm-vit", "params": {"name": NAME, **SMALL, **params}}
        path.with_suffix(".json").write_text(json.dumps(about))
        return path, made

    return write


def test_a_card_brings_local_weights_in(kept):
    path, made = kept()
    network = open_bundle(path).load("main", "cpu")
    assert network.accepts_tokens
    assert network.has_attention
    tokens, boxes = np.zeros((9, 3, 16, 16), np.float32), grid(16, 48).numpy()
    predictions = network.run_tokens(tokens, boxes)
    assert predictions.shape == (9, 1, 4, 4)
    # The grid of 6 × 6 that the card asks for was interpolated from the file's 4 × 4.
    assert made.vit.pos_embed.shape[1] == 17
    d, n = 24, 400
    deeper = TimmViT(NAME, **SMALL | {"depth": 3}).to("meta")
    block = count_flops(deeper, "run_tokens", (n, 3, 16, 16), (n, 4)) - network.token_flops(n)
    n += 1  # the class
    assert block == pytest.approx(24 * n * d**2 + 4 * n**2 * d, rel=0.02)


def test_the_strategy_runs_it_with_adaptive_tokens_that_are_merged(kept):
    path, _ = kept()
    network = open_bundle(path).load("main", "cpu")
    network.module.rescale(1e-6)  # so that no prediction is high enough to split a token
    image = np.zeros((512, 512, 3), np.uint8)
    image[:256, :128] = np.random.default_rng(0).integers(0, 256, (256, 128, 3))
    bundle = ToyBundle(main=Bright(), transformer=network)
    found = []
    for merge in (0.0, 0.25):
        params = TransformerParams(detail="entropy", threshold=1.0, tokens=1.0, merge=merge)
        with Workbench(image, bundle) as bench:
            answer, record, _ = bench.run(
                lambda scene, params=params: Transformer().plan(scene, params)
            )
        assert {row.h for row in record.patches if row.role == "transformer"} == {16, 128}
        assert np.isfinite(answer.values).all()
        assert np.nansum(record.output.values) == pytest.approx(answer.values[0], rel=1e-4)
        found.append(record.cost_map.total.flops)
    assert found[1] < found[0]


@pytest.mark.parametrize(
    ("params", "words"),
    [
        ({"name": "vit_nowhere"}, "has no model 'vit_nowhere'"),
        ({"checkpoint_path": "x.pth"}, "download weights"),
        ({"name": "resnet18", "img_size": None}, "do not fit"),
        ({"embed_dim": 36}, "does not fit the architecture"),
        ({"pos_embed": "none"}, "not a plain vision transformer"),
    ],
)
def test_unsupported_models_are_reported(kept, params, words):
    path, _ = kept(**params)
    with pytest.raises(HrviewerError, match=words):
        open_bundle(path).load("main", "cpu")
