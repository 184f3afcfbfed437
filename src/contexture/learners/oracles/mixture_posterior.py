"""The posterior of linear regression under a prior on w that is a mixture of Gaussians, at every prefix.

    y_t = w.x_t + e_t,  e_t ~ N(0, s^2);   c ~ weights,  w = m_c + L_c z,  z ~ N(u_c, P_c), at first u = 0, P = I
    phi = L_c' x_t,  f_c = m_c.x_t + phi.u_c,  v_c = s^2 + phi' P_c phi           (predictive of component c)
    k = P_c phi / v_c,  u_c += k (y_t - f_c),  P_c -= k phi' P_c,  log weight_c += log N(y_t; f_c, v_c)
    prediction = sum_c softmax(log weight)_c f_c

Mixtures of linear tasks and their optimal predictor: Panwar, Ahuja, Goyal 2024, "In-context learning through the
Bayesian prism"; Pathak et al. 2024, "Transformers can optimally learn regression mixture models".

Legend: B = batch, C = components, D = features, R, S = rank of a component. Rank stands first: each step is then a few
passes over long rows, however small the rank.
"""

from dataclasses import dataclass, field
from typing import ClassVar, NamedTuple, Self

import torch
from jaxtyping import Float
from torch import Tensor

from contexture.errors import InputError
from contexture.learners.inputs import blocks, numeric, regression
from contexture.learners.oracles.evidence import gaussian_log_density
from contexture.learners.oracles.priors import Components, Prior, TwoCentresPrior
from contexture.protocols import LearnerCard, Pairs, Prediction


class _Belief:
    """The posterior over z of each component of one rank, and the components' log weights."""

    def __init__(self, prior: Components, batch: int, noise_variance: float, like: Tensor) -> None:
        self.centres_DC = prior.centres.to(like).T
        self.factors_RDC = prior.factors.to(like).permute(2, 1, 0).contiguous()
        rank, _, count = self.factors_RDC.shape
        self.noise_variance = noise_variance
        self.mean_RBC = like.new_zeros(rank, batch, count)
        self.covariance_RSBC = torch.eye(rank).to(like)[:, :, None, None].repeat(1, 1, batch, count)
        self.log_weights_BC = prior.log_weights.to(like).repeat(batch, 1)

    def predictive(self, x_BD: Tensor) -> "_Predictive":
        """What each component says of a target at x."""
        phi_RBC = x_BD @ self.factors_RDC
        shared_RBC = (self.covariance_RSBC * phi_RBC).sum(1)
        return _Predictive(
            mean_BC=(phi_RBC * self.mean_RBC).sum(0) + x_BD @ self.centres_DC,
            variance_BC=(phi_RBC * shared_RBC).sum(0) + self.noise_variance,
            shared_RBC=shared_RBC,
        )

    def observe(self, y_B: Tensor, said: "_Predictive") -> None:
        """Condition on y at the x whose predictive is given."""
        gain_RBC = said.shared_RBC / said.variance_BC
        self.mean_RBC = self.mean_RBC + gain_RBC * (y_B.unsqueeze(-1) - said.mean_BC)
        self.covariance_RSBC = self.covariance_RSBC - gain_RBC.unsqueeze(1) * said.shared_RBC.unsqueeze(0)
        self.log_weights_BC = self.log_weights_BC + gaussian_log_density(
            y_B.unsqueeze(-1), said.mean_BC, said.variance_BC
        )


class _Predictive(NamedTuple):
    """Mean and variance of a new target under each component, and P phi, which an update needs again."""

    mean_BC: Tensor
    variance_BC: Tensor
    shared_RBC: Tensor


class _Mixture:
    """The beliefs of all ranks together."""

    def __init__(self, groups: tuple[Components, ...], batch: int, noise_variance: float, like: Tensor) -> None:
        self.beliefs = [_Belief(group, batch, noise_variance, like) for group in groups]

    def predictive(self, x_BD: Tensor) -> list[_Predictive]:
        return [belief.predictive(x_BD) for belief in self.beliefs]

    def observe(self, y_B: Tensor, parts: list[_Predictive]) -> None:
        for belief, said in zip(self.beliefs, parts, strict=True):
            belief.observe(y_B, said)

    def join(self, parts: list[_Predictive]) -> tuple[Tensor, Tensor, Tensor]:
        """Mean, variance and log weight of every component, [B, C] each."""
        log_weights = torch.cat([belief.log_weights_BC for belief in self.beliefs], -1)
        mean, variance = torch.cat([p.mean_BC for p in parts], -1), torch.cat([p.variance_BC for p in parts], -1)
        return mean, variance, log_weights.log_softmax(-1)


