r"""Gradient flow of a layer that is bilinear in its weights, followed on the moments of its features.

    prediction_o = sum_{a, bc} P_oa K_bc F_abc,    loss = E |y - prediction|^2 / 2

P is what a layer of linear attention makes of values, K how queries read keys, and F a cubic form in the prompt. The
loss depends on the data through E[F F'] and E[y F'] alone, so that a step costs the same for any number of prompts.
Shapes: P [outputs, a]; K [b, c]; F [a * b * c]; second [features, features]; first [outputs, features].
"""

import torch
from jaxtyping import Float
from torch import Tensor


def bilinear_flow(
    second: Float[Tensor, "features features"],
    first: Float[Tensor, "outputs features"],
    *,
    left: Float[Tensor, "outputs a"],
    right: Float[Tensor, "b c"],
    rate: float,
    steps: int,
    keep_zeros: bool = False,
) -> tuple[Float[Tensor, "outputs a"], Float[Tensor, "b c"]]:
    """Descend from `left` and `right` on the loss whose moments are E[F F'] and E[y F'].

    keep_zeros: weights that start at zero stay there.

    >>> one = torch.ones(1, 1)
    >>> left, right = bilinear_flow(one, 4 * one, left=one, right=one, rate=0.1, steps=100)
    >>> left.item(), right.item()
    (2.0, 2.0)
    """
    shape = (*left.shape, *right.shape)
    rates = [rate * ((part != 0) if keep_zeros else torch.ones_like(part)) for part in (left, right)]
    for _ in range(steps):
        product = (left[:, :, None, None] * right).flatten(1)
        slope = (product @ second - first).view(shape)
        change = (slope * right).sum((2, 3)), (slope * left[:, :, None, None]).sum((0, 1))
        left, right = left - rates[0] * change[0], right - rates[1] * change[1]
    return left, right
