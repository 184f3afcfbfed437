r"""The regret of averages over known concepts: log-loss above that of the concept that is best in hindsight.

    log p(y_t | before) = log sum_m p_m prod_{i<t} p_m(y_i) p_m(y_t),    regret_T = max_m sum_t .. - sum_t ..  <=  log M

Shapes: x [episodes, T, features], y [episodes, T]; concepts [M, features]; densities [episodes, T, M].
"""

import math

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from contexture.claims.protocol import OneSeed, Samples, over_seeds
from contexture.claims.run import Run
from contexture.learners.classical.discrete_posterior import DiscretePosterior
from contexture.tasks.finite_linear_regression import FiniteLinearRegression

SHORT = 16


def log_likelihoods(
    x: Float[Tensor, "episodes time features"],
    y: Float[Tensor, "episodes time"],
    concepts: Float[Tensor, "concepts features"],
    *,
    noise: float,
) -> Float[Tensor, "episodes time concepts"]:
    """log p(y_t | x_t) under every concept."""
    misfit = (y.unsqueeze(2) - x @ concepts.mT).square() / noise**2
    return -(misfit + math.log(2 * math.pi * noise**2)) / 2


def log_density(each: Float[Tensor, "episodes time concepts"], *, window: int) -> Float[Tensor, "episodes time"]:
    """log p(y_t | the last `window` examples before t) of the average.

    >>> each = torch.tensor([[[0.0, -torch.inf], [0.0, 0.0]]])
    >>> log_density(each, window=2).exp()
    tensor([[0.5000, 1.0000]])
    """
    before = F.pad(each.cumsum(1), (0, 0, 1, 0))
    start = (torch.arange(each.shape[1]) - window).clamp_min(0)
    seen = before[:, :-1] - before[:, start]
    return (seen.log_softmax(2) + each).logsumexp(2)


def regret(
    run: Run, task: FiniteLinearRegression, *, window: int | None = None, bound: bool = False, name: str
) -> Samples:
    """The mean regret per example after all examples, per that after sixteen, and drawn after 4, 8, 16, ...

    It is the log-loss above that of the concept that is best in hindsight. window: only so many of the last examples
    are seen. bound: (log M) / T in the learner's place.
    """
    episodes = run.setting("episodes", smoke=256, cpu=4096)
    times = tuple(2**k for k in range(2, task.num_points.bit_length()))
    seen = task.num_points if window is None else window

    def one(seed: int) -> OneSeed:
        pairs = run.sample(task, episodes, seed=seed)
        each = log_likelihoods(pairs.x, pairs.y, task.weights, noise=task.noise)
        best = each.cumsum(1).amax(2)
        lost = best - log_density(each, window=seen).cumsum(1)
        if bound:
            lost = torch.full_like(lost, math.log(task.num_tasks))
        after = {time: lost[:, time - 1] / time for time in times}
        weights = task.weights[pairs.latents["component"]]
        say = DiscretePosterior(task.weights, noise_variance=task.noise**2).prefix_weights
        kept = say(pairs.x[:, -seen - 1 : -1], pairs.y[:, -seen - 1 : -1])[:, -1]
        return OneSeed(
            values=after[task.num_points],
            per=after[SHORT],
            errors=(kept - weights).square().sum(1),
            zero_errors=weights.square().sum(1),
            curves={name: (times, torch.stack([value.mean() for value in after.values()]))},
        )

    return over_seeds(run, one)
