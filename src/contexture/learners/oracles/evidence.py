"""What a Bayesian learner offers beyond predictions: the density that it gave to each target before seeing it."""

import math
from typing import Protocol, runtime_checkable

from jaxtyping import Float
from torch import Tensor

from contexture.protocols import Learner, Pairs


@runtime_checkable
class BayesianLearner(Learner, Protocol):
    """A learner whose predictive density is known, so that it can be weighed against others by evidence."""

    def log_density(self, episodes: Pairs) -> Float[Tensor, "batch time"]:
        """log p(y_t | x up to t, y before t), in nats; its sum over t is the log evidence of an episode."""
        ...


def gaussian_log_density(y: Tensor, mean: Tensor, variance: Tensor) -> Tensor:
    """log N(y; mean, variance), elementwise.

    >>> import torch
    >>> round(float(gaussian_log_density(torch.tensor(1.0), torch.tensor(0.0), torch.tensor(1.0))), 4)
    -1.4189
    """
    return -0.5 * ((y - mean).square() / variance + variance.log() + math.log(2 * math.pi))
