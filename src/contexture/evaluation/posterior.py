"""What a history of pulls tells about the best arm, and how much of it a model that decides has taken in.

    lost    sum_a p_a log (p_a / said_a)        p: the exact probability that arm a is the best, given the history
    gained  log arms + sum_a p_a log p_a        against knowing nothing

Shapes: pulls, sums, probabilities [worlds, pulls, arms], at each pull from what came before it.
"""

import math
from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import one_hot

from contexture.agents.posterior_sampling import PosteriorSampling
from contexture.environments.gaussian_bandit import GaussianBandit
from contexture.models.decisions import DecisionModel
from contexture.protocols import Trajectories

WORLDS_AT_ONCE, POSTERIORS_AT_ONCE = 200, 50
"""How many are computed together, for the sake of memory."""


def counted(drawn: Trajectories) -> tuple[Float[Tensor, "worlds pulls arms"], Float[Tensor, "worlds pulls arms"]]:
    """Pulls and sums of rewards of every arm before each pull."""
    taken = one_hot(drawn.actions, drawn.num_actions).to(torch.float64)
    earned = taken * drawn.rewards.to(torch.float64).unsqueeze(-1)
    return taken.cumsum(1) - taken, earned.cumsum(1) - earned


def says(model: DecisionModel, drawn: Trajectories) -> Float[Tensor, "worlds pulls arms"]:
    """The model's probabilities before each pull."""
    told = (drawn.observations, drawn.actions, drawn.rewards, drawn.starts)
    parts = [model(*some) for some in zip(*(torch.split(one, WORLDS_AT_ONCE) for one in told), strict=True)]
    return torch.cat(parts).to(torch.float64).softmax(-1)


def exactly(
    drawn: Trajectories, bandit: GaussianBandit, steps: Sequence[int], *, points: int = 100
) -> Float[Tensor, "worlds steps arms"]:
    """The exact probabilities before the chosen pulls."""
    pulls, sums = (torch.split(one[:, list(steps)], POSTERIORS_AT_ONCE) for one in counted(drawn))
    agent = PosteriorSampling(bandit, points=points)
    return torch.cat([agent.probabilities(n, s) for n, s in zip(pulls, sums, strict=True)])


def information(
    exact: Float[Tensor, "worlds pulls arms"], said: Float[Tensor, "worlds pulls arms"]
) -> tuple[Float[Tensor, "worlds pulls"], Float[Tensor, "worlds pulls"]]:
    """How many nats are lost and how many could be gained.

    >>> exact = torch.tensor([[[1.0, 0.0]]], dtype=torch.float64)
    >>> lost, gained = information(exact, torch.tensor([[[0.5, 0.5]]], dtype=torch.float64))
    >>> round(lost.item(), 4), round(gained.item(), 4)
    (0.6931, 0.6931)
    """
    least = 1e-12
    lost = (exact * (exact.clamp(min=least).log() - said.clamp(min=least).log())).sum(-1)
    return lost, math.log(exact.shape[-1]) + torch.special.xlogy(exact, exact).sum(-1)
