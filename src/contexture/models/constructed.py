r"""Weights set by hand, under which layers of linear self-attention are steps of gradient descent.

One head with W_Q = W_K = (I 0; 0 0) scores <x_j, x>. With W_V = (0 0; 0 -1) and P = rate I it adds to every y-slot
-rate (1/n) sum_j r_j <x_j, x>, where r_j is token j's y-slot: one step of gradient descent on the mean squared error,
after which the y-slots hold residuals, so that the next layer takes the next step. With -gamma I in place of the 0 in
W_V, x is shrunk along the directions that the examples already cover,

    x <- (I - gamma (1/n) X'X) x,

the curvature correction GD++ of von Oswald et al. 2022, arXiv:2212.07677. W_Q = (A 0; 0 0) preconditions by A
(Ahn et al. 2023; Mahankali et al. 2023; Zhang et al. 2023).

Two heads of softmax attention with scores +-c <x_j, x> and values +-m y_j add, for small c, a step on centred examples,

    2 c m (1/n) sum_j y_j <x_j - mean of x, x>,

the debiased gradient descent of He et al. 2025, arXiv:2503.12734.
"""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from contexture.models.self_attention import SelfAttention, SelfAttentionConfig, SelfAttentionModel


def descent(
    num_features: int,
    *,
    num_steps: int,
    rate: float | Sequence[float],
    curvature: float = 0.0,
    preconditioner: Float[Tensor, "features features"] | None = None,
    weights: str = "linear",
) -> SelfAttentionModel:
    """A model in fp64 whose layers are gradient steps of the given rate, or each of its own; curvature: GD++'s gamma.

    >>> model = descent(1, num_steps=2, rate=0.5)
    >>> x, y = torch.ones(1, 2, 1, dtype=torch.float64), torch.tensor([[2.0, 4.0]], dtype=torch.float64)
    >>> [said.item() for said in model.read_outs(x, y, 2 * torch.ones(1, 1, 1, dtype=torch.float64))]
    [3.0, 4.5]
    """
    config = SelfAttentionConfig(num_features=num_features, num_layers=num_steps, weights=weights)
    model = SelfAttentionModel(config, generator=torch.Generator().manual_seed(0)).double()
    rates = [rate] * num_steps if isinstance(rate, float | int) else rate
    for layer, own in zip(model.layers, rates, strict=True):
        assert isinstance(layer, SelfAttention)
        set_step(layer, rate=own, curvature=curvature, preconditioner=preconditioner)
    return model.eval().requires_grad_(False)


def set_step(
    layer: SelfAttention, *, rate: float, curvature: float = 0.0, preconditioner: Tensor | None = None
) -> None:
    """Set the weights of a layer with one head to one step."""
    width = layer.output.num_out
    features = torch.eye(width, dtype=torch.float64)
    features[-1, -1] = 0
    stretched = features.clone()
    if preconditioner is not None:
        stretched[:-1, :-1] = preconditioner
    value = -curvature * features
    value[-1, -1] = -rate
    for leaf, matrix in (
        (layer.query, stretched),
        (layer.key, features),
        (layer.value, value),
        (layer.output, torch.eye(width, dtype=torch.float64)),
    ):
        with torch.no_grad():
            leaf.weight.copy_(matrix)


def debiased_step(num_features: int, *, rate: float, sharpness: float = 0.02) -> SelfAttentionModel:
    """Two heads of softmax attention in fp64 that are nearly one step of the given rate on centred examples."""
    config = SelfAttentionConfig(num_features=num_features, num_heads=2, weights="softmax")
    model = SelfAttentionModel(config, generator=torch.Generator().manual_seed(0)).double()
    layer = model.layers[0]
    assert isinstance(layer, SelfAttention)
    features = torch.eye(num_features + 1, dtype=torch.float64)
    features[-1, -1] = 0
    target = torch.eye(num_features + 1, dtype=torch.float64) - features
    half = rate / (2 * sharpness)
    with torch.no_grad():
        layer.query.weight.copy_(torch.cat((sharpness * features, -sharpness * features)))
        layer.key.weight.copy_(torch.cat((features, features)))
        layer.value.weight.copy_(torch.cat((target, target)))
        layer.output.weight.copy_(torch.cat((-half * target, half * target), 1))
    return model.eval().requires_grad_(False)
