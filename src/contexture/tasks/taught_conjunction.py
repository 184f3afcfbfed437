"""Conjunctions behind a teaching sequence: the fewest examples that leave no other conjunction.

    x^1 satisfies the k literals, the rest at random;  x^2 is x^1 with the rest flipped;  both are true
    x^{2 + i} is x^1 with the i-th relevant variable flipped, for i = 1..k, variables in order;  all are false
    further examples as `contexture.tasks.conjunction` draws them

    x^1 = + - + -,  x^2 = + + + +,  - - + -,  + - - -     teaches  x_1 and x_3  over four variables

Variables that x^1 and x^2 share may be relevant, and each flip shows that one is. Bhattamishra, Patel, Blunsom, Kanade
2024, "Understanding in-context learning in transformers and LLMs by learning to learn discrete functions"; Goldman and
Kearns 1995, "On the complexity of teaching". A share of the episodes may come without it.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from math import comb
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from contexture.errors import InputError
from contexture.protocols import Learner, Pairs, TaskCard
from contexture.tasks.boolean import (
    FORCED_SHARE,
    LITERAL_SHARE,
    constant_error,
    forced,
    labelled,
    literals,
    share_of_forced_label,
    signs,
)
from contexture.tasks.draws import at_least, uniform
from contexture.tasks.references import class_baselines


def teach(first: Float[Tensor, "batch features"], concept: Float[Tensor, "batch features"]) -> Tensor:
    """The teaching sequence from its first example, [batch, features + 2, features]; rows after 2 + k are of no use."""
    relevant = concept != 0
    second = torch.where(relevant, first, -first)
    # Stable sorting brings the relevant variables to the front and keeps their order.
    order = (~relevant).long().argsort(dim=1, stable=True)
    flips = 1 - 2 * torch.nn.functional.one_hot(order, concept.shape[1]).to(first.dtype)
    return torch.cat((first.unsqueeze(1), second.unsqueeze(1), first.unsqueeze(1) * flips), 1)


@dataclass(frozen=True, kw_only=True, slots=True)
class TaughtConjunction:
    """A conjunction of literals whose first examples teach it, in a share of the episodes.

    >>> task = TaughtConjunction(num_features=4, num_points=8)
    >>> drawn = task.sample(3, generator=torch.Generator().manual_seed(0))
    >>> [int(y[:length].sum()) for y, length in zip(drawn.y, drawn.latents["taught"], strict=True)]
    [2, 2, 2]
    """

    card: ClassVar[TaskCard] = TaskCard(
        name="taught-conjunction",
        summary="A conjunction of a few literals whose first examples are a teaching sequence.",
        paper="Bhattamishra et al.: Understanding in-context learning by learning to learn discrete functions",
        year=2024,
        episodes="pairs",
        metric="error-rate",
    )

    num_features: int = 8
    num_points: int = 24
    taught_share: float = 1.0

    def __post_init__(self) -> None:
        at_least(1, num_features=self.num_features)
        at_least(self.num_features + 2, num_points=self.num_points)
        if not 0 <= self.taught_share <= 1:
            raise InputError(f"taught_share lies between 0 and 1, not {self.taught_share:g}")

    @property
    def chance(self) -> float:
        """Always giving the likelier class; a taught episode has two true examples, k false ones, and the rest."""
        d, n = self.num_features, self.num_points
        taught = 0.0
        for k in range(d + 1):
            likely = comb(d, k) * LITERAL_SHARE**k * (1 - LITERAL_SHARE) ** (d - k)
            rest = FORCED_SHARE + (1 - FORCED_SHARE) * 2.0**-k
            taught += likely * (2 + (n - 2 - k) * rest) / n
        return constant_error(self.taught_share * taught + (1 - self.taught_share) * share_of_forced_label(d))

    def sample(self, batch: int, *, generator: torch.Generator) -> Pairs:
        """Draw episodes; latents: literals [batch, features], taught [batch], how many examples teach."""
        concept = literals(batch, self.num_features, generator=generator)
        x = signs(batch, self.num_points, self.num_features, generator=generator)
        x = forced(x, concept, generator=generator)
        is_taught = uniform(batch, generator=generator) < self.taught_share
        length = torch.where(is_taught, 2 + concept.abs().sum(1).long(), 0)
        first = torch.where(concept != 0, concept, x[:, 0])
        sequence = teach(first, concept)
        sequence = torch.cat((sequence, x[:, sequence.shape[1] :]), 1)
        places = torch.arange(self.num_points, device=x.device).unsqueeze(0)
        x = torch.where((places < length.unsqueeze(1)).unsqueeze(-1), sequence, x)
        truth = (x * concept.unsqueeze(1) >= 0).all(-1)
        return labelled(x, truth, {"literals": concept, "taught": length})

    def oracle(self) -> None:
        """None: what the sequence says depends on whether it is meant to teach."""
        return None

    def baselines(self) -> Mapping[str, Learner]:
        """The majority class, logistic regression, naive Bayes, nearest neighbours."""
        return class_baselines()
