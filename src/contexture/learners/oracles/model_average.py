"""Bayesian model averaging: the optimal predictor when each episode comes from one of several known families.

    p(F_i | D) ~ p(F_i) p(D | F_i),   prediction = sum_i p(F_i | D) prediction_i

The families must draw x alike: otherwise x itself would tell them apart, which this does not use.

Hoeting, Madigan, Raftery, Volinsky 1999; as the comparator of transformers trained on mixtures of function classes:
Panwar, Ahuja, Goyal 2024.
"""

import math
from dataclasses import dataclass, field
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from contexture.errors import InputError
from contexture.learners.oracles.evidence import BayesianLearner
from contexture.learners.oracles.mixture_posterior import MixturePosterior
from contexture.learners.oracles.priors import DensePrior, SparsePrior
from contexture.protocols import LearnerCard, Pairs, Prediction


def _dense_and_sparse() -> tuple[BayesianLearner, ...]:
    return (MixturePosterior(prior=DensePrior()), MixturePosterior(prior=SparsePrior(num_nonzero=1)))


@dataclass(frozen=True, kw_only=True, slots=True)
class ModelAverage:
    """Learners weighted by the evidence of their family so far; `shares` are the prior probabilities."""

    card: ClassVar[LearnerCard] = LearnerCard(
        name="model-average",
        summary="Bayesian model averaging: predictions of several families weighted by each one's evidence so far.",
        paper="Hoeting, Madigan, Raftery, Volinsky: Bayesian model averaging, a tutorial",
        year=1999,
        kind="classical",
        targets=frozenset({"regression"}),
        invariances=frozenset({"example-order"}),
    )

    learners: tuple[BayesianLearner, ...] = field(default_factory=_dense_and_sparse)
    shares: tuple[float, ...] = (0.5, 0.5)

    def __post_init__(self) -> None:
        if len(self.learners) != len(self.shares) or not self.learners:
            raise InputError(f"{len(self.learners)} learners need as many shares, not {len(self.shares)}")
        if min(self.shares) <= 0 or not math.isclose(sum(self.shares), 1):
            raise InputError(f"shares must be positive and sum to one, not {self.shares}")

    def predict(self, context: Pairs, queries: Float[Tensor, "batch queries features"]) -> Prediction:
        """Mean and variance at each query, families weighted by the evidence of the whole context."""
        evidence = torch.stack([learner.log_density(context).sum(1) for learner in self.learners], -1)
        answers = [learner.predict(context, queries) for learner in self.learners]
        return _average(answers, self._log_shares(evidence) + evidence.unsqueeze(1))

    def prequential(self, episodes: Pairs) -> Prediction:
        """Mean and variance of y_t, families weighted by the evidence before t."""
        log_weights = self._log_weights(self._densities(episodes))
        answers = [learner.prequential(episodes) for learner in self.learners]
        return _average(answers, log_weights)

    def log_density(self, episodes: Pairs) -> Float[Tensor, "batch time"]:
        """log p(y_t | x up to t, y before t), in nats."""
        density = self._densities(episodes)
        return (self._log_weights(density).log_softmax(-1) + density).logsumexp(-1)

    def _densities(self, episodes: Pairs) -> Float[Tensor, "batch time learners"]:
        return torch.stack([learner.log_density(episodes) for learner in self.learners], -1)

    def _log_weights(self, density: Float[Tensor, "batch time learners"]) -> Float[Tensor, "batch time learners"]:
        """Log share plus evidence before t, which is summed without t: taking it off again would leave a trace."""
        before = torch.cat([torch.zeros_like(density[:, :1]), density[:, :-1].cumsum(1)], 1)
        return self._log_shares(density) + before

    def _log_shares(self, like: Tensor) -> Float[Tensor, " learners"]:
        return torch.tensor(self.shares, dtype=like.dtype, device=like.device).log()


def _average(answers: list[Prediction], log_weights: Float[Tensor, "batch queries learners"]) -> Prediction:
    weights = log_weights.softmax(-1)
    means = torch.stack([answer.value for answer in answers], -1)
    mean = (weights * means).sum(-1)
    spreads = [answer.variance for answer in answers]
    variance = torch.stack([s if s is not None else torch.full_like(mean, torch.nan) for s in spreads], -1)
    return Prediction(mean=mean, variance=(weights * (variance + (means - mean.unsqueeze(-1)).square())).sum(-1))
