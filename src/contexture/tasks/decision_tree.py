"""Decision trees as functions to be learnt in context.

    a full binary tree; each inner node looks at one random coordinate and goes right where it is positive;
    leaf values ~ N(0, 1);  x_t ~ N(0, I_d)

Garg et al. 2022: depth 4, d = 20, 101 points, no noise.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float, Int
from torch import Tensor

from contexture.protocols import Learner, Pairs, TaskCard
from contexture.tasks.draws import at_least, integers, noisy, normal
from contexture.tasks.inputs import StandardNormal
from contexture.tasks.references import nonlinear_baselines


def descend(
    x: Float[Tensor, "batch time features"],
    coordinates: Int[Tensor, "batch nodes"],
    leaves: Float[Tensor, "batch leaves"],
) -> Float[Tensor, "batch time"]:
    """The value of the leaf that each x reaches; node i has the children 2i + 1 (left) and 2i + 2 (right).

    >>> x = torch.tensor([[[-1.0, 5.0], [1.0, 5.0]]])
    >>> descend(x, torch.tensor([[0]]), torch.tensor([[10.0, 20.0]])).tolist()
    [[10.0, 20.0]]
    """
    node = torch.zeros(x.shape[:2], dtype=torch.int64, device=x.device)
    num_inner = coordinates.shape[1]
    for _ in range(num_inner.bit_length()):
        coordinate = coordinates.gather(1, node)
        right = x.gather(2, coordinate.unsqueeze(-1)).squeeze(-1) > 0
        node = 2 * node + 1 + right
    return leaves.gather(1, node - num_inner)


@dataclass(frozen=True, kw_only=True, slots=True)
class DecisionTree:
    """A full binary tree on the signs of coordinates; no optimal predictor is known in closed form."""

    card: ClassVar[TaskCard] = TaskCard(
        name="decision-tree",
        summary="A decision tree of depth 4 on the signs of random coordinates.",
        paper="Garg et al.: What can transformers learn in-context?",
        year=2022,
        episodes="pairs",
        metric="squared-error",
    )

    num_features: int = 20
    num_points: int = 101
    depth: int = 4
    noise: float = 0.0

    def __post_init__(self) -> None:
        at_least(1, num_features=self.num_features, num_points=self.num_points, depth=self.depth)
        at_least(0, noise=self.noise)

    @property
    def inputs(self) -> StandardNormal:
        """x ~ N(0, I)."""
        return StandardNormal(num_features=self.num_features)

    @property
    def chance(self) -> float:
        """E[y^2] = 1 + noise^2."""
        return 1 + self.noise**2

    def sample(self, batch: int, *, generator: torch.Generator) -> Pairs:
        """Draw episodes; latents: coordinates [batch, inner nodes], leaves [batch, leaves]."""
        num_leaves = 2**self.depth
        x = normal(batch, self.num_points, self.num_features, generator=generator)
        coordinates = integers(batch, num_leaves - 1, below=self.num_features, generator=generator)
        leaves = normal(batch, num_leaves, generator=generator)
        latents = {"coordinates": coordinates, "leaves": leaves}
        return noisy(x, descend(x, coordinates, leaves), noise=self.noise, generator=generator, latents=latents)

    def oracle(self) -> None:
        """None: the posterior is over too many trees."""
        return None

    def baselines(self) -> Mapping[str, Learner]:
        """The mean, least squares, ridge tuned by evidence, nearest neighbours, a Gaussian process."""
        return nonlinear_baselines()
