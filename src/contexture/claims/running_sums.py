r"""Regressions of every prefix from running sums: written otherwise than the learners that are held against them.

    ridge(penalty)   x_t' (sum_{i<t} x_i x_i' + penalty I)^-1 sum_{i<t} x_i y_i
    one step         x_t' sum_{i<t} x_i y_i / (n + d + 1 + noise^2),  n = t - 1

The step is one of gradient descent from zero, at the rate that is best after n examples whose x and weights are
standard normal. Shapes: x [episodes, time, features], y [episodes, time], sums [episodes, time, features].
"""

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor

from contexture.claims.in_context import Predict
from contexture.protocols import Pairs


def before(sums: Float[Tensor, "episodes time features"]) -> Float[Tensor, "episodes time features"]:
    """What stood after the example before each, zero at the first.

    >>> before(torch.tensor([[[1.0], [2.0], [4.0]]])).flatten().tolist()
    [0.0, 1.0, 2.0]
    """
    return torch.cat((torch.zeros_like(sums[:, :1]), sums[:, :-1]), 1)


def solved(penalty: float, features: Callable[[Tensor], Tensor] = lambda x: x) -> Predict:
    """Ridge regression on features of x."""

    def say(drawn: Pairs) -> Tensor:
        x, y = features(drawn.x), drawn.y.unsqueeze(-1)
        second = (x.unsqueeze(-1) * x.unsqueeze(-2)).cumsum(1) + penalty * torch.eye(x.shape[2], dtype=x.dtype)
        weights = torch.linalg.solve(second, (x * y).cumsum(1).unsqueeze(-1)).squeeze(-1)
        return (x * before(weights)).sum(-1)

    return say


def one_step(noise: float) -> Predict:
    """A gradient step from zero at the rate that is best for this noise."""

    def say(drawn: Pairs) -> Tensor:
        x = drawn.x
        n = torch.arange(drawn.time, dtype=x.dtype).unsqueeze(-1)
        sums = (x * drawn.y.unsqueeze(-1)).cumsum(1)
        return (x * before(sums) / (n + x.shape[2] + 1 + noise**2)).sum(-1)

    return say
