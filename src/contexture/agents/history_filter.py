"""Which learning histories are worth imitating (Chen et al., 2025, arXiv:2505.15143).

    R_1 .. R_n                                 the returns of a history's episodes; R* the highest that there is
    improvement = (mean R + max R - min R) / (2 R*)                it learned much, and early
    stability   = 1 + mean of the R_k+1 - R_k below zero / R*      it does not fall back
    utility     = improvement + balance * stability
    weight      = (utility - least) / (most - least)    over the histories of one world

A history is drawn with a probability in proportion to its weight: what keeping each by that probability, over and over
until the set has its old size again, comes to on average.
"""

import torch
from jaxtyping import Float
from torch import Tensor


def improvement(returns: Float[Tensor, "batch episodes"], highest: float) -> Float[Tensor, " batch"]:
    """How much a history's returns rise, and how high they are.

    >>> improvement(torch.tensor([[0.0, 2.0, 4.0], [2.0, 2.0, 2.0]]), highest=4.0).tolist()
    [0.75, 0.25]
    """
    return (returns.mean(1) + returns.amax(1) - returns.amin(1)) / (2 * highest)


def stability(returns: Float[Tensor, "batch episodes"], highest: float) -> Float[Tensor, " batch"]:
    """One, less how far a history's returns fall where they fall.

    >>> stability(torch.tensor([[0.0, 2.0, 4.0], [4.0, 3.0, 4.0]]), highest=4.0).tolist()
    [1.0, 0.75]
    """
    falls = returns.diff(dim=1).clamp(max=0)
    return 1 + falls.sum(1) / (falls < 0).sum(1).clamp(min=1) / highest


def utility(
    returns: Float[Tensor, "batch episodes"], highest: float, *, balance: float = 1.0
) -> Float[Tensor, " batch"]:
    """How much a history is worth; balance: what stability counts against improvement."""
    return improvement(returns, highest) + balance * stability(returns, highest)


def weights(scores: Float[Tensor, "worlds repeats"]) -> Float[Tensor, "worlds repeats"]:
    """Scores between the least and the most of their world as 0..1; alike ones are all kept.

    >>> weights(torch.tensor([[1.0, 2.0, 1.5], [3.0, 3.0, 3.0]])).tolist()
    [[0.0, 1.0, 0.5], [1.0, 1.0, 1.0]]
    """
    least, most = scores.amin(1, keepdim=True), scores.amax(1, keepdim=True)
    return torch.where(most > least, (scores - least) / (most - least).clamp(min=1e-12), 1.0)


def returns_of(rewards: Float[Tensor, "batch time"], stretch: int) -> Float[Tensor, "batch episodes"]:
    """What every stretch of so many steps brought; what is left over at the end counts for none."""
    whole = rewards.shape[1] // stretch
    return rewards[:, : whole * stretch].reshape(len(rewards), whole, stretch).sum(2)
