"""How far apart two learners' predictions are, whatever the truth is: which algorithm does a model run?

    squared prediction difference   SPD(a, b) = E (a(x) - b(x))^2          Akyurek et al. 2023, section 4.2
    reported here                   SPD(a, b) / Var b(x)                   in units of the reference's own signal
    for class probabilities         JS(a, b) = H((a + b)/2) - (H(a) + H(b))/2, in bits: 0 alike, 1 disjoint

Expectations are over episodes and queries at one context size; the two learners answered the same queries.
Shapes: answers [seeds, episodes, context, queries] for numbers, with a last axis of classes for probabilities.
"""

import math
from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from contexture.errors import InputError
from contexture.evaluation.samples import CurveSamples

SIGNAL_FLOOR = 1e-12
"""A reference whose predictions vary by less than this share of their mean square has no signal to measure by."""

Distances = dict[str, dict[str, tuple[float, ...]]]
"""Learner -> reference -> one distance for each context size; NaN where it is not defined."""


def squared_difference(
    answers: Float[Tensor, "seeds episodes context queries"], reference: Float[Tensor, "seeds episodes context queries"]
) -> Float[Tensor, " context"]:
    """SPD over the variance of the reference's predictions; NaN where the reference says the same to every query.

    The variance is that among an episode's queries, or among episodes where each has a single query.
    """
    spd = (answers - reference).square().mean((0, 1, 3))
    several = reference.shape[3] > 1
    signal = reference.var(3, correction=0).mean((0, 1)) if several else reference.var((0, 1, 3), correction=0)
    floor = SIGNAL_FLOOR * reference.square().mean((0, 1, 3))
    return torch.where(signal > floor, spd / signal, torch.nan)


def jensen_shannon(
    answers: Float[Tensor, "seeds episodes context queries classes"],
    reference: Float[Tensor, "seeds episodes context queries classes"],
) -> Float[Tensor, " context"]:
    """The mean Jensen-Shannon divergence between class probabilities, in bits.

    >>> sure, even = torch.tensor([1.0, 0.0]), torch.tensor([0.5, 0.5])
    >>> round(jensen_shannon(sure.expand(1, 1, 1, 1, 2), even.expand(1, 1, 1, 1, 2)).item(), 4)
    0.3113
    """
    mixed = _bits((answers + reference) / 2)
    return (mixed - (_bits(answers) + _bits(reference)) / 2).mean((0, 1, 3)).clamp(min=0)


def _bits(probabilities: Tensor) -> Tensor:
    entropy: Tensor = torch.special.entr(probabilities).sum(-1)
    return entropy / math.log(2)


def distance(learner: CurveSamples, reference: CurveSamples) -> Float[Tensor, " context"]:
    """How far the learner's predictions are from the reference's, at every context size."""
    ours, theirs = learner.answers, reference.answers
    if ours is None or theirs is None or ours.shape != theirs.shape or learner.context != reference.context:
        raise InputError(f"{learner.name} and {reference.name} did not answer the same queries, or kept no answers")
    return squared_difference(ours, theirs) if ours.dim() == 4 else jensen_shannon(ours, theirs)


def distances(learners: Sequence[CurveSamples], references: Sequence[CurveSamples]) -> Distances:
    """Each learner's distance to each reference other than itself; nothing for those whose answers were not kept."""
    kept = [reference for reference in references if reference.answers is not None]
    return {
        learner.name: {
            reference.name: tuple(v if math.isfinite(v) else math.nan for v in distance(learner, reference).tolist())
            for reference in kept
            if reference.name != learner.name
        }
        for learner in learners
        if learner.answers is not None
    }
