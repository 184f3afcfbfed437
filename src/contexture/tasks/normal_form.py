"""What formulas in normal form share: a few terms of literals, inputs rewritten to satisfy one, and their shares.

    term_j(x) = AND of the literals of term j;   formula(x) = OR of the terms

A conjunctive normal form is false where a disjunctive one of the negated literals is true.
Legend: batch = episodes, terms = terms of a formula, time = examples, features = variables.
"""

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from contexture.tasks.boolean import signs
from contexture.tasks.draws import integers, uniform

TERM_SHARE = 0.2
"""How likely a variable is to be in a term, positive or negated."""
REWRITTEN_SHARE = 0.35


def share_of_satisfied(num_features: int, num_terms: int) -> float:
    """P(formula true): rewritten to be so, or at random, where a variable violates a term with probability .1.

    >>> round(share_of_satisfied(28, 3), 4)
    0.4468
    """
    term = (1 - TERM_SHARE / 2) ** num_features
    return REWRITTEN_SHARE + (1 - REWRITTEN_SHARE) * (1 - (1 - term) ** num_terms)


def draw_terms(
    batch: int, num_terms: int, num_features: int, *, generator: torch.Generator
) -> Float[Tensor, "batch terms features"]:
    """Literals +1, -1, 0 with probability .1, .1, .8."""
    present = uniform(batch, num_terms, num_features, generator=generator) < TERM_SHARE
    return signs(batch, num_terms, num_features, generator=generator) * present


def rewritten(
    x: Float[Tensor, "batch time features"], terms: Float[Tensor, "batch terms features"], *, generator: torch.Generator
) -> Float[Tensor, "batch time features"]:
    """x with the variables of a random term overwritten by it in 35 % of the examples."""
    chosen = uniform(*x.shape[:2], generator=generator) < REWRITTEN_SHARE
    which = integers(*x.shape[:2], below=terms.shape[1], generator=generator)
    pattern = terms.gather(1, which.unsqueeze(-1).expand(-1, -1, x.shape[2]))
    return torch.where(chosen.unsqueeze(-1) & (pattern != 0), pattern, x)


def satisfied(
    x: Float[Tensor, "batch time features"], terms: Float[Tensor, "batch terms features"]
) -> Bool[Tensor, "batch time"]:
    """Whether any term has all of its literals."""
    return (x @ terms.mT == terms.abs().sum(-1).unsqueeze(1)).any(-1)
