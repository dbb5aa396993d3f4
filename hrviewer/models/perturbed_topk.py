"""Differentiable top-k: a top-k selection whose gradient is not zero everywhere.

Cordonnier et al., *Differentiable Patch Selection for Image Recognition* (CVPR 2021), after
Berthet et al., *Learning with Differentiable Perturbed Optimizers* (NeurIPS 2020). The Jacobian is
the expected **outer** product of indicators and noise, over sigma; implementations that take the
elementwise product give wrong signs.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

__all__ = ["PerturbedTopK"]


class PerturbedTopK(torch.nn.Module):
    """Expected indicators of the k largest noisy scores; in eval mode the plain top-k.

    Parameters
    ----------
    k : int
        Number of scores to select.
    samples : int
        Number of noise samples for each row of scores.
    sigma : float
        Standard deviation of the noise, in the unit of the scores.
    """

    def __init__(self, k: int, samples: int = 500, sigma: float = 0.05) -> None:
        super().__init__()
        self.k, self.samples, self.sigma = k, samples, sigma

    def forward(self, scores: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Return indicators, ``(b, k, n)``, of scores ``(b, n)``; places in ascending order."""
        if not self.training:
            return _indicators(scores, self.k)
        shape = (scores.shape[0], self.samples, scores.shape[1])
        noise = torch.randn(shape, generator=generator, dtype=scores.dtype, device=scores.device)
        chosen: Tensor = _Perturbed.apply(scores, noise, self.k, self.sigma)  # type: ignore[no-untyped-call]
        return chosen


class _Perturbed(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, scores: Tensor, noise: Tensor, k: int, sigma: float) -> Tensor:
        places = _places(scores[:, None] + sigma * noise, k)
        ctx.save_for_backward(places, noise)
        ctx.sigma = sigma
        return _one_hot(places, scores).mean(dim=1)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        places, noise = ctx.saved_tensors
        # E[onehot ⊗ Z] / sigma, contracted with the gradient: the one-hot rows pick from it.
        (grad,) = grads
        picked = grad[:, None].expand(-1, noise.shape[1], -1, -1).gather(3, places[..., None])
        weights = picked.sum(dim=(2, 3))
        return (
            torch.einsum("bs,bsn->bn", weights, noise) / noise.shape[1] / ctx.sigma,
            None,
            None,
            None,
        )


def _places(scores: Tensor, k: int) -> Tensor:
    return scores.topk(k, dim=-1, sorted=False).indices.sort(dim=-1).values


def _one_hot(places: Tensor, like: Tensor) -> Tensor:
    return torch.nn.functional.one_hot(places, like.shape[-1]).to(like.dtype)


def _indicators(scores: Tensor, k: int) -> Tensor:
    return _one_hot(_places(scores, k), scores)
