"""From scores to targets: noise, skew, class cuts, imbalance.

    regression       y = g(s + sigma(x) e)      e normal, Laplace-like, Student or one-sided; g the identity or a warp
    classification   y = the interval of s + noise, or argmax_k (s_k + b_k + noise)

Legend: B = tables drawn together, N = rows, K = scores, C = classes.
"""

import torch
from jaxtyping import Float, Int
from torch import Tensor

from contexture.tasks.tabular_prior.draws import chance, choose, integer, log_uniform, normal, standardise, uniform

Scores = Float[Tensor, "tables rows scores"]
Labels = Int[Tensor, "tables rows"]
MINORITY = 0.02


def noise_like(score: Float[Tensor, "tables rows"], *, generator: torch.Generator) -> Float[Tensor, "tables rows"]:
    """Noise of unit scale: normal, Student-like with heavy tails, or one-sided exponential."""
    kind = choose(("normal", "heavy", "one-sided"), weights=(6, 3, 1), generator=generator)
    base = normal(*score.shape, generator=generator)
    if kind == "heavy":
        return base / uniform(*score.shape, low=0.12, high=1.0, generator=generator) / 2
    if kind == "one-sided":
        return -torch.log(uniform(*score.shape, low=1e-4, generator=generator)) - 1
    return base


def regression_target(scores: Scores, *, generator: torch.Generator) -> Float[Tensor, "tables rows"]:
    """A noisy and perhaps skewed, censored or rounded number: the first score is the signal, the second its spread."""
    signal, spread = scores[..., 0], scores[..., 1]
    size = log_uniform(signal.shape[0], 1, low=0.02, high=1.5, generator=generator)
    if chance(0.3, generator=generator):
        size = size * (log_uniform(signal.shape[0], 1, low=0.2, high=1.2, generator=generator) * spread).exp()
    y = signal + size * noise_like(signal, generator=generator)
    rate = log_uniform(signal.shape[0], 1, low=0.3, high=1.2, generator=generator)
    kind = choose(
        ("plain", "exponential", "sinh", "censored", "rounded", "non-negative"),
        weights=(60, 16, 5, 6, 8, 5),
        generator=generator,
    )
    y = standardise(y).clamp(-12, 12)
    if kind == "exponential":
        y = (rate * y).clamp(max=6).exp() * (1 if chance(0.8, generator=generator) else -1)
    elif kind == "sinh":
        y = torch.sinh((rate * y).clamp(-5, 5))
    elif kind == "censored":
        y = y.clamp(max=float(uniform(1, low=0.5, high=2.0, generator=generator)))
    elif kind == "rounded":
        y = (y * 6 * rate).round()
    elif kind == "non-negative":
        y = (y + 0.5).relu()
    return y


def class_shares(num_tables: int, num_classes: int, *, generator: torch.Generator) -> Float[Tensor, "tables classes"]:
    """How common each class is: from balanced to a minority of two in a hundred."""
    evenness = log_uniform(num_tables, 1, low=0.05, high=2.5, generator=generator)
    shares = torch.softmax(normal(num_tables, num_classes, generator=generator) * evenness, dim=1)
    shares = shares.clamp(min=MINORITY)
    return shares / shares.sum(dim=1, keepdim=True)


def cut_labels(score: Float[Tensor, "tables rows"], num_classes: int, *, generator: torch.Generator) -> Labels:
    """Classes as intervals of one score; now and then several intervals share a class."""
    num_tables, num_rows = score.shape
    pieces = num_classes if chance(0.7, generator=generator) else num_classes + integer(1, 4, generator=generator)
    edges = class_shares(num_tables, pieces, generator=generator).cumsum(dim=1)[:, :-1]
    rank = (score.argsort(dim=1).argsort(dim=1).to(score.dtype) + 0.5) / num_rows
    piece = torch.searchsorted(edges.contiguous(), rank)
    owner = torch.arange(pieces) % num_classes
    return owner[torch.randperm(pieces, generator=generator)][piece]


def largest_labels(scores: Scores, num_classes: int, *, generator: torch.Generator) -> Labels:
    """The class with the largest score after a bias per class."""
    bias = class_shares(scores.shape[0], num_classes, generator=generator).log()[:, None]
    return (scores[..., :num_classes] + 0.7 * bias).argmax(dim=2)


def classification_target(scores: Scores, num_classes: int, *, generator: torch.Generator) -> Labels:
    """Classes by cuts of the first score or by the largest score, with noise before or after the choice."""
    size = log_uniform(scores.shape[0], 1, 1, low=0.01, high=1.5, generator=generator)
    noisy = scores + size * normal(*scores.shape, generator=generator)
    if chance(0.5, generator=generator):
        label = cut_labels(standardise(noisy)[..., 0], num_classes, generator=generator)
    else:
        label = largest_labels(noisy, num_classes, generator=generator)
    if chance(0.25, generator=generator):
        rate = uniform(scores.shape[0], 1, high=0.25, generator=generator)
        other = torch.randint(0, num_classes, label.shape, generator=generator)
        label = torch.where(torch.rand(label.shape, generator=generator) < rate, other, label)
    return label
