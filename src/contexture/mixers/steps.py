"""Step sizes of selective state spaces: dt = softplus(x W + b), started so that dt is log-uniform at x = 0."""

import math

import torch

from contexture.leaves.linear import Linear

SHORTEST, LONGEST = 1e-3, 1e-1


def start_steps(projection: Linear, *, generator: torch.Generator) -> Linear:
    """Draw the projection's bias so that softplus of it is log-uniform between 0.001 and 0.1; returns the projection.

    The inverse of softplus is b = dt + log(1 - exp(-dt)).
    """
    assert projection.bias is not None
    with torch.no_grad():
        bias = projection.bias
        step = bias.uniform_(math.log(SHORTEST), math.log(LONGEST), generator=generator).exp()
        bias.copy_(step + torch.log(-torch.expm1(-step)))
    return projection
