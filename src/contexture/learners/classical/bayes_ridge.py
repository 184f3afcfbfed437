r"""Bayesian linear regression with a known prior and noise: the posterior mean and the predictive variance.

    w ~ N(m, S),  y_t = x_t . w + N(0, s^2)
    p(y | x, first n examples) = N(x . w_n, s^2 (1 + x' (X_n' X_n + s^2 S^-1)^-1 x))

With S = C C' and weights w = m + C v this is ridge regression of y - X m on X C with penalty s^2.
Lindley and Smith (1972). Shapes: x [batch, time, features]; y [batch, time]; mean [features]; variance a number,
[features] or [features, features].
"""

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from contexture.errors import InputError
from contexture.learners.classical.linear import LinearLearner
from contexture.learners.classical.rotated_triangle import prefix_ridge
from contexture.learners.inputs import numeric, regression
from contexture.protocols import LearnerCard, Pairs, Prediction


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class BayesRidge(LinearLearner):
    """The posterior mean and variance of a linear function with a Gaussian prior and Gaussian noise, both known.

    `prior_variance`: one number for all weights, one per weight (0 fixes it at its mean), or a covariance matrix.
    `prior_mean`: the weights before any example, zero if None. InputError unless the noise variance is positive.
    The prediction's variance includes the noise of the new observation.

    >>> from contexture.protocols import Pairs, Schema
    >>> one = torch.ones(1, 1, 1, dtype=torch.float64)
    >>> context = Pairs(x=one, y=torch.tensor([[2.0]]), schema=Schema.numeric(1))
    >>> seen = BayesRidge(prior_variance=1.0, noise_variance=1.0).predict(context, one)
    >>> seen.mean.item(), seen.variance.item()
    (1.0, 1.5)
    """

    card: ClassVar[LearnerCard] = LearnerCard(
        name="bayes-ridge",
        summary="Bayesian linear regression with a known Gaussian prior and noise: mean and variance.",
        paper="Lindley and Smith, Bayes estimates for the linear model",
        year=1972,
        kind="classical",
        targets=frozenset({"regression"}),
        invariances=frozenset({"example-order", "column-order"}),
    )

    prior_variance: float | Tensor = 1.0
    noise_variance: float = 0.25
    prior_mean: Float[Tensor, " features"] | None = None

    def __post_init__(self) -> None:
        if not self.noise_variance > 0:
            raise InputError(
                f"bayes-ridge needs a positive noise variance, but it is {self.noise_variance}: use ols for none"
            )

    def prefix_weights(
        self, x: Float[Tensor, "batch time features"], y: Float[Tensor, "batch time"]
    ) -> Float[Tensor, "batch prefixes features"]:
        """The posterior mean of the weights after 0, 1, .., time examples."""
        root, mean = self._root(x), self._mean(x)
        scaled, _ = prefix_ridge(x @ root, y - x @ mean, penalty=self.noise_variance)
        return mean + scaled @ root.mT

    def weights(
        self, x: Float[Tensor, "batch time features"], y: Float[Tensor, "batch time"]
    ) -> Float[Tensor, "batch features"]:
        """The posterior mean of the weights after all of the examples."""
        left, values, right = self._factor(x)
        shrunk = values / (values.square() + self.noise_variance)
        mean = self._mean(x)
        scaled = torch.einsum("btr,bt,br,brd->bd", left, y - x @ mean, shrunk, right)
        return mean + scaled @ self._root(x).mT

    def predict(self, context: Pairs, queries: Float[Tensor, "batch queries features"]) -> Prediction:
        """Mean and variance of every query after all of the context."""
        queries = numeric(self.card, context.schema, queries)
        x, y = regression(self.card, context)
        mean = torch.einsum("bqd,bd->bq", queries, self.weights(x, y))
        _, values, right = self._factor(x)
        scaled = queries @ self._root(x)
        learned = values.square() / (values.square() + self.noise_variance)
        known = torch.einsum("bqd,brd->bqr", scaled, right).square() @ learned[..., None]
        return Prediction(mean=mean, variance=self.noise_variance + scaled.square().sum(-1) - known[..., 0])

    def prequential(self, episodes: Pairs) -> Prediction:
        """Mean and variance at every t from the examples before it."""
        x, y = regression(self.card, episodes)
        root, mean = self._root(x), self._mean(x)
        scaled = x @ root
        weights, leverage = prefix_ridge(scaled, y - x @ mean, penalty=self.noise_variance, queries=scaled)
        prediction = x @ mean + torch.einsum("btd,btd->bt", scaled, weights[:, : episodes.time])
        return Prediction(mean=prediction, variance=self.noise_variance * (1 + leverage))

    def log_density(self, episodes: Pairs) -> Float[Tensor, "batch time"]:
        """log p(y_t | x_t and the examples before t); its sum over t is the log evidence."""
        seen = self.prequential(episodes)
        assert seen.mean is not None
        assert seen.variance is not None
        error = episodes.y.to(torch.float64) - seen.mean
        return -0.5 * (error.square() / seen.variance + seen.variance.log() + math.log(2 * math.pi))

    def _mean(self, x: Tensor) -> Float[Tensor, " features"]:
        if self.prior_mean is None:
            return x.new_zeros(x.shape[-1])
        return self._fitting(self.prior_mean.to(x), x, dims=1, name="mean")

    def _root(self, x: Tensor) -> Float[Tensor, "features features"]:
        """A C with C C' = the prior's covariance."""
        variance = torch.as_tensor(self.prior_variance).to(x)
        if variance.dim() == 0:
            variance = variance.expand(x.shape[-1])
        if variance.dim() == 1:
            return torch.diag(self._fitting(variance, x, dims=1, name="variance").sqrt())
        values, vectors = torch.linalg.eigh(self._fitting(variance, x, dims=2, name="covariance"))
        root: Tensor = vectors * values.clamp_min(0).sqrt()
        return root

    def _factor(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        left, values, right = torch.linalg.svd(x @ self._root(x), full_matrices=False)
        return left, values, right

    def _fitting(self, prior: Tensor, x: Tensor, *, dims: int, name: str) -> Tensor:
        if prior.shape != (x.shape[-1],) * dims:
            found = f"a prior {name} of shape {tuple(prior.shape)}"
            raise InputError(f"bayes-ridge has {found}, but the examples have {x.shape[-1]} features")
        return prior
