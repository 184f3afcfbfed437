r"""Kernels estimated from random directions, and what is known of the estimates in closed form.

    exp(q.k) = E f_w(q) f_w(k),    f_w(x) = exp(w.x - |x|^2 / 2),    w ~ N(0, I)          positive features
    exp(q.k) = E exp((|q|^2 + |k|^2) / 2) cos(w.(q - k))                                  sines and cosines
    relative variance of one positive feature: exp(|q + k|^2) - 1;  of one pair of sine and cosine:
    (1 - exp(-|q - k|^2))^2 exp(|q + k|^2) / (2 K^4),  K = exp(q.k)

The mean of a kernel estimated with m directions is that of one; its variance is 1 / m of one's, and less where the
directions are orthogonal (Choromanski et al. 2020, arXiv:2009.14794).
Shapes: q, k [pairs, dim]; directions w [draws, features, dim].
"""

import math
from collections.abc import Callable

from torch import Tensor

from contexture.claims.run import Run
from contexture.ops.random_features import orthogonal_directions
from contexture.tasks.draws import normal

DIM = 16
PAIRS = 64
Directions = Callable[[Run, int, int, int], Tensor]


def independent(run: Run, seed: int, draws: int, count: int, *, purpose: str = "directions") -> Tensor:
    """w ~ N(0, I), each by itself."""
    return normal(draws, count, DIM, generator=run.generator(seed, purpose))


def orthogonal(run: Run, seed: int, draws: int, count: int) -> Tensor:
    """The mixer's: orthogonal in blocks of DIM, with the lengths of independent ones."""
    generator = run.generator(seed, "orthogonal")
    blocks = -(-count // DIM)
    drawn = orthogonal_directions(draws * blocks * DIM, DIM, generator=generator).double()
    return drawn.view(draws, blocks * DIM, DIM)[:, :count]


def of_one_length(run: Run, seed: int, draws: int, count: int) -> Tensor:
    """Independent directions all cut to the length sqrt(DIM)."""
    drawn = independent(run, seed, draws, count)
    cut: Tensor = drawn * math.sqrt(DIM) / drawn.norm(dim=-1, keepdim=True)
    return cut


def pairs(run: Run, seed: int, *, size: float = 1.0) -> tuple[Tensor, Tensor]:
    """Queries and keys of the same length, at random angles."""
    generator = run.generator(seed, "pairs")
    q, k = (size * x / x.norm(dim=1, keepdim=True) for x in normal(2, PAIRS, DIM, generator=generator))
    return q, k


def positive(w: Tensor, q: Tensor, k: Tensor) -> Tensor:
    """The estimate of exp(q.k) from each draw of directions, over exp(q.k) itself, [draws, pairs]."""
    lengths = (q.square().sum(1) + k.square().sum(1)) / 2
    return (w @ (q + k).mT - lengths - (q * k).sum(1)).exp().mean(1)


def trigonometric(w: Tensor, q: Tensor, k: Tensor) -> Tensor:
    """The same from sines and cosines."""
    lengths = (q.square().sum(1) + k.square().sum(1)) / 2
    return (w @ (q - k).mT).cos().mean(1) * (lengths - (q * k).sum(1)).exp()


def positive_variance(q: Tensor, k: Tensor) -> Tensor:
    """The relative variance of one feature, [pairs]."""
    return (q + k).square().sum(1).exp() - 1


def trigonometric_variance(q: Tensor, k: Tensor) -> Tensor:
    """The same of a pair of sine and cosine."""
    spread = (1 - (-(q - k).square().sum(1)).exp()).square() / 2
    return spread * ((q + k).square().sum(1) - 4 * (q * k).sum(1)).exp()


def arc_cosine(q: Tensor, k: Tensor) -> Tensor:
    """E relu(w.q) relu(w.k) over w ~ N(0, I), for pairs [pairs, dim]."""
    lengths = q.norm(dim=1) * k.norm(dim=1)
    angle = ((q * k).sum(1) / lengths).clamp(-1, 1).acos()
    kernel: Tensor = lengths * (angle.sin() + (math.pi - angle) * angle.cos()) / (2 * math.pi)
    return kernel
