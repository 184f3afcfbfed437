r"""Attention that averages what hidden concepts would say by their posterior, with keys and values set by hand.

    over M known concepts w_m    softmax_m(<s, k_m>),  s = (X'y, X'X) / s^2,  k_m = (w_m, -w_m w_m' / 2),  values w_m q
    over w ~ N(0, I), kernel     k(q, X) (k(X, X) + s^2 I)^-1 y       k(a, b) = <f(a), f(b)> = (1 + <a, b>)^2

After Y. Zhang et al. 2023, arXiv:2305.19420, who see in-context learning as Bayesian model averaging.
Shapes: x [episodes, T, features], y [episodes, T], queries [episodes, queries, features]; concepts [M, features].
"""

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from contexture.models.self_attention import softmax_weights


def over_concepts(
    x: Float[Tensor, "episodes time features"],
    y: Float[Tensor, "episodes time"],
    queries: Float[Tensor, "episodes queries features"],
    *,
    concepts: Float[Tensor, "concepts features"],
    noise: float,
    lengths: bool = True,
) -> Float[Tensor, "episodes queries"]:
    """Softmax attention from the prompt to the concepts; without `lengths` the keys are w_m alone."""
    squares = (concepts[:, :, None] * concepts[:, None]).flatten(1) / -2 * lengths
    keys = torch.cat((concepts, squares), 1)
    read = torch.cat(((x.mT @ y.unsqueeze(2)).squeeze(2), (x.mT @ x).flatten(1)), 1) / noise**2
    shares = softmax_weights((read @ keys.mT)[:, None, None])
    return (shares[:, 0] @ (concepts @ queries.mT)).squeeze(1)


def quadratic(x: Float[Tensor, "*lead features"]) -> Float[Tensor, "*lead products"]:
    """f(x): all products of up to two coordinates, scaled so that <f(a), f(b)> = (1 + <a, b>)^2.

    >>> quadratic(torch.tensor([2.0])).tolist()
    [1.0, 2.0, 2.0, 4.0]
    """
    one = F.pad(x, (1, 0), value=1.0)
    return (one[..., :, None] * one[..., None, :]).flatten(-2)


def over_examples(
    x: Float[Tensor, "episodes time features"],
    y: Float[Tensor, "episodes time"],
    queries: Float[Tensor, "episodes queries features"],
    *,
    noise: float,
    normalised: bool = False,
) -> Float[Tensor, "episodes queries"]:
    """Kernel attention whose weights are set right by the keys' own kernel; or only made to sum to one."""
    scores = (1 + queries @ x.mT).square()
    if normalised:
        return (scores / scores.sum(2, keepdim=True) @ y.unsqueeze(2)).squeeze(2)
    inner = (1 + x @ x.mT).square() + noise**2 * torch.eye(x.shape[1], dtype=x.dtype)
    said: Tensor = (scores @ torch.linalg.solve(inner, y.unsqueeze(2))).squeeze(2)
    return said
