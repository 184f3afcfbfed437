"""A learner on known features of x: exact where the target is linear in them.

    y = w.phi(x) + e

Legend: features = columns of x, out = columns of phi(x).
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from contexture.errors import InputError
from contexture.learners.inputs import numeric, regression
from contexture.learners.oracles.evidence import BayesianLearner
from contexture.learners.oracles.mixture_posterior import MixturePosterior
from contexture.learners.oracles.priors import DensePrior
from contexture.protocols import Learner, LearnerCard, Pairs, Prediction, Schema

FeatureMap = Callable[[Tensor], Tensor]


@dataclass(frozen=True, kw_only=True, slots=True)
class Squares:
    """phi(x) = x^2 / sqrt(3), elementwise: E[(w.phi(x))^2] = d for w, x ~ N(0, I_d)."""

    def __call__(self, x: Float[Tensor, "*rows features"]) -> Float[Tensor, "*rows features"]:
        """As many columns as x has."""
        return x.square() / math.sqrt(3)


@dataclass(frozen=True, kw_only=True, slots=True)
class FourierFeatures:
    """phi(x) = (1, cos(n pi x / half_period), sin(n pi x / half_period)) for n = 1..num_frequencies, of x's columns.

    >>> FourierFeatures(num_frequencies=1, half_period=1.0)(torch.tensor([[0.25]]))
    tensor([[1.0000, 0.7071, 0.7071]])
    """

    num_frequencies: int
    half_period: float

    def __call__(self, x: Float[Tensor, "*rows features"]) -> Float[Tensor, "*rows out"]:
        """1 + 2 * num_frequencies * features columns."""
        n = torch.arange(1, self.num_frequencies + 1, device=x.device, dtype=x.dtype)
        angles = (x.unsqueeze(-1) * (n * math.pi / self.half_period)).flatten(-2)
        return torch.cat([torch.ones_like(x[..., :1]), angles.cos(), angles.sin()], -1)


@dataclass(frozen=True, kw_only=True, slots=True)
class OnFeatures:
    """Another learner, shown phi(x) in place of x."""

    card: ClassVar[LearnerCard] = LearnerCard(
        name="on-features",
        summary="A learner shown known features of x in place of x, optimal where the target is linear in them.",
        kind="classical",
        targets=frozenset({"regression"}),
        invariances=frozenset({"example-order"}),
    )

    features: FeatureMap = field(default_factory=Squares)
    learner: Learner = field(default_factory=lambda: MixturePosterior(prior=DensePrior()))

    def predict(self, context: Pairs, queries: Float[Tensor, "batch queries features"]) -> Prediction:
        """The inner learner's prediction at phi(queries)."""
        return self.learner.predict(self._mapped(context), self.features(numeric(self.card, context.schema, queries)))

    def prequential(self, episodes: Pairs) -> Prediction:
        """The inner learner's prediction at every t."""
        return self.learner.prequential(self._mapped(episodes))

    def log_density(self, episodes: Pairs) -> Float[Tensor, "batch time"]:
        """The inner learner's density; raises InputError if it models none."""
        if not isinstance(self.learner, BayesianLearner):
            raise InputError(f"{self.learner.card.name} models no density of the target")
        return self.learner.log_density(self._mapped(episodes))

    def _mapped(self, episodes: Pairs) -> Pairs:
        x, y = regression(self.card, episodes)
        x = self.features(x)
        return Pairs(x=x, y=y, schema=Schema.numeric(x.shape[-1]))
