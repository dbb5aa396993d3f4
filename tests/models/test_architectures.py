"""Invariants of the built-in architectures."""

from __future__ import annotations

import pytest
import torch

from hrviewer.models.architectures import DensityEncoder, DensityUNet, EmbeddingHead

SMALL = {"widths": (4, 6, 8, 10), "blocks": (1, 0, 1)}


@pytest.fixture
def image() -> torch.Tensor:
    return torch.rand(2, 3, 64, 96, generator=torch.Generator().manual_seed(0))


def test_variances_come_after_the_densities_and_are_positive(image):
    torch.manual_seed(0)
    network = DensityUNet(classes=2, variance=True, **SMALL).eval()
    out = network(image)
    assert out.shape == (2, 4, 16, 24)
    assert (out[:, :2] >= 0).all()
    assert (out[:, 2:] > 0).all()


def test_the_unit_scales_the_last_layer(image):
    outputs = []
    for unit in (1 / 16, 1.0):
        torch.manual_seed(0)
        outputs.append(DensityUNet(unit=unit, variance=True, **SMALL).eval()(image))
    torch.testing.assert_close(outputs[1], 16 * outputs[0])


def test_rescaling_multiplies_counts_and_variances_by_constants(image):
    torch.manual_seed(0)
    network = DensityUNet(classes=2, variance=True, **SMALL).eval()
    before = network(image)
    network.rescale(1.5, 0.3)
    after = network(image)
    torch.testing.assert_close(after[:, :2], 1.5 * before[:, :2])
    torch.testing.assert_close(after[:, 2:], 0.3 * before[:, 2:])


def test_the_receptive_field_of_an_encoder_is_within_its_halo():
    torch.manual_seed(0)
    encoder = DensityEncoder(embedding_dim=3, widths=(4, 6, 8, 8), blocks=(1, 2, 1)).double().eval()
    whole = torch.rand(1, 3, 256, 256, dtype=torch.float64)
    halo, core = encoder.halo, slice(96, 160)
    part = whole[..., 96 - halo : 160 + halo, 96 - halo : 160 + halo]
    embeddings = encoder(whole)[..., 96 // 16 : 160 // 16, 96 // 16 : 160 // 16]
    cells = slice(halo // 16, (halo + core.stop - core.start) // 16)
    torch.testing.assert_close(encoder(part)[..., cells, cells], embeddings, rtol=1e-12, atol=1e-12)
    changed = whole.clone()
    changed[..., :16] += 1  # and no nearer than it must
    assert not torch.equal(encoder(changed)[..., 16 // 16 + 1], encoder(whole)[..., 16 // 16 + 1])


def test_an_encoder_costs_half_of_main_and_a_head_next_to_nothing():
    from hrviewer.models.loaders.torch import count_flops

    def cost(network, channels, side):
        return count_flops(network.eval().to("meta"), "forward", (1, channels, side, side))

    main, encoder, head = DensityUNet(), DensityEncoder(), EmbeddingHead(24, variance=True)
    tile = cost(main, 3, 512 + 2 * main.halo)
    assert cost(encoder, 3, 512 + 2 * encoder.halo) < 0.55 * tile
    assert cost(head, 24, 512 // 16) < 0.005 * tile


def test_a_head_without_layers_is_linear_above_zero():
    torch.manual_seed(0)
    head = EmbeddingHead(3, widths=()).eval()
    embeddings = torch.randn(1, 3, 4, 5)
    weight, bias = head.head.weight[0, :, 0, 0], head.head.bias
    wanted = ((embeddings[0] * weight[:, None, None]).sum(0) + bias).clamp(min=0)
    torch.testing.assert_close(head(embeddings)[0, 0], wanted)
    assert (head.halo, EmbeddingHead(3, size=3).halo) == (0, 1)
