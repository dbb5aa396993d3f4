"""The token transformer, against a plain one, closed forms and its invariants."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from hrviewer.models.loaders.torch import count_flops
from hrviewer.models.token_merging import MergedTokens
from hrviewer.models.transformer import TokenTransformer, extract_squares


@pytest.fixture
def network() -> TokenTransformer:
    torch.manual_seed(0)
    return TokenTransformer(dim=24, depth=2, heads=2, variance=True).eval()


def region(n: int, seed: int, corner: tuple[int, int] = (0, 0)) -> tuple[Tensor, Tensor]:
    """Return `n` tokens of mixed sizes somewhere in a region of 512 pixels."""
    generator = torch.Generator().manual_seed(seed)
    side = 16 * 2 ** torch.randint(0, 4, (n, 1), generator=generator)
    at = (torch.rand(n, 2, generator=generator) * 512 // side * side).long()
    boxes = torch.cat((at + torch.tensor(corner), side, side), dim=1)
    return torch.randn(n, 3, 16, 16, generator=generator), boxes.float()


@torch.no_grad()
def test_on_a_uniform_grid_without_merging_it_is_a_plain_transformer(network):
    image = torch.randn(1, 3, 512, 512)
    tokens = image.reshape(1, 3, 32, 16, 32, 16).permute(0, 2, 4, 1, 3, 5).reshape(-1, 3, 16, 16)
    own = network.stem(tokens)
    at = torch.arange(0, 512, 16.0)
    boxes = torch.stack(
        [at.repeat_interleave(32), at.repeat(32), *2 * [torch.full((1024,), 16.0)]], dim=1
    )
    x = network.embed(own.flatten(1)) + network.place(network._position_features(boxes, [1024]))
    for block in network.blocks:
        # torch's own layer, with the same weights.
        layer = nn.TransformerEncoderLayer(
            24, 2, 96, 0.0, F.gelu, batch_first=True, norm_first=True
        ).eval()
        layer.self_attn.in_proj_weight.data = block.qkv.weight
        layer.self_attn.in_proj_bias.data = block.qkv.bias
        layer.self_attn.out_proj.load_state_dict(block.out.state_dict())
        layer.linear1.load_state_dict(block.perceptron[0].state_dict())
        layer.linear2.load_state_dict(block.perceptron[2].state_dict())
        layer.norm1.load_state_dict(block.before.state_dict())
        layer.norm2.load_state_dict(block.after.state_dict())
        x = layer(x[None])[0]
    cells = network.head(F.gelu(own + network.spread(network.norm(x)).view_as(own)))
    want = cells.view(32, 32, 2, 4, 4).permute(2, 0, 3, 1, 4).reshape(1, 2, 128, 128)
    torch.testing.assert_close(network(image, 16), want, rtol=1e-5, atol=1e-5)


@torch.no_grad()
@pytest.mark.parametrize("merge", [0.0, 0.2])
def test_packed_groups_do_not_leak_into_each_other(network, merge):
    parts = [region(n, n, corner) for n, corner in ((40, (0, 0)), (70, (512, 1024)), (9, (0, 512)))]
    tokens, boxes = (torch.cat(x) for x in zip(*parts, strict=True))
    packed = network.run_tokens(tokens, boxes, [40, 70, 9], merge)
    alone = torch.cat([network.run_tokens(*part, None, merge) for part in parts])
    torch.testing.assert_close(packed, alone, rtol=1e-5, atol=1e-6)
    # The content of one group does not change the others.
    tokens[40:110] = 0
    changed = network.run_tokens(tokens, boxes, [40, 70, 9], merge)
    torch.testing.assert_close(changed[:40], alone[:40], rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(changed[110:], alone[110:], rtol=1e-5, atol=1e-6)
    assert (changed[40:110] - alone[40:110]).abs().max() > 1e-3


@torch.no_grad()
def test_groups_in_another_order_give_the_same_in_that_order(network):
    parts = [region(30, seed, (512 * seed, 0)) for seed in range(3)]
    for order in ([2, 0, 1], [1, 0, 2]):
        tokens, boxes = (torch.cat([parts[i][j] for i in order]) for j in (0, 1))
        found = network.run_tokens(tokens, boxes, [30] * 3).split(30)
        for i, predictions in zip(order, found, strict=True):
            torch.testing.assert_close(
                predictions, network.run_tokens(*parts[i]), rtol=1e-5, atol=1e-6
            )


@torch.no_grad()
def test_tokens_of_a_group_may_come_in_any_order(network):
    tokens, boxes = region(50, 3)
    order = torch.randperm(50)
    torch.testing.assert_close(
        network.run_tokens(tokens[order], boxes[order]), network.run_tokens(tokens, boxes)[order],
        rtol=1e-5, atol=1e-6,
    )  # fmt: skip


@torch.no_grad()
def test_a_region_may_lie_anywhere(network):
    tokens, boxes = region(50, 3)
    far = boxes + torch.tensor([512.0 * 7, 512.0 * 3, 0, 0])
    torch.testing.assert_close(network.run_tokens(tokens, far), network.run_tokens(tokens, boxes))
    moved = boxes + torch.tensor([16.0, 0, 0, 0])
    assert (
        network.run_tokens(tokens, moved) - network.run_tokens(tokens, boxes)
    ).abs().max() > 1e-4


def test_merging_keeps_the_mass():
    x, alike = torch.randn(101, 8).double(), torch.randn(101, 4).double()
    tokens = MergedTokens.from_tokens(x, [40, 61])
    whole = torch.stack([part.sum(0) for part in x.split([40, 61])])
    for share in (0.3, 0.5, 0.1):
        tokens = tokens.merge(alike[: len(tokens.x)], share)
        weighted = (tokens.x * tokens.size).split(tokens.lengths)
        torch.testing.assert_close(torch.stack([part.sum(0) for part in weighted]), whole)
    assert tokens.lengths == (13, 20)  # 40 → 28 → 14 → 13 and 61 → 43 → 22 → 20
    assert [int(part.sum()) for part in tokens.size.split(tokens.lengths)] == [40, 61]
    back = tokens.unmerge()
    assert back.shape == x.shape
    torch.testing.assert_close(torch.stack([p.sum(0) for p in back.split([40, 61])]), whole)
    # No token of one input became part of another's.
    assert int(tokens.owner[:40].max()) < 13 <= int(tokens.owner[40:].min())


def test_the_most_similar_tokens_are_merged():
    alike = torch.eye(8)
    alike[5] = alike[2] * 3  # the same direction
    tokens = MergedTokens.from_tokens(torch.arange(8.0)[:, None], [8]).merge(alike, 1 / 8)
    assert tokens.lengths == (7,)
    assert int(tokens.owner[5]) == int(tokens.owner[2])
    assert tokens.x[tokens.owner[2]].item() == 3.5
    assert tokens.size[tokens.owner[2]].item() == 2


@torch.no_grad()
def test_attention_to_a_merged_token_is_proportional_to_its_size(network):
    # Of two equal tokens joined, the others take the same as of the two.
    block = network.blocks[0]
    x = torch.randn(6, 24)
    x[3] = x[2]
    apart = block(MergedTokens.from_tokens(x, [6]), 0.0).unmerge()
    joined = MergedTokens(x[[0, 1, 2, 4, 5]], torch.tensor([1.0, 1, 2, 1, 1])[:, None],
                    torch.tensor([0, 1, 2, 2, 3, 4]), (5,))  # fmt: skip
    torch.testing.assert_close(block(joined, 0.0).unmerge(), apart, rtol=1e-5, atol=1e-5)


@torch.no_grad()
def test_attention_is_that_of_the_last_layer(network):
    tokens, boxes = region(30, 4)
    weights, owner = network.attention(tokens, boxes)
    assert owner.tolist() == list(range(30))
    x = network._embed_tokens(network.stem(tokens), boxes, [30])
    x = network.blocks[0](x, 0.0).x
    block = network.blocks[1]
    layer = nn.MultiheadAttention(24, 2, batch_first=True)
    layer.in_proj_weight.data, layer.in_proj_bias.data = block.qkv.weight, block.qkv.bias
    normal = block.before(x)[None]
    _, want = layer(normal, normal, normal)  # torch's own, the mean of its heads
    torch.testing.assert_close(weights, want[0], rtol=1e-5, atol=1e-6)


@torch.no_grad()
def test_the_attention_of_merged_tokens_is_shared_among_them(network):
    tokens, boxes = region(40, 4)
    weights, owner = network.attention(tokens, boxes, 0.25)
    torch.testing.assert_close(weights.sum(1), torch.ones(40))
    assert len(owner.unique()) == 23  # 40 → 30 → 23
    # What was one before the last layer is asked and asks alike.
    first = network.blocks[0](network._embed_tokens(network.stem(tokens), boxes, [40]), 0.25).owner
    one, other = np.nonzero(np.tril(np.equal.outer(first.numpy(), first.numpy()), -1))
    assert len(one) >= 10
    torch.testing.assert_close(weights[one], weights[other])
    torch.testing.assert_close(weights[:, one], weights[:, other])
    assert (owner[one] == owner[other]).all()


@pytest.mark.parametrize("n", [64, 400])
def test_the_flops_of_the_blocks(n):
    def flops(depth: int) -> float:
        net = TokenTransformer(depth=depth).to("meta")
        return count_flops(net, "run_tokens", (n, 3, 16, 16), (n, 4))

    d = 72
    blocks = flops(5) - flops(2)
    assert blocks == pytest.approx(3 * (24 * n * d**2 + 4 * n**2 * d), rel=0.02)
    assert blocks > 3 * 24 * n * d**2 * 1.001  # without attention it would be just that


def test_merging_saves_flops():
    def flops(depth: int, merge: float) -> float:
        hollow = TokenTransformer(depth=depth).to("meta")
        shapes = (1024, 3, 16, 16), (1024, 4)
        return count_flops(hollow, "run_tokens", *shapes, options=(None, merge))

    # Of the blocks alone: the layers before and after them run on every token.
    fixed = flops(0, 0.0)
    assert flops(4, 0.25) - fixed < 0.6 * (flops(4, 0.0) - fixed)


@torch.no_grad()
def test_a_whole_image_is_its_regions_and_keeps_its_counts(network):
    images = torch.randn(2, 3, 640, 1024)
    found = network(images, 64)
    assert found.shape == (2, 2, 160, 256)
    one = network(images[1:, :, :512, 512:], 64)
    # In the second column of regions, known only by its corner.
    torch.testing.assert_close(found[1:, :, :128, 128:], one, rtol=1e-4, atol=1e-6)
    assert found[0, 0, :16, :16].sum() == pytest.approx(
        float(found[0, 0, ::4, ::4][:4, :4].sum() * 16), rel=1e-4
    )


def test_squares_are_box_filtered():
    image = torch.rand(1, 3, 128, 192)
    cut = extract_squares(image, 64)
    assert cut.shape == (1, 2, 3, 3, 16, 16)
    np.testing.assert_allclose(
        cut[0, 1, 2, :, 3, 5], image[0, :, 76:80, 148:152].mean((1, 2)), rtol=1e-5
    )


@torch.no_grad()
def test_rescaling_multiplies_each_size(network):
    tokens, boxes = region(60, 5)
    before = network.run_tokens(tokens, boxes)
    network.rescale([1.0, 2.0, 3.0, 4.0], 9.0)
    factor = 1 + (boxes[:, 2] / 16).log2()[:, None, None]
    after = network.run_tokens(tokens, boxes)
    torch.testing.assert_close(after[:, 0], before[:, 0] * factor, rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(after[:, 1], before[:, 1] * factor**2 * 9, rtol=1e-4, atol=1e-6)
