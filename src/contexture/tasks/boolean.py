"""What the Boolean families share: inputs of signs, literals, labels as classes, and the cost of a constant answer.

Legend: batch = episodes, time = examples, features = variables; a literal is +1 (positive), -1 (negated) or 0 (absent).
"""

import math
from collections.abc import Mapping

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from contexture.protocols import Pairs
from contexture.tasks.draws import class_schema, integers, uniform

FORCED_SHARE = 0.3
LITERAL_SHARE = 0.3


def signs(*shape: int, generator: torch.Generator) -> Tensor:
    """Uniform over {-1, 1}, as float64."""
    return 2.0 * integers(*shape, below=2, generator=generator).double() - 1


def literals(batch: int, num_features: int, *, generator: torch.Generator) -> Float[Tensor, "batch features"]:
    """Each variable positive, negated or absent with probability .15, .15 and .7."""
    present = uniform(batch, num_features, generator=generator) < LITERAL_SHARE
    return signs(batch, num_features, generator=generator) * present


def forced(
    x: Float[Tensor, "batch time features"], pattern: Float[Tensor, "batch features"], *, generator: torch.Generator
) -> Float[Tensor, "batch time features"]:
    """x with the variables of `pattern` overwritten by it in 30 % of the examples."""
    chosen = uniform(*x.shape[:2], generator=generator) < FORCED_SHARE
    return torch.where(chosen.unsqueeze(-1) & (pattern != 0).unsqueeze(1), pattern.unsqueeze(1), x)


def share_of_forced_label(num_features: int) -> float:
    """P(label that forcing brings about): forced, or every present literal agrees by chance, E[2^-k] = .85^d.

    >>> round(share_of_forced_label(28), 4)
    0.3074
    """
    return FORCED_SHARE + (1 - FORCED_SHARE) * (1 - LITERAL_SHARE / 2) ** num_features


def constant_error(share: float) -> float:
    """The error rate of always answering with the likelier of two classes."""
    return min(share, 1 - share)


def share_of_majorities(num_features: int, subset_share: float) -> float:
    """P(sum over a random subset of random signs > 0): half of what is no tie.

    >>> share_of_majorities(1, 1.0)
    0.5
    """
    ties: float = sum(
        math.comb(num_features, k)
        * subset_share**k
        * (1 - subset_share) ** (num_features - k)
        * math.comb(k, k // 2)
        / 2**k
        for k in range(0, num_features + 1, 2)
    )
    return (1 - ties) / 2


def labelled(x: Tensor, truth: Bool[Tensor, "batch time"], latents: Mapping[str, Tensor]) -> Pairs:
    """Episodes whose class is 1 where the function is true."""
    return Pairs(x=x, y=truth.long(), schema=class_schema(x.shape[-1], 2), latents=latents)
