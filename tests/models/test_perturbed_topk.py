"""The differentiable top-k against its definition and finite differences."""

from __future__ import annotations

import pytest
import torch

from hrviewer.models.perturbed_topk import PerturbedTopK

SCORES = torch.tensor([[0.1, 0.5, 0.35, 0.4, -0.2]], dtype=torch.float64)


def test_in_eval_mode_it_is_the_top_k():
    chosen = PerturbedTopK(2).eval()(SCORES)
    assert chosen.argmax(-1).tolist() == [[1, 3]]
    assert chosen.sum() == 2


def test_the_jacobian_agrees_with_finite_differences():
    samples, sigma, step = 150_000, 0.3, 0.05
    chooser = PerturbedTopK(2, samples, sigma)

    def expected(scores):
        return chooser(scores, torch.Generator().manual_seed(0))

    jacobian = torch.autograd.functional.jacobian(expected, SCORES)[0, :, :, 0]
    numeric = torch.zeros_like(jacobian)
    for i in range(SCORES.shape[1]):
        shift = torch.zeros_like(SCORES)
        shift[0, i] = step
        numeric[:, :, i] = (expected(SCORES + shift) - expected(SCORES - shift))[0] / (2 * step)
    cosine = torch.cosine_similarity(jacobian.flatten(), numeric.flatten(), dim=0)
    assert cosine > 0.999
    assert jacobian.norm() == pytest.approx(float(numeric.norm()), rel=0.02)
    # Indicators of a row always sum to 1, so what one place gains the others lose.
    assert jacobian.sum(1).abs().max() < 0.02


def test_it_learns_to_select():
    scores = torch.zeros(1, 6, requires_grad=True)
    chooser, optimizer = PerturbedTopK(2, 200, 0.1), torch.optim.SGD([scores], lr=0.1)
    worth = torch.tensor([0.0, 1.0, 0.0, 0.0, 1.0, 0.0])
    generator = torch.Generator().manual_seed(0)
    for _ in range(30):
        optimizer.zero_grad()
        loss = -(chooser(scores, generator) * worth).sum()
        loss.backward()
        optimizer.step()
    assert chooser.eval()(scores).sum(1)[0].tolist() == worth.tolist()
