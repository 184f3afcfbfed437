r"""Expectation maximisation for mixtures of linear regressions whose prompts each come from one component.

    E    p_bj = softmax_j(-|y_b - X_b w_j|^2 / (2 s^2))               the components of prompt b
    M    w_j  = (sum_b p_bj X_b' X_b + I)^-1 sum_b p_bj X_b' y_b      ridge regression over all prompts, weighted

De Veaux 1989, "Mixtures of linear regressions"; many prompts and a known s as in Pathak, Sen, Kong, Das 2023,
arXiv:2311.08362. Components of equal weight. Shapes: B = prompts, T = examples, D = features, J = components.
"""

import torch
from jaxtyping import Float
from torch import Tensor

from contexture.protocols import Pairs


def log_likelihoods(
    prompts: Pairs, components: Float[Tensor, "components features"], *, noise_variance: float
) -> Float[Tensor, "prompts components"]:
    """log p(y | X, w_j) of every prompt, up to a constant.

    >>> from contexture.protocols import Schema
    >>> one = torch.ones(1, 2, 1)
    >>> prompt = Pairs(x=one, y=one[..., 0], schema=Schema.numeric(1))
    >>> log_likelihoods(prompt, torch.tensor([[1.0], [-1.0]]), noise_variance=1.0)
    tensor([[-0., -4.]])
    """
    left_BTJ = prompts.y.unsqueeze(-1) - prompts.x @ components.mT
    return -left_BTJ.square().sum(1) / (2 * noise_variance)


def fit_components(
    prompts: Pairs, *, num_components: int, noise_variance: float, steps: int = 50, generator: torch.Generator
) -> Float[Tensor, "components features"]:
    """The components after so many rounds from a random start: standard normal weights."""
    prompts = prompts.to(dtype=torch.float64)
    x_BTD, num_features = prompts.x, prompts.x.shape[2]
    second_BDD, moment_BD = x_BTD.mT @ x_BTD, torch.einsum("btd,bt->bd", x_BTD, prompts.y)
    identity = torch.eye(num_features, dtype=torch.float64)
    components = torch.randn(num_components, num_features, generator=generator, dtype=torch.float64)
    for _ in range(steps):
        shares_BJ = log_likelihoods(prompts, components, noise_variance=noise_variance).softmax(1)
        second_JDD = torch.einsum("bj,bde->jde", shares_BJ, second_BDD) + identity
        moment_JD = torch.einsum("bj,bd->jd", shares_BJ, moment_BD)
        components = torch.linalg.solve(second_JDD, moment_JD.unsqueeze(-1)).squeeze(-1)
    return components
