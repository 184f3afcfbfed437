r"""The posterior mean over a finite set of known linear tasks (the "discrete minimum mean squared error" predictor):

    p_n(m) = softmax_m(log p(m) - sum_{t<=n} (y_t - x_t . w_m)^2 / (2 s^2)),   w_n = sum_m p_n(m) w_m

Raventos et al. (2023), Pretraining task diversity and the emergence of non-Bayesian in-context learning.
Shapes: tasks w [tasks, features]; prior [tasks]; x [batch, time, features]; y [batch, time].
"""

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from contexture.errors import InputError
from contexture.learners.classical.linear import LinearLearner
from contexture.learners.inputs import blocks, numeric, regression
from contexture.protocols import LearnerCard, Pairs, Prediction


@dataclass(frozen=True, slots=True, eq=False)
class DiscretePosterior(LinearLearner):
    """The Bayes-optimal prediction where the task is one of a known finite set and the noise is Gaussian.

    `tasks` holds one weight vector per row; `prior` their probabilities (equal if None). The prediction's variance
    includes the noise. InputError for shapes that do not fit, a prior that is no distribution, or no noise.

    >>> from contexture.protocols import Pairs, Schema
    >>> learner = DiscretePosterior(torch.tensor([[1.0], [-1.0]]), noise_variance=1.0)
    >>> one = torch.ones(1, 1, 1, dtype=torch.float64)
    >>> context = Pairs(x=one, y=one[..., 0], schema=Schema.numeric(1))
    >>> round(learner.predict(context, one).mean.item(), 4), round(math.tanh(1.0), 4)
    (0.7616, 0.7616)
    """

    card: ClassVar[LearnerCard] = LearnerCard(
        name="discrete-posterior",
        summary="The posterior mean over a finite set of known linear tasks.",
        paper="Raventos et al., Pretraining task diversity and the emergence of non-Bayesian in-context learning",
        year=2023,
        kind="classical",
        targets=frozenset({"regression"}),
        invariances=frozenset({"example-order"}),
    )

    tasks: Float[Tensor, "tasks features"]
    noise_variance: float = 0.25
    prior: Float[Tensor, " tasks"] | None = None

    @classmethod
    def example(cls) -> "DiscretePosterior":
        """Four tasks in three dimensions."""
        tasks = torch.tensor([[1.0, 0.0, -1.0], [0.5, 2.0, 0.0], [-1.0, 1.0, 1.0], [0.0, -0.5, 0.3]])
        return cls(tasks, noise_variance=0.5, prior=torch.tensor([0.1, 0.2, 0.3, 0.4]))

    def __post_init__(self) -> None:
        if self.tasks.dim() != 2 or self.tasks.shape[0] == 0:
            raise InputError(
                f"discrete-posterior needs tasks [tasks, features], but they are {tuple(self.tasks.shape)}"
            )
        if not self.noise_variance > 0:
            raise InputError(f"discrete-posterior needs a positive noise variance, but it is {self.noise_variance}")
        if self.prior is not None and (
            self.prior.shape != self.tasks.shape[:1]
            or bool((self.prior < 0).any())
            or abs(float(self.prior.sum()) - 1) > 1e-5
        ):
            raise InputError("discrete-posterior needs a prior with one probability per task, summing to one")

    def prefix_weights(
        self, x: Float[Tensor, "batch time features"], y: Float[Tensor, "batch time"]
    ) -> Float[Tensor, "batch prefixes features"]:
        """The posterior mean of the weights after 0, 1, .., time examples."""
        weights = x.new_zeros(x.shape[0], x.shape[1] + 1, x.shape[2])
        for block in self._blocks(x):
            weights[block] = self._posterior(x[block], y[block]).softmax(-1) @ self.tasks.to(x)
        return weights

    def predict(self, context: Pairs, queries: Float[Tensor, "batch queries features"]) -> Prediction:
        """Mean and variance of every query after all of the context."""
        queries = numeric(self.card, context.schema, queries)
        x, y = regression(self.card, context)
        probabilities = torch.cat(
            [self._posterior(x[block], y[block])[:, -1:].softmax(-1) for block in self._blocks(x)]
        )
        return self._moments(queries @ self._fitting(x).mT, probabilities)

    def prequential(self, episodes: Pairs) -> Prediction:
        """Mean and variance at every t from the examples before it."""
        x, y = regression(self.card, episodes)
        parts = []
        for block in self._blocks(x):
            probabilities = self._posterior(x[block], y[block])[:, : episodes.time].softmax(-1)
            parts.append(self._moments(x[block] @ self._fitting(x).mT, probabilities))
        means = [part.mean for part in parts if part.mean is not None]
        variances = [part.variance for part in parts if part.variance is not None]
        return Prediction(mean=torch.cat(means), variance=torch.cat(variances))

    def log_density(self, episodes: Pairs) -> Float[Tensor, "batch time"]:
        """log p(y_t | x_t and the examples before t); its sum over t is the log evidence."""
        x, y = regression(self.card, episodes)
        joint = torch.cat([self._posterior(x[block], y[block]).logsumexp(-1) for block in self._blocks(x)])
        return joint.diff(dim=1) - 0.5 * math.log(2 * math.pi * self.noise_variance)

    def _posterior(self, x: Tensor, y: Tensor) -> Float[Tensor, "batch prefixes tasks"]:
        """Log prior plus log likelihood (up to one constant per example) of every task after every prefix."""
        tasks = self._fitting(x)
        prior = x.new_full((len(tasks),), 1 / len(tasks)) if self.prior is None else self.prior.to(x)
        misfit = (y[..., None] - x @ tasks.mT).square() / (-2 * self.noise_variance)
        start = prior.log().expand(x.shape[0], 1, -1)
        return torch.cat([start, start + misfit.cumsum(dim=1)], dim=1)

    def _moments(self, values: Float[Tensor, "batch queries tasks"], probabilities: Tensor) -> Prediction:
        mean = (probabilities * values).sum(-1)
        spread = (probabilities * (values - mean[..., None]).square()).sum(-1)
        return Prediction(mean=mean, variance=self.noise_variance + spread)

    def _fitting(self, x: Tensor) -> Float[Tensor, "tasks features"]:
        if self.tasks.shape[1] != x.shape[-1]:
            raise InputError(
                f"discrete-posterior knows tasks of {self.tasks.shape[1]} features, but the examples have {x.shape[-1]}"
            )
        return self.tasks.to(x)

    def _blocks(self, x: Tensor) -> list[slice]:
        return list(blocks(max(1, x.shape[0]), (x.shape[1] + 1) * len(self.tasks)))