def _collapse(mean: Tensor, variance: Tensor, log_weights: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and variance of the mixture, by the law of total variance."""
    weights = log_weights.exp()
    overall = (weights * mean).sum(-1)
    return overall, (weights * (variance + (mean - overall.unsqueeze(-1)).square())).sum(-1)


@dataclass(frozen=True, kw_only=True, slots=True)
class MixturePosterior:
    """Posterior mean and variance of y for a mixture-of-Gaussians prior on w and known noise variance.

    Costs O(time * components * rank^2) for an episode; raises InputError unless the noise variance is positive.
    """

    card: ClassVar[LearnerCard] = LearnerCard(
        name="mixture-posterior",
        summary="Exact Bayesian linear regression whose prior on the weights is a mixture of Gaussians.",
        paper="Panwar, Ahuja, Goyal: In-context learning through the Bayesian prism",
        year=2024,
        kind="classical",
        targets=frozenset({"regression"}),
        invariances=frozenset({"example-order"}),
    )

    prior: Prior = field(default_factory=TwoCentresPrior)
    noise_variance: float = 0.25

    def __post_init__(self) -> None:
        if not self.noise_variance > 0:
            raise InputError(f"the posterior needs a positive noise variance, not {self.noise_variance}")

    @classmethod
    def example(cls) -> Self:
        """A prior with two centres."""
        return cls()

    def predict(self, context: Pairs, queries: Float[Tensor, "batch queries features"]) -> Prediction:
        """Mean and variance of a new observation at each query."""
        queries = numeric(self.card, context.schema, queries)
        x, y = regression(self.card, context)
        groups = self.prior.components(x.shape[-1])
        mean, variance = queries.new_empty(queries.shape[:2]), queries.new_empty(queries.shape[:2])
        for rows in blocks(x.shape[0], _numbers(groups)):
            mixture = _Mixture(groups, x[rows].shape[0], self.noise_variance, x)
            for x_BD, y_B in zip(x[rows].unbind(1), y[rows].unbind(1), strict=True):
                mixture.observe(y_B, mixture.predictive(x_BD))
            for q, x_BD in enumerate(queries[rows].unbind(1)):
                mean[rows, q], variance[rows, q] = _collapse(*mixture.join(mixture.predictive(x_BD)))
        return Prediction(mean=mean, variance=variance)

    def prequential(self, episodes: Pairs) -> Prediction:
        """Mean and variance of y_t given what came before it."""
        mean, variance, _ = self._filter(episodes)
        return Prediction(mean=mean, variance=variance)

    def log_density(self, episodes: Pairs) -> Float[Tensor, "batch time"]:
        """log p(y_t | x up to t, y before t), in nats."""
        return self._filter(episodes)[2]

    def _filter(self, episodes: Pairs) -> Float[Tensor, "3 batch time"]:
        """Mean, variance and log density at every t."""
        x, y = regression(self.card, episodes)
        groups = self.prior.components(x.shape[-1])
        out = x.new_empty(3, *y.shape)
        for rows in blocks(x.shape[0], _numbers(groups)):
            mixture = _Mixture(groups, x[rows].shape[0], self.noise_variance, x)
            for t, (x_BD, y_B) in enumerate(zip(x[rows].unbind(1), y[rows].unbind(1), strict=True)):
                parts = mixture.predictive(x_BD)
                mean, variance, log_weights = mixture.join(parts)
                density = log_weights + gaussian_log_density(y_B.unsqueeze(-1), mean, variance)
                collapsed = _collapse(mean, variance, log_weights)
                out[:, rows, t] = torch.stack([*collapsed, density.logsumexp(-1)])
                mixture.observe(y_B, parts)
        return out


def _numbers(groups: tuple[Components, ...]) -> int:
    """How many numbers one episode's belief takes."""
    return sum(group.factors.shape[0] * (group.factors.shape[2] + 1) ** 2 for group in groups)
